"""A second machine that shares the folder of runs, with locks that are local to each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from backends.local_workdir import working_directory
from tests.backends.local_runs import SECONDS, SLEEP, gone, start, supervisor, until, worker
from tests.drills.another_host import possible, run_there
from tests.drills.drill import Drill, NotHereError
from trainer.home import Home
from trainer.records import RunStatus

_LOOKS = (("runs",), ("show", "latest"), ("logs", "latest"), ("models",), ("doctor", "--repair"))


def second_host(scratch: Path, scale: float) -> dict[str, int]:
    """Look at a living run from there, again and again; cancel it from there."""
    if not possible():
        raise NotHereError("this system lets nobody make namespaces")
    home = Home(scratch / "project" / ".trainer", scratch / "project")
    runs = looks = 0
    for number in range(max(1, round(10 * scale))):
        run = start(home, scratch / "job", SLEEP)
        until(lambda run=run: run.folder.read_log(), "the script's first word")  # type: ignore[misc]
        pids = [worker(run).pid, supervisor(run).pid]
        for words in (*_LOOKS, ("cancel", "latest")):
            place = scratch / f"{number}-{words[0]}"
            place.mkdir()
            done: subprocess.CompletedProcess[str] = run_there(
                [sys.executable, "-m", "trainer", *words], home.path, place
            )
            assert done.returncode == 0, done.stderr
            looks += 1
            if words[0] != "cancel":
                assert run.status() is RunStatus.RUNNING, words
                assert not any(gone(pid) for pid in pids), words
                assert working_directory(run.folder).is_dir(), words
        assert run.wait(SECONDS).status is RunStatus.CANCELED
        runs += 1
    return {"runs": runs, "commands on the second host": looks}


DRILLS = (
    Drill(
        "second-host",
        "A second machine that shares the folder reads a living run and can cancel it, and changes nothing of it.",
        second_host,
    ),
)
