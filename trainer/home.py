"""Where runs and models are kept: ``.trainer/`` beside the project, or ``TRAINER_HOME``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

HOME_VARIABLE = "TRAINER_HOME"
# What marks the top of a project, nearest first.
_MARKS = (".trainer", "pyproject.toml", ".git")


@dataclass(frozen=True)
class Home:
    """The directory that holds everything trainer keeps for a project.

    Attributes:
        path: ``.trainer/`` itself; it may not exist yet.
        project: The project's top directory.
    """

    path: Path
    project: Path

    @property
    def runs(self) -> Path:
        """The runs, one folder per run."""
        return self.path / "runs"

    @property
    def store(self) -> Path:
        """Large files of snapshots, each stored once; see :mod:`trainer.contentstore`."""
        return self.path / "store"

    @property
    def models(self) -> Path:
        """The local model registry."""
        return self.path / "models"


def find_home(start: Path | None = None) -> Home:
    """Return the home of the project that ``start`` (by default the working directory) lies in."""
    start = (start or Path.cwd()).resolve()
    project = next(
        (folder for folder in (start, *start.parents) if any((folder / mark).exists() for mark in _MARKS)), start
    )
    override = os.environ.get(HOME_VARIABLE)
    return Home(Path(override).expanduser().resolve() if override else project / ".trainer", project)
