"""Locks on files and directories, against processes and threads; that death frees them is in test_runfolder.py."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trainer.home import Home
from trainer.job import TrainingJob
from trainer.locks import is_locked, locked
from trainer.records import RunStatus
from trainer.runfolder import NEW_PREFIX, RunFolder
from trainer.runids import run_ids

ROOT = Path(__file__).resolve().parents[2]

HOLD = """
import sys
from pathlib import Path
from trainer.locks import locked

with locked(Path(sys.argv[1]), create=False):
    print("held", flush=True)
    sys.stdin.readline()
    Path(sys.argv[1] + ".done").touch()
"""


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_one_waits_for_the_other(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "file":
        path.touch()
    else:
        path.mkdir()
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdout.readline()
        assert is_locked(path)
        with pytest.raises(BlockingIOError), locked(path, blocking=False, create=False):
            pass
        holder.stdin.close()
        with locked(path, create=False):
            assert (tmp_path / "x.done").exists()
    assert not is_locked(path)


def test_threads_exclude_each_other(tmp_path: Path) -> None:
    def take() -> str:
        try:
            with locked(tmp_path / "lock", blocking=False):
                return "taken"
        except BlockingIOError:
            return "held"

    with ThreadPoolExecutor(1) as pool:
        with locked(tmp_path / "lock"):
            assert pool.submit(take).result() == "held"
        assert pool.submit(take).result() == "taken"


def test_whoever_looks_keeps_nobody_from_taking_it(tmp_path: Path) -> None:
    path, over = tmp_path / "lock", threading.Event()

    def look() -> bool:
        while not over.is_set():
            is_locked(path)
        return True

    with ThreadPoolExecutor(3) as pool:
        looking = [pool.submit(look) for _ in range(3)]
        try:
            for _ in range(2000):
                with locked(path, blocking=False):
                    assert is_locked(path)
        finally:
            over.set()
        assert all(each.result() for each in looking)


def test_what_is_not_there_is_not_locked_and_not_made(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "none")
    with pytest.raises(FileNotFoundError), locked(tmp_path / "none", create=False):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_error_inside_frees_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x"), locked(tmp_path / "lock"):
        raise ValueError("x")
    assert not is_locked(tmp_path / "lock")


NO_LOCKS = """
import errno, fcntl, os

def flock(descriptor, operation):
    raise OSError(errno.{name}, os.strerror(errno.{name}))

fcntl.flock = flock
"""


@pytest.mark.parametrize("name", ["ENOLCK", "EOPNOTSUPP"])
def test_a_file_system_without_locks_is_said_once_and_in_words(home: Home, tmp_path: Path, name: str) -> None:
    for status in (RunStatus.RUNNING, RunStatus.QUEUED):
        folder = RunFolder.create(home.runs, TrainingJob(script="x.py"), backend="local", snapshot="0" * 64)
        folder.update(status=status)
    (tmp_path / "usercustomize").mkdir()
    (tmp_path / "usercustomize" / "sitecustomize.py").write_text(NO_LOCKS.format(name=name))
    (home.project / "train.py").write_text("print('never')\n")
    paths = os.pathsep.join([str(tmp_path / "usercustomize"), str(ROOT)])

    def trainer(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "trainer", *words],
            cwd=home.project,
            env={**os.environ, "PYTHONPATH": paths, "TRAINER_HOME": str(home.path), "TRAINER_DATA_MIRRORS": "off"},
            capture_output=True,
            text=True,
            check=False,
        )

    listed = trainer("runs", "--json")
    assert listed.returncode == 0, listed.stderr
    assert {run["status"] for run in json.loads(listed.stdout)} == {"Queued", "Running"}
    assert listed.stderr.count("has no locks") == 1
    started = trainer("run", "--script", "train.py")
    assert started.returncode == 3
    assert "has no locks" in started.stderr
    assert "TRAINER_HOME" in started.stderr
    assert len(run_ids(home.runs)) == 2
    assert list(home.runs.glob(f"{NEW_PREFIX}*")) == []
