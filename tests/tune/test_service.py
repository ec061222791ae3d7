"""Studies that HyperDrive or a sweep job drives: what that can't do is refused; on the emulator the real SDKs send and
find them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.azure.search import read_values
from backends.azure.v2.submit import command_line
from backends.azure.v2.sweep import keys_of
from tests.tune.conftest import SCRIPT, Studies, result
from trainer.runtime.layout import SERVICE_VALUES
from trainer.runtime.service_values import joined
from trainer.tune.space import parse, read_space

ON = ("--backend", "azureml", "--emulator")
V2 = ("--backend", "azureml-v2", "--emulator")
X = ("--space", "x=uniform:0..1")


HERE = ("--backend", "local", "--trials", "3")
REFUSED: list[tuple[tuple[str, ...], int, str, str]] = [
    ((*ON, *X, "--trials", "3", "--sampler", "tpe"), 4, "it has random, grid, bayesian", "--driver client"),
    ((*ON, *X, "--trials", "3", "--sampler", "qmc"), 4, "no sampler qmc", "--driver client"),
    ((*ON, *X, "--trials", "3", "--stop", "asha"), 4, "it has bandit, median, truncation", "--driver client"),
    ((*ON, *X, "--trials", "3", "--stop", "truncation:percent=12.5"), 4, "a whole percentage", "--driver client"),
    ((*ON, *X, "--trials", "3", "--try", "x=0.5"), 4, "no values of your own", "--driver client"),
    ((*ON, *X, "--trials", "3", "--seed", "3"), 4, "takes no seed", "Leave out --seed"),
    ((*ON, *X, "--trials", "3", "--max-minutes", "0.5"), 4, "whole minutes", "Round --max-minutes"),
    ((*ON, *X, "--trials", "1001"), 4, "up to 1,000 trials", "--driver client"),
    ((*ON, *X, "--trials", "3", "--parallel", "101"), 4, "up to 100 trials at once", "--driver client"),
    ((*ON, *X, "--trials", "3", "--sampler", "bayesian", "--stop", "median"), 4, "takes no policy", "Leave out --stop"),
    ((*ON, "--space", "x=log:1..2", "--trials", "3", "--sampler", "bayesian"), 4, "not log", "--driver client"),
    ((*ON, "--space", "x=1,a", "--trials", "3", "--sampler", "bayesian"), 4, "texts or numbers", "--driver client"),
    (
        (*ON, "--space", "x=quniform:0..1:0.1", "--trials", "3", "--sampler", "bayesian"),
        4,
        "whole numbers in",
        "client",
    ),
    ((*ON, "--space", "x=quniform:0..1:0.1", "--trials", "3"), 4, "whole steps in quniform: x", "--driver client"),
    ((*V2, "--space", "x=qnormal:0,1:0.5", "--trials", "3"), 4, "whole steps in qnormal: x", "--driver client"),
    ((*ON, "--space", "x=int:1..5000", "--trials", "3"), 4, "5,000 values", "--driver client"),
    ((*ON, *X, "--trials", "3", "--max-restarts", "-1"), 2, "--max-restarts must be", "Give another"),
    ((*V2, *X, "--trials", "3", "--nodes", "2"), 4, "A sweep job takes no trials of 2 ranks", "--driver client"),
    ((*V2, *X, "--trials", "3", "--checkpoints", "/x"), 2, "a pattern of files below outputs/", "checkpoints/*"),
    ((*ON, *X, "--trials", "3", "--", "-n", "3"), 4, "argument -n for a notebook's", "--driver client"),
    ((*V2, *X, "--trials", "3", "--sampler", "qmc"), 4, "A sweep job has no sampler qmc", "--driver client"),
    ((*V2, *X, "--trials", "3", "--stop", "asha"), 4, "A sweep job has no policy asha", "--driver client"),
    ((*V2, *X, "--trials", "3", "--try", "x=0.5"), 4, "no values of your own", "--driver client"),
    ((*V2, *X, "--trials", "3", "--seed", "3000000000"), 4, "a seed up to 2,147,483,647", "a smaller --seed"),
    (
        (*V2, *X, "--trials", "3", "--seed", "3", "--sampler", "bayesian"),
        4,
        "no seed with bayesian",
        "Leave out --seed",
    ),
    ((*V2, *X, "--trials", "1001"), 4, "up to 1,000 trials", "--driver client"),
    ((*V2, *X, "--trials", "3", "--max-minutes", "86401"), 4, "up to 86,400 minutes", "--driver client"),
    ((*V2, *X, "--trials", "3", "--sampler", "bayesian", "--stop", "median"), 4, "takes no policy", "Leave out --stop"),
    ((*V2, "--space", "x=1,$HOME", "--trials", "3"), 4, "'$HOME' of x does not survive", "Leave out quotes, $"),
    ((*HERE, *X, "--driver", "service"), 4, "no service that drives studies", "--driver client"),
    ((*HERE, *X, "--sampler", "bayesian"), 2, "bayesian sampler is Azure ML's own", "--sampler tpe"),
]
# One process that is asked everything: starting one takes longer than the answers.
ASK = """
import contextlib, io, json, sys
from trainer.cli import main
answers = []
for words in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        answers.append([main(["tune", "--script", "script.py", "--metric", "score", *words]), said.getvalue()])
print(json.dumps(answers))
"""


def test_what_azure_cannot_do_is_refused_before_anything_is_sent(tmp_path: Path, tiny_data: Path) -> None:
    project = Studies(tmp_path / "project", tiny_data, tmp_path)
    asked = json.dumps([words for words, *_ in REFUSED])
    ran = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=project.path,
        env=project.environment,
        input=asked,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    answers = json.loads(ran.stdout)
    for (words, code, said, instead), (returned, text) in zip(REFUSED, answers, strict=True):
        assert (returned, said in text, instead in text) == (code, True, True), (words, text)
    assert not (project.path / ".trainer").exists()


def test_appended_values_become_the_words_of_other_trials() -> None:
    words = ["--epochs", "5", f"{SERVICE_VALUES}=units", "--units", "50.0", "--lr", "-1e-05", "--name", "a b"]
    assert joined(words) == ["--epochs", "5", "--units=50", "--lr=-1e-05", "--name=a b"]
    assert joined(["--epochs", "5"]) == ["--epochs", "5"]


def test_names_of_flags_become_names_that_a_search_space_may_have() -> None:
    space = read_space([parse(text) for text in ("my-flag=1,2", "my.flag=1,2", "my_flag_=1,2", "lr=1,2")])
    keys = keys_of(space)
    assert keys == {"my-flag": "my_flag", "my.flag": "my_flag_", "my_flag_": "my_flag__", "lr": "lr"}
    given = dict(zip(keys.values(), (1, 2, 1, 2), strict=True))
    assert read_values(space, given, keys) == {"my-flag": 1, "my.flag": 2, "my_flag_": 1, "lr": 2}


@pytest.mark.parametrize("word", ["${{inputs.x}}", "{inputs.x}", "a {search_space.b} ${{c}}", "$HOME", "it's", "plain"])
def test_a_word_of_the_user_s_is_no_reference_of_the_service_s(word: str) -> None:
    line = command_line(["printf", "%s", word])
    # What Azure ML replaces, and what the SDK makes of it before.
    assert "${{" not in line
    assert not re.search(r"(?<!\{)\{(inputs|outputs|search_space)\.", line)
    assert subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout == word


@pytest.mark.slow
@pytest.mark.parametrize("on", [ON, V2], ids=["azureml", "azureml-v2"])
def test_a_study_outlives_its_client(cloud: Studies, on: tuple[str, ...]) -> None:
    words = ("tune", "--script", "script.py", "--metric", "score", *on, "--parallel", "2")
    before = _runs(cloud)
    space = ("--space", "x=uniform:-1e-5..1", "--stop", "bandit:slack=0.001,delay=2", "--trials", "4")
    process = cloud.start(*words, *space, "--tag", "colour=blue", "--", "--seconds", "0.5")
    _until(process, lambda: _runs(cloud) >= before + 2)
    process.kill()
    process.communicate()
    listed = json.loads(cloud.trainer("studies", "--json").stdout)[0]
    assert (listed["status"], listed["driver"], listed["service"]) == ("Running", "service", listed["study"])
    ran = [cloud.start("attach", listed["study"], "--json") for _ in range(2)]
    one, other = (_object(process) for process in ran)
    assert one["trials"] == other["trials"]
    assert one["status"] == "Completed"
    assert [trial["number"] for trial in one["trials"]] == [0, 1, 2, 3]
    assert len({trial["run_id"] for trial in one["trials"]}) == 4 == _runs(cloud) - before
    done = [trial for trial in one["trials"] if trial["state"] == "Completed"]
    for trial in one["trials"]:
        # What the script was given is what the study says.
        x = trial["values"]["x"]
        assert trial["curve"] == [1 - abs(x - 0.3) / step for step in range(1, len(trial["curve"]) + 1)]
        assert trial["state"] in ("Completed", "Stopped"), cloud.trainer("show", trial["run_id"]).stdout
        if trial["state"] == "Stopped":
            assert trial["stopped"]["by"] == "bandit"
            assert trial["stopped"]["value"] < trial["stopped"]["bound"]
    best = max(done, key=lambda trial: max(trial["curve"]))
    assert one["best"]["number"] == best["number"]
    # Registered once, though two saw the end.
    assert cloud.trainer("register", listed["study"], "--json").returncode == 0
    versions = json.loads(cloud.trainer("models", "script", *on, "--json").stdout)
    (version,) = [each for each in versions if each["run_id"] == best["run_id"]]
    assert {each["tags"]["study"] for each in versions if each is not version}.isdisjoint({listed["study"]})
    values = {"x": repr(best["values"]["x"])}
    assert version["tags"] == {"colour": "blue", "study": listed["study"], "trial": str(best["number"]), **values}
    # One line in the list, its trials on request; and what it is doesn't change.
    assert listed["study"] in cloud.trainer("runs").stdout
    assert best["run_id"] in cloud.trainer("runs", "--trials").stdout
    refused = cloud.trainer("tune", "--resume", listed["study"], "--trials", "9")
    assert refused.returncode == 2
    assert "--warm-start" in refused.stderr


def test_trials_of_several_ranks_are_refused(tmp_path: Path, tiny_data: Path) -> None:
    project = Studies(tmp_path / "project", tiny_data, tmp_path)
    project.environment["TRAINER_NODES"] = "2"
    refused = project.trainer("tune", "--metric", "Accuracy", "--space", "lr=0.1,0.2", "--trials", "2", *ON)
    assert (refused.returncode, "HyperDrive takes no trials of 2 ranks" in refused.stderr) == (4, True)


@pytest.mark.slow
@pytest.mark.parametrize("on", [ON, V2], ids=["azureml", "azureml-v2"])
def test_ctrl_c_leaves_it_and_cancel_ends_it(cloud: Studies, on: tuple[str, ...]) -> None:
    words = ("tune", "--script", "script.py", "--metric", "score", *X, *on, "--trials", "4", "--parallel", "2")
    before = _runs(cloud)
    process = cloud.start(*words, "--", "--seconds", "30")
    _until(process, lambda: _runs(cloud) == before + 2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "goes on without this command" in err
    study = cloud.study
    assert study.status == "Running"
    ran = cloud.trainer("cancel", study.study_id)
    assert ran.returncode == 0, ran.stderr
    found = result(cloud.trainer("attach", study.study_id, "--json"))
    assert (found["status"], found["model"]) == ("Canceled", None)
    assert [trial["state"] for trial in found["trials"]] == ["Canceled"] * 2


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Iterator[Studies]:
    """A project whose emulator is started by the first command and stopped at the end."""
    top = tmp_path_factory.mktemp("service")
    project = Studies(top / "project", tiny_data, top)
    project.script(SCRIPT)
    yield project
    project.stop_emulator()


def _runs(project: Studies) -> int:
    return len(list(project.runs.glob("2*"))) if project.runs.is_dir() else 0


def _until(process: subprocess.Popen[str], true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _object(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return json.loads(out)
