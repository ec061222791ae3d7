"""Kill a supervisor between any two file operations of a run's end, kill whoever takes over as well, and look.

Usage: kill_finish.py SCRATCH. Prints how many were killed.
"""

import shutil
import sys
from pathlib import Path

import numpy as np

from backends import local_supervisor as supervisor
from backends.local import LocalBackend
from backends.local_workdir import make_workdir, working_directory
from tests.artifacts.kill_everywhere import survives
from trainer.finish import Outcome
from trainer.home import Home
from trainer.job import TrainingJob
from trainer.records import RunStatus
from trainer.runfolder import RunFolder

DONE = Outcome(RunStatus.COMPLETED)


def ended_job(home: Home) -> RunFolder:
    """A run whose script has just ended well."""
    folder = RunFolder.create(home.runs, TrainingJob(script="x.py"), backend="local", snapshot="0" * 64)
    made = make_workdir(folder) / "outputs"
    np.savez(made / "model.npz", w=np.arange(3))
    (made / "more").mkdir()
    (made / "more" / "x").touch()
    folder.update(status=RunStatus.RUNNING)
    return folder


def check(home: Home, folder: RunFolder) -> None:
    """The run has ended in one way or the other, and nothing is lost, doubled or left over."""
    backend = LocalBackend(home, {})
    info = backend.refresh(folder)
    assert info.status in (RunStatus.COMPLETED, RunStatus.FAILED), info
    assert (info.model is not None) == (info.status is RunStatus.COMPLETED), info
    assert len(backend.store().versions()) == (1 if info.model else 0), info
    assert not folder.outputs.is_symlink()
    kept = sorted(path.relative_to(folder.outputs).as_posix() for path in folder.outputs.rglob("*"))
    assert kept == ["model.npz", "more", "more/x"], kept
    assert not working_directory(folder).exists()
    assert backend.refresh(folder) == info


def main(scratch: Path) -> int:
    """Kill at the first operation, the second, ..., until one lives to the end."""
    count = 1
    while True:
        home = Home(scratch / "home", scratch)
        folder = ended_job(home)
        store = LocalBackend(home, {}).store()
        through = survives(lambda: supervisor._finish(folder, store, DONE), count)  # noqa: B023  # called at once
        if not through:
            survives(lambda: supervisor.take_over(folder, store), 1 + count // 2)  # noqa: B023
        check(home, folder)
        shutil.rmtree(home.path)
        if through:
            return count - 1
        count += 1


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
