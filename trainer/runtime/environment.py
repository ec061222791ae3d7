"""``outputs/environment.json``: with what a run was made. Model versions record it."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from trainer.runtime.faults import RuntimeFault
from trainer.runtime.layout import BLAS_VARIABLES, CUPY_PACKAGES, ENVIRONMENT_FILE
from trainer.runtime.recorder import replace_text

_added: dict[str, object] = {}
_folder: Path | None = None


def facts() -> dict[str, object]:
    """What is known without importing anything of it.

    Returns:
        ``python``, ``numpy``, ``chainer``, ``cupy`` (versions or None), ``platform``, ``device`` (None until the
        script says), ``blas_threads`` (as the environment sets it, or None), and what was added.
    """
    threads = next((os.environ[name] for name in BLAS_VARIABLES if os.environ.get(name, "").isdecimal()), None)
    known: dict[str, object] = {
        "python": platform.python_version(),
        "numpy": _version("numpy"),
        "chainer": _version("chainer"),
        "cupy": next(filter(None, map(_version, CUPY_PACKAGES)), None),
        "platform": f"{sys.platform}-{platform.machine()}",
        "device": None,
        "blas_threads": int(threads) if threads else None,
    }
    return known | _added


def begin(folder: Path) -> None:
    """Write the file into ``folder``, and again whenever facts are added.

    Raises:
        RuntimeFault: The folder can't be written.
    """
    global _folder
    _folder = folder
    write()


def add(more: dict[str, object]) -> None:
    """Add facts; before :func:`begin` they are only remembered.

    Raises:
        RuntimeFault: The folder can't be written.
    """
    _added.update(more)
    write()


def write() -> None:
    """Write the file if there is a folder for it.

    Raises:
        RuntimeFault: The folder can't be written.
    """
    if _folder is None:
        return
    try:
        _folder.mkdir(parents=True, exist_ok=True)
        replace_text(_folder / ENVIRONMENT_FILE, json.dumps(facts(), indent=2, default=str))
    except OSError as error:
        raise RuntimeFault(
            f"Can't write {_folder / ENVIRONMENT_FILE}: {error.strerror}.",
            "Free some space, or make the folder writable.",
        ) from error


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
