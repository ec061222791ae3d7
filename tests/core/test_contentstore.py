"""Large files of snapshots are stored once, and a job can't change them."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Project
from trainer import contentstore
from trainer.cleanup import own_size
from trainer.snapshot import build_snapshot

DATA = os.urandom(2 << 20)
NAME = hashlib.sha256(DATA).hexdigest()
WRITER = """
import os
with open("big.bin", "r+b") as stream:
    stream.write(b"changed")
os.makedirs("outputs", exist_ok=True)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "script.py").write_text(WRITER)
    (folder / "big.bin").write_bytes(DATA)
    return folder


def staged(source: Path, target: Path, store: Path) -> Path:
    build_snapshot(source / "script.py").stage(target, store)
    return target / "big.bin"


def test_two_snapshots_share_a_large_file(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first, second = (staged(source, tmp_path / name, store) for name in "ab")
    assert first.stat().st_ino == second.stat().st_ino == (store / NAME).stat().st_ino
    assert not first.stat().st_mode & 0o222
    assert [path.name for path in store.iterdir()] == [NAME]
    assert (tmp_path / "a/script.py").stat().st_nlink == 1
    assert own_size(tmp_path / "a") < len(DATA)


def test_a_stored_file_that_was_changed_is_not_linked_again(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = staged(source, tmp_path / "a", store)
    first.chmod(0o644)
    with first.open("r+b") as stream:
        stream.write(b"spoilt")
    assert staged(source, tmp_path / "b", store).read_bytes() == DATA
    assert staged(source, tmp_path / "c", store).stat().st_ino == (store / NAME).stat().st_ino


def test_without_links_files_are_copied(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert staged(source, tmp_path / "a", tmp_path / "store").read_bytes() == DATA


def test_what_nothing_holds_is_removed(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    for name in "ab":
        staged(source, tmp_path / name, store)
    shutil.rmtree(tmp_path / "a")
    assert contentstore.collect(store) == 0
    shutil.rmtree(tmp_path / "b")
    assert contentstore.collect(store) == len(DATA)
    assert list(store.iterdir()) == []


def test_a_job_changes_its_own_copy(source: Path, tmp_path: Path, tiny_data: Path) -> None:
    project = Project(tmp_path / "project", tiny_data, tmp_path)
    for _ in range(2):
        ran = project.trainer("run", "--script", str(source / "script.py"), "--no-register", "--json")
        assert ran.returncode == 0, ran.stderr
    run = project.runs / json.loads(ran.stdout)["run_id"]
    assert (run / "snapshot/big.bin").read_bytes() == DATA
    assert (project.path / ".trainer/store" / NAME).stat().st_nlink == 3
    for row in json.loads(project.trainer("runs", "--json").stdout):
        assert project.trainer("delete", row["run_id"]).returncode == 0
    assert list((project.path / ".trainer/store").iterdir()) == []
