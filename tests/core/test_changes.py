"""Waiting for a file to be replaced. How long it took is not asked: only what it was that ended the waiting."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from trainer.changes import Changes
from trainer.runtime.atomic import write_bytes

LONG = 600.0


def test_a_replacement_ends_the_waiting(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    with Changes(tmp_path, "record.json") as changes:
        thread = threading.Thread(target=write_bytes, args=(tmp_path / "record.json", b"{}"))
        thread.start()
        assert changes.wait(LONG)
        thread.join()
        assert not changes.wait(0.0)


def test_one_that_came_before_is_not_missed(tmp_path: Path) -> None:
    with Changes(tmp_path, "record.json") as changes:
        for name in ("record.json", "a" * 200, "record.json"):
            write_bytes(tmp_path / name, b"{}")
        assert changes.wait(LONG)
        assert not changes.wait(0.0)


def test_other_files_are_not_it(tmp_path: Path) -> None:
    with Changes(tmp_path, "record.json") as changes:
        for name in ("progress.json", "record.json.old", "recor"):
            write_bytes(tmp_path / name, b"{}")
        (tmp_path / "record.json").touch()  # not by a rename
        assert not changes.wait(0.2)


@pytest.mark.parametrize("seconds", [0.0, 0.05, -1.0])
def test_a_folder_that_is_gone_is_waited_for_by_the_clock(tmp_path: Path, seconds: float) -> None:
    with Changes(tmp_path / "gone", "record.json") as changes:
        assert not changes.wait(seconds)


def test_nothing_is_told_after_the_end(tmp_path: Path) -> None:
    changes = Changes(tmp_path, "record.json")
    changes.close()
    changes.close()
    write_bytes(tmp_path / "record.json", b"{}")
    assert not changes.wait(0.0)
