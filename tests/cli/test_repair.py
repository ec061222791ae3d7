"""Damaged records through the command line: named in one line each, and set aside by ``trainer doctor --repair``."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Project

KILLED = "20200101-000000-aaaaaa"


@pytest.fixture
def damaged(trained_once: Project, tmp_path: Path) -> Project:
    """A project with two runs and two versions, one each damaged, and what two killed submissions left."""
    shutil.copytree(trained_once.path, tmp_path / "project", symlinks=True)
    project = Project(tmp_path / "project", trained_once.data, tmp_path)
    (whole,) = project.runs.iterdir()
    broken = whole.with_name("20200202-000000-bbbbbb")
    shutil.copytree(whole, broken)
    record = (broken / "status.json").read_bytes()
    (broken / "status.json").write_bytes(record.replace(b"local", b"l\xeccal"))
    metrics = (whole / "metrics.jsonl").read_bytes()
    (whole / "metrics.jsonl").write_bytes(b'{"name": "Pr\xe9cision"}\n' + metrics)
    versions = project.path / ".trainer" / "models" / "chainer-dnn-mnist"
    shutil.copytree(versions / "1", versions / "2")
    (versions / "2" / "version.json").unlink()
    os.mkfifo(versions / "2" / "version.json")
    (project.runs / KILLED).mkdir()
    (project.runs / ".new-killed" / "logs").mkdir(parents=True)
    return project


def test_each_is_one_line_and_the_rest_is_listed(damaged: Project) -> None:
    listed = damaged.trainer("runs", "--json")
    assert listed.returncode == 0
    assert len(json.loads(listed.stdout)) == 1
    lines = listed.stderr.splitlines()
    assert len(lines) == 2
    assert all("trainer doctor --repair" in line for line in lines)
    assert "status.json is damaged: byte" in lines[0]
    assert f"{KILLED} has no status.json" in lines[1]
    models = damaged.trainer("models", "chainer-dnn-mnist", "--json")
    assert [version["version"] for version in json.loads(models.stdout)] == [1]
    assert "a named pipe" in models.stderr
    for reference in ("bbbbbb", KILLED):
        shown = damaged.trainer("show", reference)
        assert (shown.returncode, "status.json is damaged" in shown.stderr) == (3, True)


@pytest.mark.slow
def test_what_is_damaged_is_set_aside_and_nothing_is_deleted(damaged: Project) -> None:
    before = _files(damaged)
    found = json.loads(damaged.trainer("doctor", "--json").stdout)["findings"]
    names = [finding["name"] for finding in found if finding["area"] == "records"]
    assert len(names) == 5
    assert {"20200202-000000-bbbbbb", KILLED, ".new-killed", "chainer-dnn-mnist:2"} < set(names)
    repaired = damaged.trainer("doctor", "--repair")
    assert repaired.returncode == 0
    assert repaired.stdout.count("Moved to ") == 5
    again = damaged.trainer("doctor", "--json")
    (finding,) = (finding for finding in json.loads(again.stdout)["findings"] if finding["area"] == "records")
    assert finding["state"] == "ok"
    for words in (("runs", "--json"), ("models", "--json")):
        listed = damaged.trainer(*words)
        assert (len(json.loads(listed.stdout)), listed.stderr) == (1, "")
    # What is new is the whole lines of the metrics; no file is gone.
    assert len(_files(damaged)) == len(before) + 1
    assert damaged.train().returncode == 0
    models = json.loads(damaged.trainer("models", "chainer-dnn-mnist", "--json").stdout)
    assert [version["version"] for version in models] == [1, 3], "a number that was set aside came back"


def test_a_file_in_the_place_of_a_folder(project: Project) -> None:
    home = project.path / ".trainer"
    home.mkdir()
    (home / "runs").touch()
    (home / "models").touch()
    for words in (("runs",), ("models",), ("show", "latest"), ("fetch", "latest")):
        told = project.trainer(*words)
        assert (told.returncode, "is not a directory" in told.stderr) == (3, True), told.stderr
    told = project.trainer("doctor")
    assert "is not a directory" in told.stdout


def _files(project: Project) -> list[Path]:
    """All files but locks and the index of runs, which is made anew whenever it is worth it."""
    found = (project.path / ".trainer").rglob("*")
    return [path for path in found if not path.is_dir() and path.suffix != ".lock" and path.name != "index.json"]
