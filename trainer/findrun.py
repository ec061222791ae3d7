"""Finds the run that people mean: by its id, a part of it, a name, or as the latest."""

from __future__ import annotations

from pathlib import Path

import msgspec

from trainer import recordfile
from trainer.errors import DamagedRecordError, NotFoundError, UsageError
from trainer.runfolder import USER_FILE, RunFolder, no_such_run
from trainer.runids import run_ids


class _Named(msgspec.Struct):
    name: str | None = None


_NAMED = msgspec.json.Decoder(_Named)


def run_named(runs: Path, name: str, known: list[str]) -> list[str]:
    """The ids, among those ``known``, of the runs that people have given this name."""
    found = []
    for run_id in known:
        try:
            user = recordfile.read(runs / run_id / USER_FILE, _NAMED)
        except (OSError, DamagedRecordError):
            continue
        if user.name == name:
            found.append(run_id)
    return found


def find_run(runs: Path, reference: str) -> RunFolder:
    """The run that ``reference`` names.

    Args:
        runs: The directory of all runs.
        reference: A run id, an unambiguous beginning or ending of one, a name given by ``trainer runs rename``, or
            ``latest``.

    Raises:
        NotFoundError: No run fits.
        UsageError: More than one fits.
    """
    known = run_ids(runs)
    if reference == "latest":
        if not known:
            raise NotFoundError("There are no runs here.", "Start one: trainer run")
        return RunFolder(runs / known[0])
    if reference in known:
        return RunFolder(runs / reference)
    fitting = [run_id for run_id in known if reference and (run_id.startswith(reference) or run_id.endswith(reference))]
    if not fitting and reference:
        fitting = run_named(runs, reference, known)
    if not fitting:
        raise no_such_run(reference)
    if len(fitting) > 1:
        raise UsageError(f"{reference!r} fits {len(fitting)} runs: {', '.join(fitting[:3])}.", "Give more of the id.")
    return RunFolder(runs / fitting[0])
