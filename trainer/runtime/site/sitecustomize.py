"""Give child interpreters the runtime's layers. Found through PYTHONPATH; see ``compat``.

Python imports a module of this name at start-up. Every Python process below a job does, most of
them without any use for Chainer, so nothing is imported until the module that needs a layer is.
"""
# pathlib would be most of this file's cost.
# ruff: noqa: ARG002, PTH100, PTH120

from __future__ import annotations

import importlib
import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))
# .../<root>/trainer/runtime/site
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(_HERE)))

# The first import of the key calls the function of the module.
_LAYERS = {
    "chainer": ("trainer.runtime.compat", "apply"),
    "azureml": ("trainer.runtime.reporting", "install"),
}


class _Trigger:
    """A finder that finds nothing: it only notices which modules are asked for."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        layer = _LAYERS.pop(fullname, None)
        if layer is not None:
            _activate(*layer)


def _activate(module: str, function: str) -> None:
    # A script may have imported a neighbour of this name before it imports Chainer.
    scripts_own = sys.modules.pop("trainer", None) if "trainer.runtime" not in sys.modules else None
    # The layer of the parent process, not another installation that this interpreter may have.
    sys.path.insert(0, _ROOT)
    try:
        layer = importlib.import_module(module)
        ownname = importlib.import_module("trainer.runtime.ownname")
    finally:
        sys.path.remove(_ROOT)
    getattr(layer, function)()
    if scripts_own is None:
        ownname.give_way()
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


sys.meta_path.insert(0, _Trigger())
_run_shadowed_sitecustomize()
