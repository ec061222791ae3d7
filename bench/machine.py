"""The machine and the versions that a measurement was made with."""

from __future__ import annotations

import importlib
import os
import platform
from pathlib import Path

from trainer.runtime.versions import installed_version


def describe() -> str:
    """One paragraph of Markdown."""
    cores = len(os.sched_getaffinity(0))
    return (
        f"{_processor()}, {cores} cores, {_memory():.0f} GiB; {platform.system()} {platform.release().split('-')[0]}; "
        f"Python {platform.python_version()}, NumPy {_version('numpy')} ({_blas()}), Chainer {_version('chainer')}, "
        f"PyTorch {_version('torch')}."
    )


def load() -> str:
    """The load average over 1, 5 and 15 minutes."""
    return ", ".join(f"{value:.1f}" for value in os.getloadavg())


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _version(name: str) -> str:
    return installed_version(name) or "not installed"


def _blas() -> str:
    import numpy  # noqa: F401  # loads the library that is asked for

    threadpoolctl = importlib.import_module("threadpoolctl")
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    return f"{pools[0]['internal_api']} {pools[0]['version']}, {pools[0]['architecture']}" if pools else "BLAS unknown"
