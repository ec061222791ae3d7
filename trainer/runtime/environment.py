"""``outputs/environment.json``: the versions and the device that a run used. Model versions record them."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path

from trainer.runtime.atomic import write_bytes
from trainer.runtime.faults import RuntimeFault
from trainer.runtime.layout import BLAS_VARIABLES, CUPY_PACKAGES, ENVIRONMENT_FILE
from trainer.runtime.versions import installed_versions

_added: dict[str, object] = {}
_folder: Path | None = None
# Looked up once: it takes as long as ten steps of training, and a worker that forks trials does it for all of them.
_versions: dict[str, str | None] | None = None


def facts() -> dict[str, object]:
    """Return the facts known so far; NumPy, Chainer and CuPy are looked up, not imported.

    Returns:
        ``python``, ``numpy``, ``chainer``, ``cupy`` (versions or None), ``platform``, ``device`` (None until the
        script says), ``blas_threads`` (as the environment sets it, or None), and what was added.
    """
    global _versions
    if _versions is None:
        found = installed_versions(["numpy", "chainer", *CUPY_PACKAGES])
        _versions = {
            "numpy": found.get("numpy"),
            "chainer": found.get("chainer"),
            "cupy": next((found[name] for name in CUPY_PACKAGES if name in found), None),
        }
    threads = next((os.environ[name] for name in BLAS_VARIABLES if os.environ.get(name, "").isdecimal()), None)
    known: dict[str, object] = {
        "python": platform.python_version(),
        **_versions,
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
        text = json.dumps(facts(), indent=2, default=str) + "\n"
        write_bytes(_folder / ENVIRONMENT_FILE, text.encode(), durable=False)
    except OSError as error:
        raise RuntimeFault(
            f"Can't write {_folder / ENVIRONMENT_FILE}: {error.strerror}.",
            "Free some space, or make the folder writable.",
        ) from error
