"""The image that a job runs in: a Dockerfile on a current Azure ML base image, everything in it pinned.

The pins are the exact versions that are installed here. What a job needs is read off its files: every module that a
``.py`` file of the snapshot imports and that an installed distribution provides, and what Chainer itself uses where
it is installed; then all that those require.
"""

from __future__ import annotations

import ast
import hashlib
import platform
import shlex
import sys
import threading
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from trainer.errors import DISTRIBUTION, ConfigError, MissingExtraError
from trainer.kernels import torch_for
from trainer.provision import BY_HAND
from trainer.runtime.layout import JOB_DIR
from trainer.runtime.versions import installed_version

if TYPE_CHECKING:
    from backends.azure.vm_sizes import Cuda, VMSize
    from trainer.snapshot import Snapshot

_ALWAYS = ("numpy", "chainer")
# Chainer uses these where they are installed (PlotReport, image data sets, HDF5 snapshots, ChainerMN) and does
# less, in silence, where they are not: a run on Azure must not differ from one here in that. The last is
# a module that azureml-core imports and Python 3.13 left out.
_WHERE_INSTALLED = ("pillow", "matplotlib", "h5py", "mpi4py", "standard-imghdr")
# Modules that travel with the job, or that the base image or the GPU decides on.
_NOT_FROM_IMPORTS = {"trainer", "cupy", "cupyx", "cupy_backends", "azureml", "chainermn", "chainer", "chainerx"}
# What CuPy a machine without a GPU would have installed: the newest wheel that takes the NumPy here,
# with what it requires. Its CUDA libraries come from the base image, so no extra is wanted.
_CUPY = {
    ("12", 2): {"cupy-cuda12x": "14.2.0", "cuda-pathfinder": "1.9.0"},
    ("12", 1): {"cupy-cuda12x": "13.6.0", "fastrlock": "0.8.4"},
    ("11", 2): {"cupy-cuda11x": "13.6.0", "fastrlock": "0.8.4"},
    ("11", 1): {"cupy-cuda11x": "13.6.0", "fastrlock": "0.8.4"},
}

# From Azure/AzureML-Containers (list of 2026-03-16). The CUDA images hold the toolkit, so CuPy needs no
# wheels of it; CUDA 12.4 asks less of the node's driver than the newer ones do. The CUDA 11 image gets
# no new versions any more, but can be pulled: it is for Kepler cards, which no later CUDA runs on.
BASE_IMAGES: dict[Cuda | None, str] = {
    None: "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04",
    "12": "mcr.microsoft.com/azureml/openmpi5.0-cuda12.4-ubuntu22.04",
    "11": "mcr.microsoft.com/azureml/openmpi4.1.0-cuda11.8-cudnn8-ubuntu22.04",
}
# Chainer's setup.py imports pkg_resources, which setuptools 82 removed.
BUILD_SETUPTOOLS = "81.0.0"
# The first releases with --build-constraint are of 2025; the base images' own pip is older.
PIP = "26.3"

_TEMPLATE = """\
FROM {image}

# The name by which Azure ML's own images tell where their Python is.
ENV AZUREML_CONDA_ENVIRONMENT_PATH=/azureml-envs/trainer
RUN conda create --yes --quiet --prefix $AZUREML_CONDA_ENVIRONMENT_PATH --override-channels --channel conda-forge \\
    python={python} pip && conda clean --all --yes
ENV PATH=$AZUREML_CONDA_ENVIRONMENT_PATH/bin:$PATH
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

# Chainer is built from source, and its setup.py imports pkg_resources, which setuptools 82 removed. A conda
# file's pip section can't carry a build constraint; this is why there is a Dockerfile.
RUN echo setuptools=={setuptools} > /tmp/build-constraints.txt
RUN python -m pip install pip=={pip}
RUN python -m pip install --build-constraint /tmp/build-constraints.txt \\
    {requirements}
RUN python -m pip check
"""

# Python 3.11 counts the depth of syntax trees for all threads together, and fails when two build one at once. Reading
# imports builds them, markers of requirements too, and the SDK, when an estimator is made: all take this lock.
PARSING = threading.Lock()


