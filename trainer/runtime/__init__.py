"""What travels with a job to the machine that runs it.

::

    import trainer.runtime.compat.auto  # before Chainer
    from trainer import runtime as rt

gives a training script the names in ``__all__``. Modules here import the standard library, NumPy, Chainer
and, guarded, CuPy; nothing else of ``trainer``. Importing this package imports none of them: a name is looked
up when it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.runtime.datasets import load as load_dataset
    from trainer.runtime.faults import RuntimeFault, main
    from trainer.runtime.flags import add_flags
    from trainer.runtime.networks import as_inputs, load_network
    from trainer.runtime.reporting import report
    from trainer.runtime.training.checkpoint import Checkpoint, resume, save_npz
    from trainer.runtime.training.compiled import compiled
    from trainer.runtime.training.extensions import ClassifierEvaluator, Metrics
    from trainer.runtime.training.iterator import ArrayIterator, unit_range
    from trainer.runtime.training.machine import use_device
    from trainer.runtime.training.ranks import join_ranks

__all__ = [
    "ArrayIterator",
    "Checkpoint",
    "ClassifierEvaluator",
    "Metrics",
    "RuntimeFault",
    "add_flags",
    "as_inputs",
    "compiled",
    "join_ranks",
    "load_dataset",
    "load_network",
    "main",
    "report",
    "resume",
    "save_npz",
    "unit_range",
    "use_device",
]

# Name here: module, and its name there.
_HOMES = {
    "ArrayIterator": ("training.iterator", "ArrayIterator"),
    "Checkpoint": ("training.checkpoint", "Checkpoint"),
    "ClassifierEvaluator": ("training.extensions", "ClassifierEvaluator"),
    "Metrics": ("training.extensions", "Metrics"),
    "RuntimeFault": ("faults", "RuntimeFault"),
    "add_flags": ("flags", "add_flags"),
    "as_inputs": ("networks", "as_inputs"),
    "compiled": ("training.compiled", "compiled"),
    "join_ranks": ("training.ranks", "join_ranks"),
    "load_dataset": ("datasets", "load"),
    "load_network": ("networks", "load_network"),
    "main": ("faults", "main"),
    "report": ("reporting", "report"),
    "resume": ("training.checkpoint", "resume"),
    "save_npz": ("training.checkpoint", "save_npz"),
    "unit_range": ("training.iterator", "unit_range"),
    "use_device": ("training.machine", "use_device"),
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, there = _HOMES[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), there)
