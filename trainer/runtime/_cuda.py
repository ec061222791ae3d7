"""What NVIDIA's driver and CuPy report, without judging it; see :mod:`trainer.runtime.devices`."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainer.runtime.layout import CUPY_PACKAGES
from trainer.runtime.versions import installed_versions

# CUresult and CUdevice_attribute values: CUDA Driver API, cuda.h.
_NO_DEVICE = 100
_ERRORS = {
    3: "the CUDA driver is not initialised",
    101: "invalid CUDA device",
    802: "the GPU is not yet initialised by the system (fabric manager)",
    803: "the driver's library and its kernel module are of different versions",
    804: "the installed driver's compatibility library does not support this card",
    999: "unknown error",
}
_CAPABILITY_MAJOR = 75
_CAPABILITY_MINOR = 76


@dataclass(frozen=True)
class Gpu:
    """One card as the driver shows it.

    Attributes:
        index: CUDA's number for it, after ``CUDA_VISIBLE_DEVICES``.
        name: Product name, as "Tesla T4".
        capability: Compute capability, as "7.5".
        memory_bytes: Total memory.
        usable: Whether it has run a kernel of CuPy's.
        problem: Why not; empty if it has.
    """

    index: int
    name: str
    capability: str
    memory_bytes: int
    usable: bool = False
    problem: str = ""

    @property
    def capability_tuple(self) -> tuple[int, int]:
        major, minor = self.capability.split(".")
        return int(major), int(minor)


@dataclass(frozen=True)
class DriverFacts:
    """What the driver says: its newest CUDA version, its cards, or why it has none."""

    cuda: tuple[int, int] | None = None
    gpus: tuple[Gpu, ...] = ()
    problem: str = ""
    hint: str = ""


@dataclass(frozen=True)
class CupyFacts:
    """What CuPy says. ``runtime`` and below are known only where it was imported."""

    packages: tuple[str, ...] = ()
    version: str | None = None
    built_for: int | None = None
    missing_library: str = ""
    problem: str = ""
    runtime: tuple[int, int] | None = None
    cudnn: bool = False
    kernel_problems: Mapping[int, str] = field(default_factory=dict)


def ask_driver() -> DriverFacts:
    """Load the driver's library and list the cards. Create no CUDA context."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError:
        return _no_driver(name)
    status = library.cuInit(0)
    number = ctypes.c_int()
    cuda = None
    if library.cuDriverGetVersion(ctypes.byref(number)) == 0:
        cuda = (number.value // 1000, number.value % 1000 // 10)
    if status not in (0, _NO_DEVICE):
        what = _ERRORS.get(status, "cuInit failed")
        return DriverFacts(
            cuda,
            problem=f"the NVIDIA driver does not start: {what} (CUDA error {status})",
            hint="run nvidia-smi; after a driver update, reboot",
        )
    count = ctypes.c_int()
    if status == 0 and library.cuDeviceGetCount(ctypes.byref(count)) != 0:
        count.value = 0
    if count.value == 0:
        return _no_card(cuda)
    return DriverFacts(cuda, tuple(_describe(library, i) for i in range(count.value)))


def _no_driver(name: str) -> DriverFacts:
    if _nvidia_card_on_bus():
        return DriverFacts(
            problem=f"there is an NVIDIA card but no driver ({name} cannot be loaded)",
            hint="install the NVIDIA driver; in a container, start it with --gpus all",
        )
    return DriverFacts(
        problem=f"no NVIDIA driver ({name} cannot be loaded)",
        hint="a GPU needs an NVIDIA card and its driver on this machine",
    )


def _no_card(cuda: tuple[int, int] | None) -> DriverFacts:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return DriverFacts(
            cuda,
            problem=f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU",
            hint="unset CUDA_VISIBLE_DEVICES",
        )
    return DriverFacts(
        cuda,
        problem="the NVIDIA driver finds no GPU",
        hint="run nvidia-smi; in a container, start it with --gpus all",
    )


def _nvidia_card_on_bus() -> bool:
    """Whether the PCI bus shows a display or 3D controller of NVIDIA's (Linux)."""
    try:
        for device in Path("/sys/bus/pci/devices").iterdir():
            vendor = (device / "vendor").read_text().strip()
            kind = (device / "class").read_text().strip()
            if vendor == "0x10de" and kind.startswith("0x03"):
                return True
    except OSError:
        pass
    return False


def _describe(library: ctypes.CDLL, index: int) -> Gpu:
    device = ctypes.c_int()
    library.cuDeviceGet(ctypes.byref(device), index)
    name = ctypes.create_string_buffer(256)
    library.cuDeviceGetName(name, len(name), device)
    memory = ctypes.c_size_t()
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    major, minor = ctypes.c_int(), ctypes.c_int()
    library.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
    library.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    return Gpu(index, name.value.decode(errors="replace"), f"{major.value}.{minor.value}", memory.value)


def ask_cupy(cards: Sequence[int]) -> CupyFacts:
    """Look CuPy up and, if there are ``cards`` to run on, import it and run a kernel on each.

    Args:
        cards: CUDA's numbers of them. Each that is tried holds some of its memory from then on.
    """
    if importlib.util.find_spec("cupy") is None:
        return CupyFacts()
    packages = installed_versions(CUPY_PACKAGES)
    names = tuple(packages)
    version = next(iter(packages.values()), None)
    match = re.fullmatch(r"cupy-cuda(\d+)x", names[0]) if names else None
    built_for = int(match.group(1)) if match else None
    if not cards:
        return CupyFacts(names, version, built_for)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _import_cupy(names, built_for, cards)
    except Exception as error:  # CuPy raises ImportError, OSError, RuntimeError and its own
        return CupyFacts(
            names,
            version,
            built_for,
            missing_library=_missing_library(error, built_for),
            problem=_first_line(error),
        )


def _import_cupy(packages: tuple[str, ...], built_for: int | None, cards: Sequence[int]) -> CupyFacts:
    import cupy  # type: ignore[import-not-found, unused-ignore]
    from cupy.cuda import (  # type: ignore[import-not-found, unused-ignore]  # noqa: F401
        cublas,  # chainer.backends.cuda needs this one; CuPy itself loads it late
        nvrtc,
    )

    runtime = nvrtc.getVersion()
    try:
        import cupy.cudnn

        cudnn = True
    except Exception:
        cudnn = False
    problems = {}
    for index in cards:
        try:
            with cupy.cuda.Device(index):
                kernel = cupy.ElementwiseKernel("float32 x", "float32 y", "y = x + 1", "trainer_probe")
                if int(kernel(cupy.zeros(3, "float32")).sum()) != 3:
                    problems[index] = "a test kernel gave a wrong result"
        except Exception as error:
            problems[index] = "a test kernel failed: " + _first_line(error)
    return CupyFacts(
        packages,
        cupy.__version__,
        built_for,
        runtime=(int(runtime[0]), int(runtime[1])),
        cudnn=cudnn,
        kernel_problems=problems,
    )


def _missing_library(error: BaseException, built_for: int | None) -> str:
    """The file name in the loader's "libcublas.so.12: cannot open shared object file" or CuPy's own words.

    CuPy 14 names the file for each CUDA that it could use ("libnvrtc.so.13 or libnvrtc.so.12"); the
    one for ``built_for`` is what is to be installed.
    """
    current: BaseException | None = error
    while current is not None:
        text = str(current)
        if re.search(r"cannot open|not found|could not|failure finding|no such file", text, re.IGNORECASE):
            names: list[str] = re.findall(r"lib[\w+-]+\.so[.\d]*\d|[\w-]+\.dll", text)
            fitting = [name for name in names if name.endswith(f".so.{built_for}")]
            if names:
                return (fitting or names)[0]
        current = current.__cause__ or current.__context__
    return ""


def _first_line(error: BaseException) -> str:
    lines = [line.strip(" =-") for line in str(error).splitlines()]
    return next((line for line in lines if line), type(error).__name__)
