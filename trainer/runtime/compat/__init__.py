"""Chainer 7.8.1 on current Python, NumPy and CuPy.

One line before ``import chainer``::

    import trainer.runtime.compat.auto

or, without the side effect on import, ``trainer.runtime.compat.apply()``. Scripts started through
``trainer run`` or ``python -m trainer.runtime.launch`` need neither.

Each change is a :class:`~trainer.runtime.compat.hook.Patch` in :data:`PATCHES`: the module it
changes, the reason, and the versions that need it. Where the installed versions don't, nothing is
changed. ``docs/compat.md`` lists them.
"""

from __future__ import annotations

import os
from pathlib import Path

from trainer.runtime.compat import hook
from trainer.runtime.compat.caffe import PATCHES as _CAFFE
from trainer.runtime.compat.datasets import PATCHES as _DATASETS
from trainer.runtime.compat.functions import PATCHES as _FUNCTIONS
from trainer.runtime.compat.hook import Patch
from trainer.runtime.compat.importing import PATCHES as _IMPORTING
from trainer.runtime.compat.iterators import PATCHES as _ITERATORS
from trainer.runtime.compat.onnx_export import PATCHES as _ONNX_EXPORT
from trainer.runtime.compat.removed_names import PATCHES as _REMOVED_NAMES
from trainer.runtime.compat.serializers import PATCHES as _SERIALIZERS
from trainer.runtime.compat.testing import PATCHES as _TESTING

__all__ = ["PATCHES", "SITE", "Patch", "apply", "apply_to_children"]

PATCHES: tuple[Patch, ...] = (
    *(*_IMPORTING, *_FUNCTIONS, *_ITERATORS, *_SERIALIZERS, *_DATASETS, *_TESTING),
    *(*_CAFFE, *_REMOVED_NAMES, *_ONNX_EXPORT),
)

# The directory that holds the sitecustomize.py which applies the layer in child interpreters.
SITE = Path(__file__).resolve().parent.parent / "site"


def apply() -> None:
    """Make ``import chainer`` work in this process. Safe to call again.

    Imports neither Chainer nor NumPy: the patches land when Chainer's modules are imported, or at
    once where they already are.
    """
    hook.install(PATCHES)


def apply_to_children() -> None:
    """Make ``import chainer`` work in the Python processes that this one starts.

    Forked children inherit the layer. Those that start a fresh interpreter (the spawn and
    forkserver methods of ``multiprocessing``, ``subprocess``, ``mpiexec``) get it through
    ``PYTHONPATH``, the one way that needs nothing installed on the machine.
    """
    entries = [e for e in os.environ.get("PYTHONPATH", "").split(os.pathsep) if e]
    if str(SITE) not in entries:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(SITE), *entries])
