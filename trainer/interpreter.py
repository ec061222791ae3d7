"""Starting Python processes that run this package's own modules."""

from __future__ import annotations

import sys
from pathlib import Path

import trainer

# What holds the trainer package, and beside it the backends, the script and the command's own module.
TOP = Path(trainer.__file__).resolve().parents[1]


def own_module(name: str) -> list[str]:
    """The command line, to be followed by arguments, that runs one of this distribution's modules.

    A module of the same name in the working directory or on PYTHONPATH doesn't take its place.
    """
    # -P: Python would put the file's folder in front of the standard library.
    return [sys.executable, "-P", str(TOP / "chainer_trainer.py"), "-m", name]
