"""What an attempt goes on from: found, checked, uploaded, brought back."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from trainer.runtime import attempts, azureml_checkpoints
from trainer.runtime.attempts import Checkpoint

EPOCH = "updater/iterator:main/epoch"


class FakeRun:
    """The artifacts of a run: a name is written once, as with the service."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get_file_names(self) -> list[str]:
        return [path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file()]

    def download_file(self, name: str, output_file_path: str) -> None:
        shutil.copyfile(self.root / unquote(name), output_file_path)

    def upload_file(self, name: str, path: str) -> None:
        assert not (self.root / name).exists(), name
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, self.root / name)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "work"
    (directory / "outputs" / "checkpoints").mkdir(parents=True)
    (directory / "logs").mkdir()
    (tmp_path / "artifacts").mkdir()
    monkeypatch.chdir(directory)
    return directory


def checkpoint(work: Path, epoch: int) -> None:
    np.savez(work / "outputs" / "checkpoint.npz", **{EPOCH: np.asarray(epoch)})


def upload(work: Path, pattern: str, attempt: int = 1) -> None:
    """Upload what is there as a node does that is about to be taken."""
    uploader = azureml_checkpoints.Uploader(FakeRun(work.parent / "artifacts"), work, pattern, attempt, 60)
    uploader.start()
    uploader.stop(save=True)
    assert not uploader.is_alive()


def restored(work: Path) -> tuple[Checkpoint, bytes]:
    place = work.parent / f"restored-{len(list(work.parent.iterdir()))}"
    place.mkdir()
    return azureml_checkpoints.restore(FakeRun(work.parent / "artifacts"), place)


def line(name: str, step: float | None, time: float = 0.0) -> bytes:
    return json.dumps({"name": name, "value": 1.0, "step": step, "time": time}).encode() + b"\n"


def test_the_newest_checkpoint_comes_back_with_the_metrics_before_it(work: Path) -> None:
    checkpoint(work, 3)
    upload(work, "checkpoint.npz")
    checkpoint(work, 7)
    (work / "logs" / "metrics.jsonl").write_bytes(
        line("Epochs", None) + b"".join(line("Loss", step) for step in range(1, 10)) + b'{"name": "Lo'
    )
    upload(work, "checkpoint.npz", attempt=2)
    found, metrics = restored(work)
    assert found.epoch == 7
    assert metrics == b"".join(line("Loss", step) for step in range(1, 8))


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing", "no index"])
def test_one_that_did_not_arrive_whole_is_passed_over(work: Path, damage: str) -> None:
    checkpoint(work, 3)
    upload(work, "checkpoint.npz")
    checkpoint(work, 7)
    upload(work, "checkpoint.npz", attempt=2)
    newest = work.parent / "artifacts/trainer_checkpoints/2/1/checkpoint.npz"
    data = newest.read_bytes()
    if damage == "missing":
        newest.unlink()
    elif damage == "no index":
        newest.parent.with_suffix(".json").unlink()
    else:
        newest.write_bytes(data[: len(data) // 2] if damage == "cut" else data.replace(b"\7\0\0", b"\6\0\0"))
    assert restored(work)[0].epoch == 3
    # The names of the second attempt are taken all the same.
    assert azureml_checkpoints.last_attempt(FakeRun(work.parent / "artifacts").get_file_names()) == 2


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", "a/../../../escaped"])
def test_an_index_that_leads_out_of_its_folder_is_none(work: Path, name: str) -> None:
    place = work.parent / "artifacts" / "trainer_checkpoints" / "1"
    place.mkdir(parents=True)
    content = {"files": {name: ["trainer_checkpoints/1/1.json", 0.0]}, "metrics": ""}
    (place / "1.json").write_text(json.dumps(content))
    assert restored(work) == (Checkpoint(), b"")
    assert not list(work.parent.rglob("*escaped*"))


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"files": 3, "metrics": ""}', '{"files": {"a": 1}, "metrics": 2}']
)
def test_a_damaged_index_is_none(work: Path, content: str) -> None:
    place = work.parent / "artifacts" / "trainer_checkpoints" / "1"
    place.mkdir(parents=True)
    (place / "1.json").write_text(content)
    assert restored(work) == (Checkpoint(), b"")


def test_files_of_a_pattern_come_back_together(work: Path) -> None:
    for name, text in (("1.model", "one"), ("1.state", "s"), ("other.txt", "no")):
        (work / "outputs" / ("checkpoints" if name[0] == "1" else ".") / name).write_text(text)
    (work / "outputs/checkpoints/link").symlink_to("/etc/passwd")
    upload(work, "checkpoints/*")
    (work / "outputs" / "checkpoints" / "1.model").write_text("two")
    upload(work, "checkpoints/*", attempt=2)
    found, _ = restored(work)
    assert {name: path.read_text() for name, path in found.files.items()} == {
        "checkpoints/1.model": "two",
        "checkpoints/1.state": "s",
    }
    attempts.lay(found, work)
    assert (work / "_trainer_job/resume/checkpoints/1.model").read_text() == "two"


def test_metrics_without_steps_stay_up_to_the_checkpoints_time() -> None:
    lines = [line("Loss", None, 10.0), line("Loss", None, 12.0), b"damaged\n"]
    found = Checkpoint({"checkpoints/a": Path("a")}, None, 11.0)
    assert attempts.kept_metrics(b"".join(lines), found) == lines[0] + lines[2]
    assert attempts.kept_metrics(b"".join(lines), Checkpoint()) == b""


def test_a_damaged_archive_is_not_gone_on_from(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "whole.npz", "w") as archive:
        archive.writestr("a", b"x" * 1000)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:500])
    (tmp_path / ".half.npz.x.tmp").write_bytes(b"")
    assert set(attempts.find_checkpoint(tmp_path, "*").files) == {"whole.npz"}


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ('import trainer.runtime as rt\np.add_argument("--resume")\nt.extend(rt.Checkpoint())', True),
        ("import trainer.runtime as rt\nt.extend(rt.Checkpoint())", False),
        ('p.add_argument("--resume")\n', False),
    ],
)
def test_only_a_script_that_can_is_given_the_option(tmp_path: Path, source: str, told: bool) -> None:
    script = tmp_path / "train.py"
    script.write_text(source)
    found = Checkpoint({"checkpoint.npz": tmp_path / "checkpoint.npz"}, 3.0)
    assert bool(attempts.words_for(script, found)) == told
