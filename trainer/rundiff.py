"""What two runs have in common and what not: parameters, environment, files, metrics."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from trainer import recordfile
from trainer.errors import DamagedRecordError
from trainer.history import RunRow
from trainer.runfolder import RunFolder
from trainer.runtime.layout import ENVIRONMENT_FILE, JOB_DIR, NOT_KEPT, RENAMED_OUTPUTS

_ENVIRONMENT = msgspec.json.Decoder(dict[str, Any])
# What a node says in the same file of the outputs.
_OF_THE_OUTPUTS = (NOT_KEPT, RENAMED_OUTPUTS)


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not the same in two runs; None where a run does not have it."""

    name: str
    a: str | float | None
    b: str | float | None


class RunDiff(msgspec.Struct, frozen=True, kw_only=True):
    """Two runs compared. What is the same in both is not listed.

    Attributes:
        a: One run's id.
        b: The other's.
        job: Script, data set, backend, experiment, status.
        parameters: Options of the command line.
        environment: Versions and device, where both scripts ran.
        files: Files that travelled, with the beginning of their SHA-256; the runtime's own count as one.
        metrics: Last values; ``best:NAME`` for the best ones.
    """

    a: str
    b: str
    job: tuple[Difference, ...] = ()
    parameters: tuple[Difference, ...] = ()
    environment: tuple[Difference, ...] = ()
    files: tuple[Difference, ...] = ()
    metrics: tuple[Difference, ...] = ()


def diff_runs(a: RunFolder, b: RunFolder, row_a: RunRow, row_b: RunRow) -> RunDiff:
    """Compare two runs.

    Args:
        a: One run.
        b: The other.
        row_a: What :func:`trainer.history.read_row` says of the first.
        row_b: And of the second.
    """
    same_files = row_a.info.snapshot == row_b.info.snapshot
    return RunDiff(
        a=a.run_id,
        b=b.run_id,
        job=_different(_job(row_a), _job(row_b)),
        parameters=_different(row_a.parameters, row_b.parameters),
        environment=_different(_environment(a), _environment(b)),
        files=() if same_files else _different(_files(a.snapshot), _files(b.snapshot)),
        metrics=_different(_metrics(row_a), _metrics(row_b)),
    )


def _different(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Difference, ...]:
    names = [*a, *(name for name in b if name not in a)]
    return tuple(Difference(name=name, a=a.get(name), b=b.get(name)) for name in names if a.get(name) != b.get(name))


def _job(row: RunRow) -> dict[str, Any]:
    info = row.info
    return {
        "script": row.script,
        "dataset": info.dataset,
        "backend": info.backend,
        "experiment": info.experiment,
        "status": str(info.status),
        "failure": info.failure.message if info.failure else None,
    }


def _metrics(row: RunRow) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, summary in row.metrics.items():
        found[name] = summary.last
        if summary.count > 1:
            found[f"best:{name}"] = summary.best
    return found


def _environment(folder: RunFolder) -> dict[str, str]:
    try:
        read = recordfile.read(folder.outputs / ENVIRONMENT_FILE, _ENVIRONMENT)
    except (OSError, DamagedRecordError):
        return {}
    return {
        name: value if isinstance(value, str) else str(value)
        for name, value in read.items()
        if name not in _OF_THE_OUTPUTS and value is not None
    }


def _files(snapshot: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    own = hashlib.sha256()
    for directory, folders, names in os.walk(snapshot):
        folders.sort()
        for name in sorted(names):
            path = Path(directory, name)
            try:
                with path.open("rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
            except OSError:
                digest = "unreadable"
            relative = path.relative_to(snapshot).as_posix()
            if relative.startswith(f"{JOB_DIR}/trainer/"):
                own.update(f"{relative} {digest}\n".encode())
            else:
                found[relative] = digest[:12]
    return found | {f"{JOB_DIR}/trainer/": own.hexdigest()[:12]}
