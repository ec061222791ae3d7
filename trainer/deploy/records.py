"""The records of services on this machine: ``.trainer/services/<backend>/<folder>/service.json``.

Each backend has a folder of its own there, and names what is in it; a service's folder holds its record, and whatever
else the backend keeps of it. A record is written atomically and read as something that anyone may have written.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from trainer import recordfile
from trainer.deploy.service import ServiceInfo
from trainer.errors import DamagedRecordError
from trainer.home import Home
from trainer.runtime.atomic import make_directory, write_bytes

RECORD_FILE = "service.json"
_RECORD = msgspec.json.Decoder(ServiceInfo)


def read(folder: Path) -> ServiceInfo | None:
    """Return the record in a service's folder; None if there is none.

    Raises:
        DamagedRecordError: It can't be read.
    """
    try:
        return recordfile.read(folder / RECORD_FILE, _RECORD)
    except FileNotFoundError:
        return None


def write(folder: Path, service: ServiceInfo) -> None:
    """Write a service's record, and make its folder.

    Raises:
        OSError: It can't be written.
    """
    make_directory(folder)
    write_bytes(folder / RECORD_FILE, msgspec.json.format(msgspec.json.encode(service), indent=2) + b"\n")


def known(home: Home, backend: str | None = None) -> tuple[list[ServiceInfo], list[DamagedRecordError]]:
    """Return the records of all services, or of one backend's, by name, and what could not be read."""
    found: list[ServiceInfo] = []
    damaged: list[DamagedRecordError] = []
    for folder in folders(home, backend):
        try:
            service = read(folder)
        except DamagedRecordError as error:
            damaged.append(error)
            continue
        if service is not None and service.backend == folder.parent.name:
            found.append(service)
    return sorted(found, key=lambda service: (service.name, service.backend, service.created)), damaged


def folders(home: Home, backend: str | None = None) -> Iterator[Path]:
    """Return the folders of services, of one backend or of all."""
    tops = [home.services / backend] if backend is not None else _directories(home.services)
    return (folder for top in tops for folder in _directories(top))


def _directories(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if not entry.name.startswith(".") and entry.is_dir())
    except OSError:
        return []
