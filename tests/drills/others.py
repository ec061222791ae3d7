"""Clocks that jump, odd outputs, full disks and file systems without locks."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

from tests.drills.drill import Drill, pytest_cases
from trainer.home import Home
from trainer.job import TrainingJob
from trainer.listing import list_infos
from trainer.records import RunStatus
from trainer.runfolder import RunFolder

_YEAR = 365 * 86400.0
_ACTIVE = [status for status in RunStatus if not status.terminal]


def clocks(scratch: Path, _: float) -> dict[str, int]:
    """Runs whose processes are gone, with records of every status from every time."""
    now = time.time()
    times = (-62135596800.0, 0.0, now - _YEAR, now - 3600, now, now + 3600, now + _YEAR, 253402300799.0)
    home = Home(scratch / ".trainer", scratch)
    for status, then in itertools.product(_ACTIVE, times):
        folder = RunFolder.create(home.runs, TrainingJob(script="x.py"), backend="local", snapshot="0" * 64)
        folder.update(status=status, created=then, started=then)
    listing = list_infos(home)
    assert listing.problems == ()
    assert len(listing.infos) == len(_ACTIVE) * len(times)
    assert all(info.status.terminal for info in listing.infos)
    return {"records": len(listing.infos)}


def outputs(_: Path, __: float) -> dict[str, int]:
    return {"kinds": pytest_cases("tests/backends/test_local_outputs.py")}


def disks(_: Path, __: float) -> dict[str, int]:
    files = ("tests/backends/test_local.py", "tests/core/test_locks.py", "tests/artifacts/test_local_store.py")
    return {"kinds": pytest_cases(*files, "-k", "disk or without_locks")}


DRILLS = (
    Drill("clocks", "Whatever the clock said when a record was written, a run whose processes are gone ends.", clocks),
    Drill(
        "odd-outputs",
        "Whatever a script leaves as its outputs, the run ends truthfully and keeps what can be kept.",
        outputs,
    ),
    Drill("disks", "A full disk and a file system without locks are told in words, and no record is lost.", disks),
)
