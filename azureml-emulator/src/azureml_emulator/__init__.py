"""A loopback Azure ML service for the unmodified SDKs v1 and v2.

    from azureml_emulator import Emulator

    with Emulator() as emulator:
        subprocess.run([sys.executable, "train_on_azure.py"], env=os.environ | emulator.env())

See docs/emulator.md for what it covers, and for what it does not prove.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from azureml_emulator.background import Emulator, start_in_background
    from azureml_emulator.cli import serve
    from azureml_emulator.endpoint import Endpoint, RequestInfo, find
    from azureml_emulator.errors import EmulatorError
    from azureml_emulator.faults import FaultAction, FaultRule, Faults
    from azureml_emulator.settings import Settings

__all__ = [
    "Emulator",
    "EmulatorError",
    "Endpoint",
    "FaultAction",
    "FaultRule",
    "Faults",
    "RequestInfo",
    "Settings",
    "find",
    "serve",
    "start_in_background",
]

_MODULES = {
    "Emulator": "background",
    "start_in_background": "background",
    "serve": "cli",
    "Endpoint": "endpoint",
    "RequestInfo": "endpoint",
    "find": "endpoint",
    "EmulatorError": "errors",
    "FaultAction": "faults",
    "FaultRule": "faults",
    "Faults": "faults",
    "Settings": "settings",
}


def __getattr__(name: str) -> object:
    # pytest imports this package at every start, for its plug-in, and also where the extra is not installed.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