class Pins(msgspec.Struct, frozen=True, kw_only=True):
    """What a job's environment holds.

    Attributes:
        python: Python's version, as x.y.z.
        packages: Distribution name to version, sorted by name.
        left_out: Distributions that the script imports and that no index has, with the reason.
        replaced: Packages that come in another version than is installed here, each with both.
    """

    python: str
    packages: dict[str, str]
    left_out: dict[str, str] = {}
    replaced: tuple[str, ...] = ()

    def requirements(self) -> list[str]:
        """Return one ``name==version`` per package."""
        return [f"{name}=={version}" for name, version in self.packages.items()]


def find_pins(
    sources: Iterable[Path],
    local_modules: Iterable[str],
    cuda: Cuda | None,
    side: NodeSide | None = None,
    kernels: str | None = None,
    ours: Collection[Path] = (),
) -> Pins:
    """Pin what a job needs.

    Args:
        sources: The ``.py`` files that travel.
        local_modules: Names that those files' own directory provides.
        cuda: The CUDA major version of the node's GPU, or None.
        side: What of the SDK the node needs; None for that of v1.
        kernels: Whose CPU kernels the job asks for.
        ours: Those of the files that are this project's: they import an SDK only where the node has it.

    Thread-safe.

    Raises:
        MissingExtraError: What the node needs of the SDK is not installed here.
        ConfigError: NumPy, Chainer or what the kernels need is not installed, or a requirement of theirs is missing.
    """
    with PARSING:
        pins = _find_pins(list(sources), local_modules, cuda, side or V1, ours)
    torch = torch_for(kernels)
    return pins if torch is None else _with_torch(pins, torch)


class NodeSide(NamedTuple):
    """What of an SDK a node needs.

    Attributes:
        extra: The extra of this project that brings the SDK.
        always: Distributions for every job.
        where_imported: Module to distributions, for scripts that import it.
    """

    extra: str
    always: tuple[str, ...]
    where_imported: Mapping[str, tuple[str, ...]] = MappingProxyType({})


# The node's side of Run.get_context() is in azureml-core.
V1 = NodeSide("azureml", ("azureml-core",))
# Our reporting needs nothing there. A script that logs with MLflow needs the plug-in for Azure's address, and one that
# uses Run of SDK v1 has that where it is installed here; where it isn't, our own takes its place.
V2 = NodeSide(
    "azureml-v2",
    (),
    MappingProxyType({"mlflow": ("azureml-mlflow", "mlflow-skinny"), "azureml": ("azureml-core",)}),
)


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What a job runs in.

    Attributes:
        name: Ends in a digest of the Dockerfile, so that equal environments share one image.
        image: The base image.
        dockerfile: The Dockerfile's text.
        pins: What it installs.
    """

    name: str
    image: str
    dockerfile: str
    pins: Pins

    def left_out_notes(self) -> list[str]:
        """Say what the job imports and the node won't have, one sentence for each."""
        return [
            f"{name} is imported here but is not on the node: {reason}." for name, reason in self.pins.left_out.items()
        ]


def environment_of(
    snapshot: Snapshot, size: VMSize, side: NodeSide | None = None, kernels: str | None = None
) -> Environment:
    """Make the image for a snapshot's imports, a VM size's GPU and a job's kernels; errors as :func:`find_pins`."""
    modules = [file for file in snapshot.files if file.path.endswith(".py")]
    # Wherever the script lies, what lies beside it is imported from there and from no index.
    beside = {part.removesuffix(".py") for file in modules for part in file.path.split("/")}
    ours = {file.source for file in modules if file.path.startswith(f"{JOB_DIR}/")}
    pins = find_pins([file.source for file in modules], beside, size.cuda, side, kernels, ours)
    return make_environment(pins, size.cuda)


def make_environment(pins: Pins, cuda: Cuda | None, purpose: str = "", end: str = "") -> Environment:
    """Write the Dockerfile for a set of pins.

    Args:
        pins: What it installs.
        cuda: The CUDA major version of the node's GPU, or None.
        purpose: What is not a job, for the environment's name.
        end: What follows in the Dockerfile.
    """
    image = BASE_IMAGES[cuda]
    dockerfile = _TEMPLATE.format(
        image=image,
        python=pins.python,
        setuptools=BUILD_SETUPTOOLS,
        pip=PIP,
        requirements=" \\\n    ".join(shlex.quote(line) for line in pins.requirements()),
    )
    dockerfile += end
    digest = hashlib.sha256(dockerfile.encode()).hexdigest()
    kind = purpose or (f"cuda{cuda}" if cuda else "cpu")
    return Environment(name=f"trainer-{kind}-{digest[:12]}", image=image, dockerfile=dockerfile, pins=pins)


