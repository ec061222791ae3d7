"""The image that a job runs in: a Dockerfile on a current Azure ML base image, everything in it pinned."""

from __future__ import annotations

import hashlib
import shlex
from typing import TYPE_CHECKING

import msgspec

from backends.azure.pins import Pins

if TYPE_CHECKING:
    from backends.azure.vm_sizes import Cuda

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


def make_environment(pins: Pins, cuda: Cuda | None) -> Environment:
    """Write the Dockerfile for a set of pins.

    Args:
        pins: What it installs.
        cuda: The CUDA major version of the node's GPU, or None.
    """
    image = BASE_IMAGES[cuda]
    dockerfile = _TEMPLATE.format(
        image=image,
        python=pins.python,
        setuptools=BUILD_SETUPTOOLS,
        pip=PIP,
        requirements=" \\\n    ".join(shlex.quote(line) for line in pins.requirements()),
    )
    digest = hashlib.sha256(dockerfile.encode()).hexdigest()
    kind = f"cuda{cuda}" if cuda else "cpu"
    return Environment(name=f"trainer-{kind}-{digest[:12]}", image=image, dockerfile=dockerfile, pins=pins)
