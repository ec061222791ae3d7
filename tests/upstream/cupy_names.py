"""Writes down every name that an installed CuPy offers, for the test that needs no GPU and no CuPy.

Regenerate with, for each version::

    uv venv -p 3.12 /tmp/cupy && VIRTUAL_ENV=/tmp/cupy uv pip install cupy-cuda12x==14.2.0 \
        nvidia-cublas-cu12 nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12
    LD_LIBRARY_PATH=$(echo /tmp/cupy/lib/python3.12/site-packages/nvidia/*/lib | tr ' ' :) \
        /tmp/cupy/bin/python tests/upstream/cupy_names.py > tests/upstream/cupy-14.2.0.txt

A line is a module and the names in it. No driver or card is needed: CuPy 13 and 14 import without.
``cupy.cuda.cublas`` needs cuBLAS, hence the other wheels.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from types import ModuleType

# Those that `import cupy` does not import and Chainer does, and the one private module that it uses.
MODULES = ("cupy", "cupy._util", "cupy.cudnn", "cupyx", "cupyx.scipy.linalg", "cupyx.scipy.special")

# Loaded by cupy.cuda when they are asked for, and so not in its dir().
LAZY = ("cublas", "cudnn", "nccl", "nvtx_enabled")


def collect() -> dict[str, list[str]]:
    """Names by module: the public ones, and :data:`MODULES`."""
    found: dict[str, list[str]] = {}
    for name in MODULES:
        try:
            _walk(name, importlib.import_module(name), found)
        except ImportError as error:
            sys.stderr.write(f"{name}: {error}\n")
    return found


def _walk(path: str, module: ModuleType, found: dict[str, list[str]]) -> None:
    if path in found:
        return
    names = [name for name in dir(module) if not name.startswith("_")]
    if path == "cupy.cuda":
        names += [name for name in LAZY if hasattr(module, name)]
    found[path] = sorted(names)
    for name in names:
        value = getattr(module, name)
        if not isinstance(value, ModuleType):
            continue
        if value.__name__ == f"{path}.{name}":
            _walk(f"{path}.{name}", value, found)
        elif path == "cupy.cuda" and value.__name__.startswith("cupy_backends."):  # as cupy.cuda.runtime
            found[f"{path}.{name}"] = [inner for inner in dir(value) if not inner.startswith("_")]


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for owner, names in sorted(collect().items()):
            sys.stdout.write(f"{owner}: {' '.join(names)}\n")
