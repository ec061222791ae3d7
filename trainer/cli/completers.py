"""What the shell can complete: run ids, models, data sets, backends.

The functions run only when a shell asks, and each imports what it needs: every command's parser imports this module.
They read names of directories, never a record.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.home import find_home

_MOST_RUNS = 200


def run_ids(**_: Any) -> list[str]:
    """Return ``latest`` and the ids of the newest runs."""
    from trainer.runids import run_ids as known

    return ["latest", *known(find_home().runs)[:_MOST_RUNS]]


def model_names(**_: Any) -> list[str]:
    """Return the names in the local registry."""
    return sorted(path.name for path in _directories(find_home().models))


def model_references(prefix: str = "", **_: Any) -> list[str]:
    """Return the names in the local registry or, after a colon, one name's versions."""
    name, colon, _version = prefix.partition(":")
    if not colon:
        return ["latest", *model_names()]
    versions = (path.name for path in _directories(find_home().models / name) if path.name.isdigit())
    return [f"{name}:{version}" for version in sorted(versions, key=int)]


def model_versions(prefix: str = "", **_: Any) -> list[str]:
    """Return every version in the local registry as ``name:version``, those of one name after a colon."""
    names = [prefix.partition(":")[0]] if ":" in prefix else [n for n in model_names() if n.startswith(prefix)]
    return [reference for name in names for reference in model_references(f"{name}:")]


def deletable(prefix: str = "", **_: Any) -> list[str]:
    """Return what can be deleted: model versions, runs and studies."""
    studies = sorted((path.name for path in _directories(find_home().studies)), reverse=True)
    return [*model_versions(prefix), *run_ids()[1:], *studies]


def model_files(prefix: str = "", **_: Any) -> list[str]:
    """Return registered models and npz files."""
    from argcomplete.completers import FilesCompleter

    return [*model_references(prefix), *FilesCompleter(("npz",))(prefix)]


def service_names(**_: Any) -> list[str]:
    """Return the names of the services that were deployed from here."""
    return sorted(
        {path.name.partition(".")[0] for top in _directories(find_home().services) for path in _directories(top)}
    )


def known_datasets(**_: Any) -> list[str]:
    """Return the names of the data sets in the catalogue."""
    from trainer.data.catalogue import CATALOGUE

    return list(CATALOGUE)


def datasets(prefix: str = "", **_: Any) -> list[str]:
    """Return what ``--dataset`` takes."""
    from argcomplete.completers import DirectoriesCompleter

    return ["auto", *known_datasets(), "none", *DirectoriesCompleter()(prefix)]


def backends(**_: Any) -> list[str]:
    """Return the names of the installed backends."""
    from trainer.backend import backend_names

    return backend_names()


def _directories(path: Path) -> list[Path]:
    try:
        return [entry for entry in path.iterdir() if not entry.name.startswith(".") and entry.is_dir()]
    except OSError:
        return []
