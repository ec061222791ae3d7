"""What nearly every command begins with: the home, the configuration, a backend, a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainer import listing
from trainer.backend import Backend, backend_type, load_backend
from trainer.config import Config, load_config
from trainer.errors import TrainerError
from trainer.home import Home, find_home

if TYPE_CHECKING:
    from trainer.artifacts import ArtifactStore
    from trainer.handle import Run


def configured(flags: Mapping[str, Any]) -> tuple[Home, Config]:
    """Return the project's home and the configuration in force."""
    home = find_home()
    return home, load_config(home, flags)


def backend_of(home: Home, config: Config) -> Backend:
    """Return the backend that the configuration names, with its options."""
    return load_backend(config["backend"], home, config.options())


def store_of(flags: Mapping[str, Any]) -> ArtifactStore:
    """Return the model registry that the flags and the configuration name.

    Raises:
        RefusedError: The backend has none.
    """
    home, config = configured(flags)
    return backend_of(home, config).store()


def open_run(reference: str) -> Run:
    """Return the run that ``reference`` names, with the backend that it is on.

    Raises:
        NotFoundError: No run fits.
        UsageError: More than one fits.
    """
    return listing.open_run(find_home(), reference)


def is_study(reference: str) -> bool:
    """Whether a reference that names no run is part of a study's name."""
    try:
        return any(reference and reference in name for name in os.listdir(find_home().studies))  # noqa: PTH208
    except FileNotFoundError:
        return False


def local_only(name: str, home: Home) -> Backend:
    """Return a backend that can be asked at no cost, for lists.

    Raises:
        TrainerError: Its runs are elsewhere, and asking takes seconds and a network.
    """
    if backend_type(name).remote:
        raise TrainerError("it runs elsewhere; to refresh: trainer show RUN")
    return load_backend(name, home)
