"""Where runs and models are kept: ``.trainer/`` beside the project, or ``TRAINER_HOME``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import ConfigError

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
    def studies(self) -> Path:
        """The studies, one folder per study."""
        return self.path / "studies"

    @property
    def services(self) -> Path:
        """The services that were deployed, one folder per service in one per backend."""
        return self.path / "services"

    @property
    def models(self) -> Path:
        """The local model registry."""
        return self.path / "models"


def user_home() -> Path | None:
    """Return the user's home directory; None for a user id that has none, as in containers and cron jobs."""
    try:
        found = Path.home()
    except RuntimeError:
        return None
    return found if found.is_absolute() else None


def expanded(path: Path) -> Path:
    """Return a path with ``~`` and ``~name`` replaced by the directories that they stand for.

    Raises:
        ConfigError: That user has none.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path}: there is no home directory for {path.parts[0]}.", "Write the path out.") from error


def find_home(start: Path | None = None) -> Home:
    """Return the home of the project that ``start`` (by default the working directory) lies in."""
    start = (start or Path.cwd()).resolve()
    project = next(
        (folder for folder in (start, *start.parents) if any((folder / mark).exists() for mark in _MARKS)), start
    )
    override = os.environ.get(HOME_VARIABLE)
    return Home(expanded(Path(override)).resolve() if override else project / ".trainer", project)
