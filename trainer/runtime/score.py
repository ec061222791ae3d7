"""The entry script of a service with a score script of the user's: loads that when Chainer has been made to work.

Azure ML's inference server imports this file and calls its ``init()`` once and its ``run()`` per request; they are the
user's own functions, so decorators and signatures are what the server sees.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_JOB = Path(__file__).resolve().parents[2]
if str(_JOB) not in sys.path:
    sys.path.insert(0, str(_JOB))  # azmlinfsrv imports this file by its path alone


def _load() -> ModuleType:
    from trainer.runtime import compat
    from trainer.runtime.layout import SCORE_SCRIPT_FILE

    compat.apply()
    compat.apply_to_children()
    path = _JOB.parent / (_JOB / SCORE_SCRIPT_FILE).read_text("utf-8", "surrogateescape")
    for folder in (str(path.parent), str(_JOB.parent)):
        if folder not in sys.path:
            sys.path.append(folder)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} can't be imported: is it a Python file?")
    module = importlib.util.module_from_spec(spec)
    # Pickled classes and inspection find the script's names by it.
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


_script = _load()
init = _script.init
run = _script.run
