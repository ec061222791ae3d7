"""Which device a job runs on, and precisely why a GPU is not used.

``chainer.backends.cuda.available`` cannot answer this: it says that CuPy and cuBLAS can be
imported, and is True on a machine without any GPU. So the driver is asked first, through its C API
and without CuPy, and CuPy only where the driver has a card to offer.

Importing this module imports neither Chainer nor CuPy.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, Literal

from trainer.runtime import _cuda, ranks
from trainer.runtime._cuda import CupyFacts, DriverFacts, Gpu
from trainer.runtime.faults import RuntimeFault

__all__ = ["DeviceReport", "Gpu", "Selected", "probe", "select"]

INSTALL_HINT = "install it with: pip install 'chainer-trainer[cuda12]'"

# Major CUDA version -> the least compute capability that its NVRTC and libraries still support.
# CUDA 11.0, 12.0 and 13.0 release notes, "Deprecated architectures" and "Removed architectures".
_LEAST_CAPABILITY = {11: (3, 5), 12: (5, 0), 13: (7, 5)}
# Major CUDA version -> the oldest Linux driver branch that runs it (CUDA compatibility guide).
_LEAST_DRIVER = {11: "450", 12: "525", 13: "580"}


@dataclass(frozen=True)
class DeviceReport:
    """What was found out about GPUs on this machine.

    Attributes:
        usable: Whether at least one GPU can train.
        reason: Why none can; empty if one can.
        hint: What to do about it; may be empty.
        gpus: The cards that the driver shows, each with its own reason if it can't be used.
        driver_cuda: The newest CUDA version that the driver supports, as "12.4"; None without driver.
        cupy: CuPy's version; None if it is not installed.
        cupy_package: The distribution that CuPy came from, as "cupy-cuda12x".
        cuda_runtime: The CUDA version that CuPy uses, as "12.9"; None if CuPy was not imported.
        cudnn: Whether CuPy offers cuDNN, which Chainer uses for convolutions and RNNs.
    """

    usable: bool
    reason: str
    hint: str
    gpus: tuple[Gpu, ...]
    driver_cuda: str | None
    cupy: str | None
    cupy_package: str | None
    cuda_runtime: str | None
    cudnn: bool

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain dictionaries, lists, strings and numbers."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Selected:
    """The device that a job runs on.

    Attributes:
        kind: "cpu" or "cuda".
        index: The CUDA device number; -1 for the CPU.
        description: For people, as "cuda:0 (NVIDIA A100-SXM4-40GB, compute capability 8.0)".
        reason: For "auto" that took the CPU, why no GPU is used; else empty.
    """

    kind: Literal["cpu", "cuda"]
    index: int
    description: str
    reason: str = ""

    @property
    def chainer_name(self) -> str:
        """What ``chainer.get_device`` calls it: "@numpy" or "@cupy:0"."""
        return "@numpy" if self.kind == "cpu" else f"@cupy:{self.index}"


def probe() -> DeviceReport:
    """Find out whether a GPU can train here. Raises nothing.

    Without a driver or a card this takes milliseconds. With both, CuPy is imported and each card
    compiles and runs a small kernel, so that "usable" has been seen and not inferred.
    """
    driver = _cuda.ask_driver()
    return _diagnose(driver, _cuda.ask_cupy(range(len(driver.gpus))))


def select(spec: str) -> Selected:
    """Choose the device named by ``spec``.

    Args:
        spec: "cpu"; "cuda" (the first usable GPU); "cuda:N" (that one); or "auto" (the first usable
            GPU, else the CPU, with the reason in :attr:`Selected.reason`). Of several ranks on this machine, the
            one with the local number k takes the GPU of that number.

    Raises:
        RuntimeFault: ``spec`` is none of these, or names a GPU that can't be used, or there are more ranks than GPUs.
    """
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d{1,4}))?", spec)
    if match is None:
        raise RuntimeFault(f"unknown device {spec!r}", "use auto, cpu, cuda or cuda:N, as in cuda:0")
    if spec == "cpu":
        return Selected("cpu", -1, "cpu")
    index = None if match.group(1) is None else int(match.group(1))
    if ranks.local_size() > 1:
        return _select_of_rank(spec, index)
    report = probe()
    if spec == "auto" and not report.usable:
        return Selected("cpu", -1, "cpu", report.reason)
    return _choose_gpu(report, spec, index)


def check_ranks(spec: str, cards: int, count: int) -> None:
    """Refuse what so many ranks on one machine can't share.

    Args:
        spec: See :func:`select`.
        cards: How many GPUs the machine has.
        count: How many ranks.

    Raises:
        RuntimeFault: There are too few, or one for all is asked for.
    """
    if count == 1 or spec == "cpu" or (spec == "auto" and not cards):
        return
    if spec.startswith("cuda:"):
        raise RuntimeFault(
            f"device {spec} is one GPU, and {count} ranks on this machine need one each",
            "use --device cuda: each rank takes the GPU of its number",
        )
    if 0 < cards < count:
        raise RuntimeFault(
            f"{count} ranks on this machine need a GPU each, and it has {cards}",
            f"use --processes-per-node {cards}, or --device cpu" if cards > 1 else "use one process, or --device cpu",
        )


def _select_of_rank(spec: str, index: int | None) -> Selected:
    driver = _cuda.ask_driver()
    check_ranks(spec, len(driver.gpus), ranks.local_size())
    own = ranks.local_rank()
    # Its own card alone: a test on another would hold memory that is that one's rank's.
    report = _diagnose(driver, _cuda.ask_cupy([own] if driver.gpus else []))
    if spec == "auto" and not report.usable:
        return Selected("cpu", -1, "cpu", report.reason)
    return _choose_gpu(report, spec, own if report.gpus else index)


def _choose_gpu(report: DeviceReport, spec: str, index: int | None) -> Selected:
    if index is not None and report.gpus and index >= len(report.gpus):
        raise RuntimeFault(
            f"device {spec} does not exist: this machine has {len(report.gpus)} GPU(s)",
            f"the last one is cuda:{len(report.gpus) - 1}",
        )
    wanted = [gpu for gpu in report.gpus if index is None or gpu.index == index]
    for gpu in wanted:
        if gpu.usable:
            text = f"cuda:{gpu.index} ({gpu.name}, compute capability {gpu.capability})"
            return Selected("cuda", gpu.index, text)
    own_problem = wanted[0].problem if index is not None and wanted else ""
    reason = own_problem or report.reason
    hint = report.hint or "trainer doctor says more"
    raise RuntimeFault(f"device {spec} cannot be used: {reason}", f"{hint}; or use --device cpu")


def _diagnose(driver: DriverFacts, cupy: CupyFacts) -> DeviceReport:
    """Judge what the driver and CuPy report. A pure function, so that tests need no GPU."""
    reason, hint = _machine_problem(driver, cupy)
    gpus = driver.gpus
    if not reason:
        gpus = tuple(_judge(gpu, cupy) for gpu in gpus)
        if not any(gpu.usable for gpu in gpus):
            reason = "; ".join(f"cuda:{gpu.index}: {gpu.problem}" for gpu in gpus)
            hint = _card_hint(gpus, cupy)
    else:
        gpus = tuple(dataclasses.replace(gpu, usable=False, problem=reason) for gpu in gpus)
    return DeviceReport(
        usable=not reason,
        reason=reason,
        hint=hint,
        gpus=gpus,
        driver_cuda=_version(driver.cuda),
        cupy=cupy.version,
        cupy_package=cupy.packages[0] if cupy.packages else None,
        cuda_runtime=_version(cupy.runtime),
        cudnn=cupy.cudnn,
    )


def _machine_problem(driver: DriverFacts, cupy: CupyFacts) -> tuple[str, str]:
    """What keeps every card of the machine from being used: (reason, hint), or empty strings."""
    if driver.problem:
        return driver.problem, driver.hint
    if cupy.version is None and not cupy.packages:
        return "CuPy is not installed", INSTALL_HINT
    if len(cupy.packages) > 1:
        names = " and ".join(cupy.packages)
        return f"{names} are both installed and overwrite each other", (
            f"uninstall all but one: pip uninstall -y {' '.join(cupy.packages[1:])}, then reinstall {cupy.packages[0]}"
        )
    built_for = cupy.built_for
    if built_for is not None and driver.cuda is not None and driver.cuda[0] < built_for:
        return (
            f"the driver supports CUDA {_version(driver.cuda)} at most, and {cupy.packages[0]} needs CUDA {built_for}"
        ), (
            f"update the NVIDIA driver to {_LEAST_DRIVER.get(built_for, 'a newer branch')} or "
            f"newer, or install cupy-cuda{driver.cuda[0]}x in place of {cupy.packages[0]}"
        )
    if cupy.missing_library:
        return f"CuPy is installed but the library {cupy.missing_library} is missing", (
            "install CUDA's libraries with: pip install 'chainer-trainer[cuda12]'"
            if built_for in (None, 12)
            else f"install CUDA's libraries with: pip install '{cupy.packages[0]}[ctk]'"
        )
    if cupy.problem:
        return f"CuPy cannot be imported: {cupy.problem}", "reinstall CuPy: " + INSTALL_HINT
    return "", ""


def _judge(gpu: Gpu, cupy: CupyFacts) -> Gpu:
    major = cupy.runtime[0] if cupy.runtime else cupy.built_for
    least = _LEAST_CAPABILITY.get(major) if major is not None else None
    if least is not None and gpu.capability_tuple < least:
        problem = (
            f"{gpu.name} has compute capability {gpu.capability}, and CUDA {major} needs "
            f"{least[0]}.{least[1]} or higher"
        )
        return dataclasses.replace(gpu, usable=False, problem=problem)
    problem = cupy.kernel_problems.get(gpu.index, "")
    return dataclasses.replace(gpu, usable=not problem, problem=problem)


def _card_hint(gpus: tuple[Gpu, ...], cupy: CupyFacts) -> str:
    best = max(gpu.capability_tuple for gpu in gpus)
    current = cupy.runtime[0] if cupy.runtime else cupy.built_for
    for major in sorted(_LEAST_CAPABILITY, reverse=True):
        if current in _LEAST_CAPABILITY and _LEAST_CAPABILITY[major] <= best < _LEAST_CAPABILITY[current]:
            old = cupy.packages[0] if cupy.packages else f"cupy-cuda{current}x"
            return f"install cupy-cuda{major}x in place of {old}, or use a newer card"
    if current is not None and best < _LEAST_CAPABILITY.get(current, (0, 0)):
        return "use a newer card"
    return "check the card with nvidia-smi"


def _version(version: tuple[int, int] | None) -> str | None:
    return None if version is None else f"{version[0]}.{version[1]}"
