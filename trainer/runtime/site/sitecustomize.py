"""Give child interpreters the runtime's layers. Found through PYTHONPATH; see :mod:`trainer.runtime.compat`.

Python imports a module of this name at start-up. Every Python process below a job does, most of
them without any use for Chainer, so nothing is imported until the module that needs a layer is.
"""
# pathlib would be most of this file's cost.
# ruff: noqa: PTH100, PTH112, PTH120

from __future__ import annotations

import importlib
import os
import sys

TYPE_CHECKING = False  # typing need not be loaded for it
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_HERE = os.path.dirname(os.path.abspath(__file__))
# .../<root>/trainer/runtime/site
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(_HERE)))

# Python puts the folder of a script in front only after this file has run.
_PATH = [entry for entry in sys.path if os.path.abspath(entry) != _HERE]
_LOADED = frozenset(sys.modules)

# The first import of the key calls the function of the module.
_LAYERS = {
    "chainer": ("trainer.runtime.compat", "apply"),
    "numpy": ("trainer.runtime.compat", "apply"),
    "azureml": ("trainer.runtime.reporting", "install"),
}


class _Trigger:
    """A finder that finds nothing: it only notices which modules are asked for."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        layer = _LAYERS.pop(fullname, None)
        if layer is None:
            return None
        _activate(*layer)
        # The layer's own finder is in front of this one now: too late for this import, if it went on from here.
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                return spec
        return None


def _activate(module: str, function: str) -> None:
    # A script may have imported a neighbour of this name before it imports Chainer.
    scripts_own = sys.modules.pop("trainer", None) if "trainer.runtime" not in sys.modules else None
    # The layer of the parent process, not another installation that this interpreter may have.
    saved = sys.path[:]
    sys.path[:] = [_ROOT, *_PATH]
    try:
        shadowing = importlib.import_module("trainer.runtime.shadowing")
        # The folder of the script: what Python has put in front since.
        folder = os.path.abspath(saved[0]) if saved and saved[0] not in _PATH else _HERE
        with shadowing.standard_library_first(folder, [_ROOT, *_PATH], _LOADED):
            layer = importlib.import_module(module)
            launch = importlib.import_module("trainer.runtime.launch")
    finally:
        sys.path[:] = saved
    getattr(layer, function)()
    if scripts_own is None:
        launch.give_way()
    else:
        sys.modules["trainer"] = scripts_own


def _run_shadowed_sitecustomize() -> None:
    # This file hides the sitecustomize that the interpreter would have found without it.
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _HERE]
    own = sys.modules.pop(__name__, None)
    try:
        importlib.import_module(__name__)
    except ModuleNotFoundError as error:
        if error.name != __name__:
            raise
    finally:
        # site.py expects the name to be there when the import is over.
        if own is not None:
            sys.modules.setdefault(__name__, own)


def _is_for_another() -> bool:
    """Whether the process is a job that travels with a runtime of its own, which must be the one that it imports."""
    # trainer.runtime.layout.JOB_DIR; importing it would decide which runtime that is.
    own = "_trainer_job"
    return os.path.isdir(own) and not _HERE.startswith(os.path.abspath(own) + os.sep)


if "AZUREML_RUN_ID" in os.environ and "TRAINER_REPORTING_MAIN" not in os.environ:
    # A run of Azure ML that our launcher has not started: what it reports is between its script and the SDK.
    del _LAYERS["azureml"]
if not _is_for_another() and not any(type(finder).__name__ == _Trigger.__name__ for finder in sys.meta_path):
    sys.meta_path.insert(0, _Trigger())
_run_shadowed_sitecustomize()
