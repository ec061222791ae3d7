"""Studies on the page, in a real browser and over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.browser import Browser
from tests.cli.conftest import Project
from tests.view.conftest import View
from trainer.tune.study import StudyFolder

# The second trial of the grid fails.
SCRIPT = """
import sys
from trainer import runtime as rt
lr = float(next(word for word in sys.argv if word.startswith("--lr="))[5:])
if lr == 0.25:
    raise ValueError("no <b>such</b> rate")
for epoch in range(1, 4):
    rt.report({"Accuracy": (1 - lr) * epoch / 3}, epoch=epoch, epochs=3)
"""
TRIALS = "[...document.querySelectorAll('#trials tbody tr')].map(row => row.innerText.split('\\t').map(x => x.trim()))"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Project:
    """A finished study of four trials."""
    top = tmp_path_factory.mktemp("studies")
    project = Project(top / "project", tiny_data, top)
    name = project.script(SCRIPT)
    words = ("--script", name, "--no-register", "--space", "lr=0.125,0.25,0.5,0.875", "--space", "act=relu")
    ran = project.trainer("tune", *words, "--sampler", "grid", "--metric", "Accuracy", "--parallel", "2")
    assert "1 failed" in ran.stdout, ran.stdout + ran.stderr
    return project


@pytest.fixture(scope="module")
def view(project: Project) -> Iterator[View]:
    started = View(project)
    yield started
    started.close()


@pytest.fixture(scope="module")
def folder(project: Project) -> StudyFolder:
    (found,) = (project.path / ".trainer" / "studies").iterdir()
    return StudyFolder(found)


def get(view: View, path: str) -> requests.Response:
    headers = {"Authorization": f"Bearer {view.token}"}
    return requests.get(f"{view.root}{path}", headers=headers, timeout=300)


@pytest.fixture
def page(chromium: Browser, view: View) -> Browser:
    """The page of studies, with the one study open."""
    chromium.console.clear()
    chromium.size(1280, 900)
    chromium.call("Page.navigate", url="about:blank")
    chromium.open(view.url)
    chromium.value("document.getElementById('tab-studies').click()")
    chromium.until("document.querySelectorAll('#trials tbody tr').length >= 4")
    return chromium


def test_what_the_server_says_of_a_study(view: View, folder: StudyFolder) -> None:
    (short,) = get(view, "/api/studies").json()
    assert (short["study"], short["status"], short["trials_in_all"]) == (folder.study_id, "Completed", 4)
    assert short["counts"] == {"Completed": 3, "Failed": 1}
    whole = get(view, f"/api/study/{folder.study_id}").json()
    assert [trial["state"] for trial in whole["trials"]] == ["Completed", "Failed", "Completed", "Completed"]
    assert whole["trials"][1]["why"] == "ValueError: no <b>such</b> rate"
    assert get(view, f"/api/study/{folder.study_id}?since={whole['stamp']}").json() == {"stamp": whole["stamp"]}


@pytest.mark.parametrize("name", ["study-20260101-000000-aaaaaa", "..", "%2e%2e%2fruns", "study-x"])
def test_no_such_study(view: View, name: str) -> None:
    assert get(view, f"/api/study/{name}").status_code == 404


def test_history_parallel_coordinates_and_trials(page: Browser, folder: StudyFolder) -> None:
    page.until("document.querySelectorAll('#history canvas').length === 1")
    said = page.value("document.getElementById('history').getAttribute('aria-label')")
    assert said.startswith("Accuracy of 4 trials: 3 completed, 1 failed; best 0.8750, trial 0.")
    page.until("document.querySelectorAll('#study-parallel polyline').length === 3")
    title = "document.querySelector('#study-parallel svg > title').textContent"
    page.until(f"{title} === '3 trials: lr, act, Accuracy'")
    trials = page.value(TRIALS)
    assert [trial[:5] for trial in trials] == [
        ["0", "Completed best", "0.8750", "0.125", "relu"],
        ["1", "Failed", "", "0.25", "relu"],
        ["2", "Completed", "0.5000", "0.5", "relu"],
        ["3", "Completed", "0.1250", "0.875", "relu"],
    ]
    assert trials[1][6] == "ValueError: no <b>such</b> rate"
    assert page.value("location.hash") in ("", f"#study={folder.study_id}")
    assert page.console == []


def test_trials_are_sorted_and_marked(page: Browser) -> None:
    page.value("document.querySelector('[data-key=\"trials-value\"]').click()")
    page.until(f"{TRIALS}.map(trial => trial[0]).join() === '0,2,3,1'")
    page.value("document.querySelector('[data-key=\"trials-value\"]').click()")
    page.until(f"{TRIALS}.map(trial => trial[0]).join() === '3,2,0,1'")
    # By keyboard: the trial whose run has the focus is marked among the parallel coordinates.
    page.value("document.querySelector('#trials tbody .open').focus()")
    page.until("document.querySelectorAll('#study-parallel .shown').length === 2")


def test_a_trials_run_and_the_curves_of_all(page: Browser) -> None:
    page.value("document.querySelector('#trials tbody .open').click()")
    page.until("!document.getElementById('view-runs').hidden && !document.getElementById('detail').hidden")
    page.until("document.getElementById('facts').textContent.includes('trial 0')")
    page.value("document.getElementById('tab-studies').click()")
    page.value("document.getElementById('study-curves').click()")
    page.until("document.querySelectorAll('#charts .u-legend .u-series').length === 4")


def test_it_is_opened_by_its_address(page: Browser, view: View, folder: StudyFolder) -> None:
    page.call("Page.navigate", url="about:blank")
    page.open(f"{view.root}/#study={folder.study_id}")
    page.until(
        "!document.getElementById('view-studies').hidden && document.querySelectorAll('#trials tbody tr').length"
    )


@pytest.mark.parametrize("width", [360, 768])
def test_no_width_is_too_narrow(page: Browser, width: int) -> None:
    page.size(width, 800)
    assert page.until(f"document.documentElement.scrollWidth <= {width}")


def test_everything_has_a_name_and_dark_is_dark(page: Browser) -> None:
    nameless = """[...document.querySelectorAll('button, input, select, a, [role=img]')].filter(element =>
        !(element.textContent.trim() || element.getAttribute('aria-label') || element.labels?.length)
        && element.checkVisibility()).map(element => element.outerHTML)"""
    assert page.value(nameless) == []
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    page.until("document.querySelectorAll('#history canvas').length === 1")
    page.call("Emulation.setEmulatedMedia", features=[])
    assert page.console == []


def test_trials_appear_live_and_say_why_they_were_stopped(page: Browser, project: Project, folder: StudyFolder) -> None:
    known = folder.trials()
    stopped: Any = {"by": "median", "step": 2, "value": 0.25, "bound": 0.5}
    last = known[3]
    line = json.dumps({"number": 4, "run_id": last.run_id, "values": {"lr": 0.7, "act": "relu"}, "state": "Running"})
    with (folder.path / "trials.jsonl").open("a") as file:
        file.write(line + "\n")
    page.until("document.querySelectorAll('#trials tbody tr').length === 5")
    # Under way, it shows the objective so far.
    assert page.value(TRIALS)[4][:4] == ["4", "Running", "0.1250", "0.7"]
    with (folder.path / "trials.jsonl").open("a") as file:
        file.write(line.replace('"Running"', f'"Stopped", "value": 0.25, "stopped": {json.dumps(stopped)}') + "\n")
    page.until(f"{TRIALS}[4][1] === 'Stopped'")
    assert page.value(TRIALS)[4][6] == "stopped by median at step 2: Accuracy 0.25, bound 0.5"
    page.until("document.getElementById('study-facts').textContent.includes('1 stopped')")
    (folder.path / "study.json").write_text("{")
    page.until("document.querySelector('#studies tbody').textContent.includes('Damaged')")
    assert page.console == [] or all("500" in each for each in page.console)


def test_a_study_that_is_taken_up_while_one_looks_is_not_interrupted(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as driver:

        def taken_up(study: StudyFolder) -> None:
            if not study.is_driven:
                driver.enter_context(study.driven())

        monkeypatch.setattr(StudyFolder, "outcome", taken_up)
        assert folder.status == "Running"
    monkeypatch.undo()
    assert folder.status == "Completed"
