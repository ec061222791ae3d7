"""Curves in a notebook's cell: what IPython would show."""

import xml.etree.ElementTree as ET

import pytest

from tests.cli.conftest import Project
from trainer import notebook
from trainer.errors import NotFoundError


def test_curves_of_runs(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.path)
    monkeypatch.delenv("TRAINER_HOME", raising=False)
    ids = sorted(path.name for path in project.runs.iterdir() if path.is_dir())
    shown = notebook.curves(*ids)
    assert shown.ended
    page = ET.fromstring(shown._repr_html_().replace("&nbsp;", " "))
    titles = [title.text or "" for title in page.iter("title")]
    assert [title.partition(":")[0] for title in titles] == ["Loss", "Accuracy"]
    assert all(f"{run_id[9:]} " in titles[0] for run_id in ids)
    assert len(list(page.iter("polyline"))) == 6
    assert notebook.curves("latest").runs[0].run_id == ids[-1]
    try:
        assert project.trainer("runs", "rename", ids[0], "a < b").returncode == 0
        assert "</span> a &lt; b Completed" in notebook.curves(ids[0])._repr_html_()
    finally:
        assert project.trainer("runs", "rename", ids[0], "").returncode == 0


def test_no_such_run(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.path)
    with pytest.raises(NotFoundError):
        notebook.curves("nonsense")
