"""Patches without which ``import chainer`` fails or warns."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType

from trainer.runtime.compat.patch import Patch, numpy_at_least, version_tuple


def _environment_check_fails() -> bool:
    # chainer._environment_check imports numpy.distutils (gone with Python 3.12, and at odds with
    # setuptools 74 and newer) and pkg_resources (a part of setuptools below 82).
    if sys.version_info >= (3, 12):
        return True
    try:
        setuptools = importlib.metadata.version("setuptools")
    except importlib.metadata.PackageNotFoundError:
        return True
    return version_tuple(setuptools) >= (74,)


def _no_environment_check(module: ModuleType) -> None:
    module.check = lambda: None  # type: ignore[attr-defined]


@contextlib.contextmanager
def numpy_sctypes() -> Iterator[None]:
    """Give NumPy 2 the ``sctypes`` table of NumPy 1 for as long as the context lasts."""
    import numpy

    numpy.sctypes = sctypes()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del numpy.sctypes  # type: ignore[attr-defined]


def sctypes() -> dict[str, list[type]]:
    """The integer and floating-point rows of NumPy 1's ``numpy.sctypes``."""
    import numpy

    return {
        "int": [numpy.int8, numpy.int16, numpy.int32, numpy.int64],
        "uint": [numpy.uint8, numpy.uint16, numpy.uint32, numpy.uint64],
        "float": [numpy.float16, numpy.float32, numpy.float64, numpy.longdouble],
    }


def _cupy_is_installed() -> bool:
    return importlib.util.find_spec("cupy") is not None


def _cudnn_is_known_to_be_absent(module: ModuleType) -> None:
    # check_cuda_available() warns once, on the first use of a GPU.
    module.check_cuda_available._already_warned = True


@contextlib.contextmanager
def _without_optional_library_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(?s).*(nccl|cudnn) library could not be loaded")
        yield


PATCHES = (
    Patch(
        name="environment-check",
        module="chainer._environment_check",
        reason=(
            "imports numpy.distutils and pkg_resources, which no longer exist, only to warn about "
            "macOS Accelerate, Python 3.5.0 and CuPy packages that predate cupy-cuda12x"
        ),
        versions="Python >= 3.12, or setuptools absent or >= 74",
        needed=_environment_check_fails,
        stand_in=_no_environment_check,
    ),
    Patch(
        name="as-strided-import",
        module="chainer.functions.array.as_strided",
        reason="reads numpy.sctypes, which NumPy 2 removed, while it is imported",
        versions="NumPy >= 2",
        needed=lambda: numpy_at_least(2),
        around=numpy_sctypes,
    ),
    Patch(
        name="optional-library-warnings",
        module="chainer",
        reason=(
            "CuPy warns that the cuDNN and NCCL libraries could not be loaded when Chainer asks for "
            "them on import; it gets on without, and trainer doctor reports on them"
        ),
        versions="any, where CuPy is installed",
        needed=_cupy_is_installed,
        around=_without_optional_library_warnings,
    ),
    Patch(
        name="cudnn-warning",
        module="chainer.backends.cuda",
        reason="warns that cuDNN is not enabled and to reinstall CuPy, which does not help: CuPy 14 has none",
        versions="any, where CuPy is installed",
        needed=_cupy_is_installed,
        after=_cudnn_is_known_to_be_absent,
    ),
)
