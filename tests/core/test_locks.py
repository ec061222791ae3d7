"""Locks on files and directories, against processes and threads; that death frees them is in test_runfolder.py."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trainer.locks import is_locked, locked

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


def test_what_is_not_there_is_not_locked_and_not_made(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "none")
    with pytest.raises(FileNotFoundError), locked(tmp_path / "none", create=False):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_error_inside_frees_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x"), locked(tmp_path / "lock"):
        raise ValueError("x")
    assert not is_locked(tmp_path / "lock")
