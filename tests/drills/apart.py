"""Finds the drills, and runs one in a process of its own."""

from __future__ import annotations

import importlib
import multiprocessing
import traceback
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.drills.drill import Drill, NotHereError


def drills() -> dict[str, Drill]:
    """Every drill by its name, in the order of their modules' names."""
    modules = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("__"))
    loaded = [importlib.import_module(f"tests.drills.{name}") for name in modules]
    return {drill.name: drill for module in loaded for drill in getattr(module, "DRILLS", ())}


def run_apart(name: str, scratch: str, scale: float) -> dict[str, int]:
    """Run a drill; a process works with one service, and a drill starts its own emulator.

    Raises:
        AssertionError: A promise is broken.
        NotHereError: This system can't run it.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_run, name, scratch, scale).result()


def _run(name: str, scratch: str, scale: float) -> dict[str, int]:
    try:
        return drills()[name].run(Path(scratch), scale)
    except NotHereError:
        raise
    except Exception:  # not each kind of error can be sent to another process
        raise AssertionError(traceback.format_exc()) from None
