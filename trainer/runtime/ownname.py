"""Let a script keep a module of its own that is called ``trainer``.

It is an obvious name for a neighbour of a training script, and scripts need not know of this one.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from pathlib import Path


def give_way() -> None:
    """Make ``import trainer`` find the script's own module of that name, if ``sys.path`` has one.

    The modules of the runtime stay imported as ``trainer.runtime...``, and import each other by
    those names: Python looks a submodule up before it looks for the parent.
    """
    ours = sys.modules.get("trainer")
    spec = PathFinder.find_spec("trainer")
    if ours is None or spec is None:
        return
    is_another_copy = any((Path(folder) / "runtime").is_dir() for folder in spec.submodule_search_locations or ())
    if spec.origin != ours.__file__ and not is_another_copy:
        del sys.modules["trainer"]