def _find_pins(
    sources: Sequence[Path], local_modules: Iterable[str], cuda: Cuda | None, side: NodeSide, ours: Collection[Path]
) -> Pins:
    roots = imported_distributions(sources, local_modules)
    imported = imported_modules(path for path in sources if path not in ours) if side.where_imported else set()
    wanted = (*_WHERE_INSTALLED, *(name for module in imported for name in side.where_imported.get(module, ())))
    roots |= {name for name in wanted if installed_version(name) is not None}
    always = (*_ALWAYS, *side.always)
    for name in always:
        if installed_version(name) is None:
            if name in side.always:
                raise MissingExtraError(f"The {side.extra} backend", side.extra)
            raise ConfigError(
                f"{name} is not installed here.", BY_HAND if name == "chainer" else "Install trainer again."
            )
    packages, left_out = pinned_closure({*roots, *always})
    if cuda is not None:
        packages |= _cupy(cuda, packages["numpy"])
    ordered = {name: packages[name] for name in sorted(packages)}
    return Pins(python=platform.python_version(), packages=ordered, left_out=left_out)


def _with_torch(pins: Pins, version: str) -> Pins:
    """With PyTorch in that version; of a build such as 2.13.0+cpu the index has the one without the ending."""
    packages = pins.packages | {"torch": version.partition("+")[0]}
    left_out = {name: reason for name, reason in pins.left_out.items() if name != "torch"}
    return msgspec.structs.replace(
        pins, packages={name: packages[name] for name in sorted(packages)}, left_out=left_out
    )


def imported_distributions(sources: Iterable[Path], local_modules: Iterable[str]) -> set[str]:
    """Installed distributions that some Python files import, but for ours and those that the image decides on.

    Args:
        sources: The files.
        local_modules: Names that their own directory provides.
    """
    imported = imported_modules(sources) - set(local_modules) - _NOT_FROM_IMPORTS
    provided = metadata.packages_distributions()
    found = {name for module in imported for name in provided.get(module, ())}
    return {name for name in found if _canonical(name) != DISTRIBUTION and not _canonical(name).startswith("cupy-")}


def imported_modules(sources: Iterable[Path]) -> set[str]:
    """Top-level modules outside the standard library that some Python files import, wherever in the file."""
    found: set[str] = set()
    for path in sources:
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # not for us to report; it may be a template or never be imported
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names


def pinned_closure(roots: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Pin the roots and all that they require, as installed here.

    Returns:
        Canonical name to version, and those left out with the reason.

    Raises:
        ConfigError: One that is required is not installed.
    """
    from packaging.requirements import Requirement

    packages: dict[str, str] = {}
    left_out: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = deque((name, "") for name in sorted(roots))
    while waiting:
        name, extra = waiting.popleft()
        if (_canonical(name), extra) in seen:
            continue
        seen.add((_canonical(name), extra))
        distribution = metadata.distribution(name)
        problem = _not_on_an_index(distribution)
        if problem:
            left_out[_canonical(name)] = problem
            continue
        packages[_canonical(name)] = distribution.version
        for text in distribution.requires or ():
            requirement = Requirement(text)
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            if installed_version(requirement.name) is None:
                raise ConfigError(
                    f"{name} requires {requirement.name}, which is not installed here.",
                    "Repair the environment: uv sync",
                )
            waiting.extend((requirement.name, wanted) for wanted in ("", *sorted(requirement.extras)))
    return packages, left_out


def _cupy(cuda: Cuda, numpy: str) -> Mapping[str, str]:
    """CuPy as installed here where it is the wheel for that CUDA, else the one known to fit."""
    wheel = f"cupy-cuda{cuda}x"
    if installed_version(wheel) is None:
        return _CUPY[cuda, min(int(numpy.partition(".")[0]), 2)]
    return {name: version for name, version in pinned_closure([wheel])[0].items() if name != "numpy"}


def _not_on_an_index(distribution: metadata.Distribution) -> str | None:
    if distribution.read_text("direct_url.json") is not None:
        return "installed from a directory or a URL"
    if "+" in distribution.version:
        return f"the local version {distribution.version}"
    return None


def _canonical(name: str) -> str:
    from packaging.utils import canonicalize_name

    return canonicalize_name(name)
