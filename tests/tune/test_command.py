"""``trainer tune`` on this machine: real processes, real files."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.cli.test_terminal import COLOUR, run_on_terminal
from tests.tune.conftest import Studies, result

X = ("--space", "x=uniform:0..1")


def test_a_study_of_the_included_script(studies: Studies) -> None:
    warm = result(studies.tune_digits("--trials", "4", "--parallel", "2", "--tag", "colour=blue"))
    assert warm["status"] == "Completed"
    assert [trial["state"] for trial in warm["trials"]] == ["Completed"] * 4
    assert all(len(trial["curve"]) == 3 for trial in warm["trials"])
    best = max(warm["trials"], key=lambda trial: max(trial["curve"]))
    assert warm["best"]["number"] == best["number"]
    # Registered, with study, trial and values in its record.
    (version,) = json.loads(studies.trainer("models", "--json").stdout)
    assert version["run_id"] == best["run_id"] == warm["best"]["run_id"]
    assert version["tags"] == {
        "colour": "blue",
        "study": warm["study"],
        "trial": str(best["number"]),
        **{name: repr(value) for name, value in best["values"].items()},
    }
    # One snapshot: the runs link to it, and hold only what is their own.
    folders = [studies.runs / trial["run_id"] for trial in warm["trials"]]
    assert {(folder / "snapshot").resolve() for folder in folders} == {studies.study.snapshot}
    assert not any((folder / "work").exists() for folder in folders)
    # A process per trial gives the same values and the same models, bit for bit.
    fresh = result(studies.tune_digits("--trials", "4", "--isolated", "--no-register"))
    assert fresh["model"] is None
    for one, other in zip(warm["trials"], fresh["trials"], strict=True):
        assert one["values"] == other["values"]
        assert one["curve"] == other["curve"]
        models = [studies.runs / trial["run_id"] / "outputs" / "model.npz" for trial in (one, other)]
        assert models[0].read_bytes() == models[1].read_bytes()


def test_any_keeps_the_best_epoch_and_last_the_last(studies: Studies) -> None:
    # Far too high a learning rate: the accuracy goes up and down.
    what = ("--space", "lr=0.9", "--dataset", str(studies.data), "--trials", "1", "--json")
    end = ("--", "--epochs", "6", "--batchsize", "32")
    kept = result(studies.trainer("tune", *what, *end))
    (trial,) = kept["trials"]
    step = trial["step"]
    assert step < 6, f"this seed's best epoch is no longer before the last: {trial['curve']}"
    assert trial["value"] == trial["curve"][step - 1] == max(trial["curve"])
    plain = ("run", "--dataset", str(studies.data), "--lr", "0.9", "--batchsize", "32", "--no-register", "--json")
    until = json.loads(studies.trainer(*plain, "--epochs", str(step)).stdout)
    model = studies.runs / trial["run_id"] / "outputs" / "model.npz"
    assert model.read_bytes() == (Path(until["outputs"]) / "model.npz").read_bytes()
    last = result(studies.trainer("tune", *what, "--best", "last", *end))
    (trial,) = last["trials"]
    assert (trial["value"], trial["step"]) == (trial["curve"][-1], 6)
    whole = json.loads(studies.trainer(*plain, "--epochs", "6").stdout)
    model = studies.runs / trial["run_id"] / "outputs" / "model.npz"
    assert model.read_bytes() == (Path(whole["outputs"]) / "model.npz").read_bytes()
    # What travelled with it is what travels with a run.
    assert last["snapshot"] == whole["snapshot"]


GOES_ON = """
import argparse, os, signal
from pathlib import Path
from azureml.core.run import Run

parser = argparse.ArgumentParser()
parser.add_argument("--x", type=float, required=True)
x = parser.parse_args().x
earlier = os.environ.get("TRAINER_RESUME_DIR")
done = int(Path(earlier, "states/done.txt").read_text()) if earlier else 0
for step in range(done + 1, 5):
    Run.get_context().log("score", x * step)
    Path("outputs/states").mkdir(exist_ok=True)
    Path("outputs/states/.half").write_text(str(step))
    Path("outputs/states/.half").rename("outputs/states/done.txt")
    if step == 2:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_trial_that_is_killed_goes_on_from_its_checkpoint(studies: Studies) -> None:
    studies.script(GOES_ON)
    # ASHA is asked at each value, once.
    words = ("--trials", "2", "--parallel", "2", "--stop", "asha:min=5", "--no-register")
    found = result(studies.tune(*X, *words, "--max-restarts", "1", "--checkpoints", "states/*.txt"))
    for trial in found["trials"]:
        x = trial["values"]["x"]
        assert (trial["state"], trial["curve"]) == ("Completed", [x * step for step in range(1, 5)]), trial
        restarts = json.loads(studies.trainer("show", trial["run_id"], "--json").stdout)["restarts"]
        assert [restart["checkpoint"] for restart in restarts] == ["states/done.txt"]


def test_a_killed_driver_loses_nothing_and_runs_nothing_twice(studies: Studies) -> None:
    words = ("tune", "--script", "script.py", "--metric", "score", *X, "--trials", "8", "--parallel", "2")
    process = studies.start(*words, "--", "--seconds", "0.05")
    kills = 0
    while True:
        deadline = time.monotonic() + 1.1 + 0.3 * kills  # at another moment of a trial's life every time
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if process.poll() is not None:
            assert process.returncode == 0, process.communicate()[1]
            break
        process.kill()
        process.communicate()
        kills += 1
        # On a slow machine the first kills come before there is a study.
        if list((studies.path / ".trainer" / "studies").glob("*/study.json")):
            process = studies.start("tune", "--resume", "latest")
        else:
            process = studies.start(*words, "--", "--seconds", "0.05")
    process.communicate()
    lines = studies.lines()
    assert Counter(line.number for line in lines if line.state == "Completed") == dict.fromkeys(range(8), 1)
    assert len({line.run_id for line in lines}) == 8
    logs = [(studies.runs / line.run_id / "logs" / "std_log.txt").read_text() for line in lines]
    assert all(log.count("step 1") == 1 for log in logs)


def test_a_study_is_deleted_with_its_runs(studies: Studies) -> None:
    words = ("tune", "--script", "script.py", "--metric", "score", *X, "--trials", "2", "--parallel", "1")
    process = studies.start(*words, "--", "--seconds", "600")
    deadline = time.monotonic() + 120
    while '"Running"' not in studies.trainer("runs", "--trials", "--json").stdout:
        assert time.monotonic() < deadline
    name = studies.study.study_id
    refused = studies.trainer("delete", name)
    assert (refused.returncode, f"Study {name} is Running" in refused.stderr) == (2, True)
    process.kill()
    process.communicate()
    (running,) = [each["run_id"] for each in json.loads(studies.trainer("runs", "--trials", "--json").stdout)]
    refused = studies.trainer("delete", name)
    assert (refused.returncode, f"trainer cancel {running}" in refused.stderr) == (2, True)
    assert studies.trainer("cancel", running).returncode == 0
    studies.trainer("attach", running)
    kept = result(studies.tune(*X, "--trials", "2"))
    assert json.loads(studies.trainer("delete", name, "--json").stdout) == {
        "study": name,
        "runs": [running],
        "deleted": True,
    }
    refused = studies.trainer("delete", kept["study"])
    assert (refused.returncode, f"trainer delete {kept['study']} --force" in refused.stderr) == (4, True)
    deleted = studies.trainer("delete", kept["study"], "--force")
    assert (deleted.returncode, f"Deleted study {kept['study']} and its 2 runs" in deleted.stderr) == (0, True)
    assert json.loads(studies.trainer("studies", "--json").stdout) == []
    assert json.loads(studies.trainer("runs", "--trials", "--json").stdout) == []
    assert list((studies.path / ".trainer" / "studies").iterdir()) == []
    assert len(json.loads(studies.trainer("models", "script", "--json").stdout)) == 1


def test_a_killed_pool_and_a_killed_worker_harm_only_what_they_ran(studies: Studies) -> None:
    import psutil

    words = ("tune", "--script", "script.py", "--metric", "score", *X, "--trials", "6", "--parallel", "2")
    process = studies.start(*words, "--", "--seconds", "0.4")
    _until_running(studies, 2)
    (pool,) = [each for each in psutil.process_iter() if _is_pool(each, studies)]
    # Every script leads a session of its own.
    (worker,) = [child for child in pool.children() if _session(child.pid) == _session(pool.pid)]
    worker.kill()  # running scripts are the pool's children and go on
    _until_ended(studies, 1)
    assert not any(line.state == "Failed" for line in studies.lines())
    _until_running(studies, 1)
    pool.kill()
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    trials = studies.study.trials().values()
    assert [trial.state for trial in trials] == ["Completed"] * 6
    # What the pool ran is run again, once, with the same values.
    lost = [line for line in studies.lines() if line.state == "Interrupted"]
    assert lost
    for line in lost:
        assert "supervised the run died" in line.reason
        again = studies.study.trials()[line.number]
        assert again.values == line.values
        assert again.run_id != line.run_id


def test_a_crash_of_one_trial_harms_no_other(studies: Studies) -> None:
    found = result(studies.tune(*X, "--trials", "6", "--parallel", "2", script=("--mode", "crash")))
    assert {trial["number"]: trial["state"] for trial in found["trials"]} == {
        trial["number"]: "Failed" if trial["values"]["x"] > 0.5 else "Completed" for trial in found["trials"]
    }
    reasons = {trial["reason"] for trial in found["trials"] if trial["state"] == "Failed"}
    assert reasons == {"The script was ended by SIGSEGV."}


def test_a_study_whose_trials_all_fail_stops_after_three(studies: Studies) -> None:
    ran = studies.tune(*X, "--trials", "50", script=("--mode", "fail"))
    assert ran.returncode == 1
    assert "all of its 3 trials failed, the last with: ValueError: this never works" in ran.stderr
    assert "trainer logs " in ran.stderr
    assert len(studies.study.trials()) == 3
    assert json.loads(ran.stdout)["status"] == "Failed"


def test_a_study_of_two_that_both_fail_is_no_success(studies: Studies) -> None:
    ran = studies.tune(*X, "--trials", "2", script=("--mode", "fail"))
    assert ran.returncode == 1
    assert "all of its 2 trials failed, the last with: ValueError: this never works" in ran.stderr
    assert json.loads(ran.stdout)["status"] == "Failed"


def test_a_metric_that_is_never_finite_is_said_and_nothing_is_registered(studies: Studies) -> None:
    text = "from azureml.core.run import Run\nRun.get_context().log('score', float('nan'))\n"
    studies.script(text, "nan.py")
    words = ("tune", "--script", "nan.py", "--space", "x=1,2", "--sampler", "grid", "--metric", "score")
    ran = studies.trainer(*words)
    assert ran.returncode == 0, ran.stderr
    assert "x=1  completed  score not finite" in ran.stderr
    assert "no model is registered: none of those that completed has a finite value" in ran.stderr
    assert "none of those that completed has a finite value" in ran.stdout


def test_a_grid_that_could_not_be_listed_is_begun(studies: Studies) -> None:
    space = ("--space", "x=int:1..100000", "--space", "y=int:1..100000", "--space", "z=int:1..100000")
    text = "import sys\nfrom azureml.core.run import Run\nRun.get_context().log('score', len(sys.argv))\n"
    studies.script(text, "any.py")
    words = ("tune", "--script", "any.py", "--metric", "score", "--sampler", "grid", "--no-register", "--json")
    found = result(studies.trainer(*words, *space, "--trials", "2", "--try", "x=1,y=1,z=1"))
    assert [trial["values"]["z"] for trial in found["trials"]] == [1, 2]


def test_a_full_disk_interrupts_a_study_and_spends_no_trial(studies: Studies) -> None:
    # What a script, or the supervisor, that finds no room ends with.
    text = """
import errno, os
from azureml.core.run import Run
if not os.path.exists(os.environ["MARK"]):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
Run.get_context().log("score", 1.0)
"""
    studies.script(text, "full.py")
    mark = studies.path / "room"
    words = ("tune", "--script", "full.py", "--space", "x=1,2,3,4,5", "--sampler", "grid", "--metric", "score")
    ran = studies.trainer(*words, env={"MARK": str(mark)})
    assert ran.returncode == 3
    study = studies.study
    assert f"Free some space, then go on: trainer tune --resume {study.study_id}" in ran.stderr
    assert (study.status, [trial.state for trial in study.trials().values()]) == ("Interrupted", ["Interrupted"])
    mark.touch()
    found = result(studies.trainer("tune", "--resume", "latest", "--json", env={"MARK": str(mark)}))
    assert [trial["state"] for trial in found["trials"]] == ["Completed"] * 5


def test_a_study_whose_making_was_cut_off_hides_no_other(studies: Studies) -> None:
    found = result(studies.tune(*X, "--trials", "1", "--no-register"))
    (studies.path / ".trainer" / "studies" / "study-29991231-235959-aaaaaa" / "snapshot").mkdir(parents=True)
    for command in ("studies", "runs"):
        ran = studies.trainer(command)
        assert ran.returncode == 0, ran.stderr
        assert found["study"] in ran.stdout
    assert result(studies.trainer("tune", "--resume", "latest", "--json"))["study"] == found["study"]


def test_a_study_keeps_its_model_when_its_runs_are_removed(studies: Studies) -> None:
    first = result(studies.tune(*X, "--trials", "1"))
    assert studies.trainer("clean", "--status", "completed", "--registered", "--yes").returncode == 0
    again = result(studies.trainer("tune", "--resume", first["study"], "--json"))
    assert again["model"] == first["model"] is not None


def test_a_metric_that_never_comes_is_seen_at_the_first_trial(studies: Studies) -> None:
    ran = studies.trainer("tune", "--script", "script.py", *X, "--trials", "50")
    assert ran.returncode == 2
    assert "Trial 0 ended and never logged the metric 'Accuracy'; it logged score." in ran.stderr
    assert len(studies.study.trials()) == 1
    text = "from azureml.core.run import Run\nRun.get_context().log('Accuracy', 1)\n"
    studies.script(text, "any.py")
    words = ("tune", "--script", "any.py", "--space", "x=1,2", "--trials", "2", "--metric", "validation/main/accuracy")
    assert "hint: Start again with --metric Accuracy." in studies.trainer(*words).stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--space", "foo=1,2", "--trials", "3"), "chainer_mnist.py has no flag --foo."),
        (("--space", "lr=uniform:2..1", "--trials", "3"), "2..1 is empty"),
        (("--space", "lr=log:0..1", "--trials", "3"), "logarithm of 0"),
        (("--space", "lr=uniform:0.1..1", "--sampler", "grid"), "lr is uniform"),
        (("--space", "batchsize=uniform:1..9", "--trials", "3"), "--batchsize must be a whole number"),
        (("--space", "momentum=0.5,1.5", "--trials", "3"), "--momentum must be"),
        (("--space", "dataset=a,b", "--trials", "3"), "can't be tuned"),
        (("--space", "lr=0.1,0.2"), "How many trials?"),
        (("--trials", "3"), "nothing to tune"),
        (("--space", "lr=0.1", "--space", "lr=0.2", "--trials", "3"), "given twice"),
        (("--space", "lr=0.1,0.2", "--trials", "0"), "--trials must be"),
        (("--space", "lr=0.1,0.2", "--trials", "3", "--sampler", "bayes"), "--sampler must be one of"),
        (("--space", "lr=0.1,0.2", "--trials", "3", "--stop", "hyperband"), "no such policy"),
        (("--space", "lr=0.1,0.2", "--trials", "3", "--try", "lr=0.3"), "lr can't be 0.3"),
        (("--space", "lr=0.1,0.2", "--trials", "3", "--max-minutes", "0"), "--max-minutes must be"),
        (("--space", "lr=0.1,0.2", "--trials", "3", "--tag", "trial=x"), "'trial' is a tag"),
        (("--space", "lr=0.1,0.2", "--trials", "3", "--warm-start", "study-none"), "no study"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(studies: Studies, words: tuple[str, ...], said: str) -> None:
    ran = studies.trainer("tune", "--dataset", str(studies.data), *words)
    assert ran.returncode in (2, 5)
    error, hint = ran.stderr.strip().splitlines()
    assert said in error
    assert hint.startswith("hint: ")
    assert not (studies.path / ".trainer").exists()


def test_a_stopped_trial_says_by_what_and_is_no_cancelled_one(studies: Studies) -> None:
    words = ("--try", "x=0.3", "--try", "x=0.9", "--space", "x=uniform:0..1", "--trials", "2")
    found = result(studies.tune(*words, "--stop", "bandit:slack=0.2,delay=1", script=("--seconds", "0.5")))
    good, bad = found["trials"]
    assert (good["state"], bad["state"]) == ("Completed", "Stopped")
    assert bad["stopped"] == {"by": "bandit", "step": 1, "value": pytest.approx(0.4), "bound": pytest.approx(1 / 1.2)}
    assert len(bad["curve"]) < 4
    record = json.loads((studies.runs / bad["run_id"] / "status.json").read_text())
    assert (record["status"], record["stopped"]) == ("Canceled", bad["stopped"])
    shown = studies.trainer("show", bad["run_id"]).stdout
    assert "by bandit at step 1: 0.4, bound 0.833333" in shown
    assert f"{found['study']}, trial 1" in shown
    text = studies.trainer("show", found["study"]).stdout
    assert "stopped by bandit at step 1: score 0.4, bound 0.833333" in text
    # One line in the list of runs, every trial on request.
    listed = studies.trainer("runs").stdout
    assert found["study"] in listed
    assert bad["run_id"] not in listed
    every = studies.trainer("runs", "--trials").stdout
    assert " Stopped " in next(line for line in every.splitlines() if bad["run_id"] in line)
    assert json.loads(studies.trainer("studies", "--json").stdout)[0]["counts"]["Stopped"] == 1


def test_a_trial_that_the_user_cancels_is_canceled(studies: Studies) -> None:
    words = ("tune", "--script", "script.py", "--metric", "score", *X, "--trials", "2", "--parallel", "2")
    process = studies.start(*words, "--", "--seconds", "1")
    _until_running(studies, 2)
    victim = studies.study.trials()[0].run_id
    assert studies.trainer("cancel", victim).returncode == 0
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert [trial.state for trial in studies.study.trials().values()] == ["Canceled", "Completed"]


def test_ctrl_c_interrupts_and_resume_goes_on_with_the_same_values(studies: Studies) -> None:
    words = ("tune", "--script", "script.py", "--metric", "score", *X, "--trials", "3", "--parallel", "2")
    process = studies.start(*words, "--", "--seconds", "0.5")
    _until_running(studies, 2)
    before = {trial.number: trial.values for trial in studies.study.trials().values()}
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130
    assert f"trainer tune --resume {studies.study.study_id}" in err
    assert {trial.state for trial in studies.study.trials().values()} <= {"Interrupted", "Completed"}
    assert studies.study.status == "Interrupted"
    for more, said in (
        (("--", "--seconds", "9"), "The script's arguments: what a study is doesn't change with --resume."),
        (("--isolated",), "--isolated: what a study is doesn't change with --resume."),
        (("--dry-run",), "--dry-run shows a new study"),
    ):
        ran = studies.trainer("tune", "--resume", "latest", *more)
        assert ran.returncode == 2
        assert said in ran.stderr
    found = result(studies.trainer("tune", "--resume", "latest", "--json"))
    assert [trial["state"] for trial in found["trials"]] == ["Completed"] * 3
    assert all(found["trials"][number]["values"] == values for number, values in before.items())


def test_a_second_ctrl_c_leaves_trials_that_run_again(studies: Studies) -> None:
    text = """
import os, signal, time
from azureml.core.run import Run
run = Run.get_context()
run.log("score", 1.0)
if not os.path.exists(os.environ["MARK"]):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is still under way at the second
    run.log("score", 2.0)
    time.sleep(600)
"""
    studies.script(text, "stubborn.py")
    mark = studies.path / "go-on"
    words = ("tune", "--script", "stubborn.py", "--metric", "score", *X, "--trials", "2", "--parallel", "2")
    process = studies.start(*words, env={"MARK": str(mark)})
    deadline = time.monotonic() + 120
    while sum(log.read_bytes().count(b"\n") == 2 for log in studies.runs.glob("*/metrics.jsonl")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    while any(line.state == "Running" for line in studies.study.trials().values()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=600)
    assert {trial.state for trial in studies.study.trials().values()} == {"Interrupted"}
    mark.touch()
    found = result(studies.trainer("tune", "--resume", "latest", "--json", env={"MARK": str(mark)}))
    assert [trial["state"] for trial in found["trials"]] == ["Completed"] * 2


def test_a_study_whose_time_is_over_ends_and_can_go_on(studies: Studies) -> None:
    found = result(studies.tune(*X, "--trials", "40", "--max-minutes", "0.05", script=("--seconds", "0.2")))
    assert found["status"] == "Completed"
    assert "time was over" in found["reason"]
    assert f"Next      trainer tune --resume {found['study']}" in studies.trainer("show", found["study"]).stdout
    assert len(found["trials"]) < 40
    ran = studies.trainer("tune", "--resume", found["study"], "--trials", "5", "--parallel", "2", "--json")
    assert f"{found['study']}  5 trials, 2 at once;" in ran.stderr
    again = result(ran)
    assert again["reason"] == ""
    assert [trial["state"] for trial in again["trials"]].count("Completed") >= 5


@pytest.mark.slow
def test_a_resumed_study_takes_more_trials_with_new_values(studies: Studies) -> None:
    first = result(studies.tune(*X, "--trials", "3", "--seed", "5"))
    more = result(studies.trainer("tune", "--resume", first["study"], "--trials", "6", "--json"))
    at_once = result(studies.tune(*X, "--trials", "6", "--seed", "5", "--parallel", "3"))
    values = [trial["values"]["x"] for trial in more["trials"]]
    assert len(set(values)) == 6
    assert values == [trial["values"]["x"] for trial in at_once["trials"]]
    assert [trial["run_id"] for trial in first["trials"]] == [trial["run_id"] for trial in more["trials"][:3]]


def test_the_table_in_pyproject_says_the_same(studies: Studies) -> None:
    (studies.path / "pyproject.toml").write_text(
        "[tool.trainer]\nexperiment = 'search'\n[tool.trainer.tune]\nmetric = 'score'\ntrials = 3\nseed = 5\n"
        "max-minutes = 5\n[tool.trainer.tune.space]\nx = { uniform = [0, 1] }\n"
    )
    found = result(studies.trainer("tune", "--script", "script.py", "--json"))
    assert len(found["trials"]) == 3
    assert found["definition"]["job"]["experiment"] == "search"
    other = result(studies.tune(*X, "--trials", "3", "--seed", "5"))
    assert [trial["values"] for trial in found["trials"]] == [trial["values"] for trial in other["trials"]]
    # A flag replaces a parameter of the table; another command is not disturbed by it.
    assert studies.trainer("runs").returncode == 0
    plan = studies.trainer("tune", "--script", "script.py", "--space", "x=1,2", "--dry-run")
    assert "x=choice:1,2" in plan.stdout
    for line, said in (
        ("metrics = 'score'", "unknown key 'metrics'"),
        ("try = 'x=0.3'", "try must be a list of texts."),
        ("try = [0.3]", "try must be a list of texts."),
    ):
        (studies.path / "pyproject.toml").write_text(f"[tool.trainer.tune]\n{line}\n")
        ran = studies.trainer("tune", "--script", "script.py", *X)
        assert ran.returncode == 3
        assert said in ran.stderr


def test_a_grid_ends_by_itself(studies: Studies) -> None:
    ran = studies.tune("--space", "x=0.1,0.2,0.3", "--sampler", "grid")
    found = result(ran)
    assert [trial["values"]["x"] for trial in found["trials"]] == [0.1, 0.2, 0.3]
    ends = [line for line in ran.stderr.splitlines() if "completed" in line]
    assert [line.endswith(" left") for line in ends] == [True, True, False], ends
    more = ("--space", "x=0.1,0.2,0.3", "--sampler", "grid", "--warm-start", found["study"], "--try", "x=0.2")
    assert [trial["values"]["x"] for trial in result(studies.tune(*more))["trials"]] == [0.2]


def test_register_is_idempotent_and_takes_only_what_is_complete(studies: Studies) -> None:
    found = result(studies.tune(*X, "--trials", "2", "--no-register"))
    run = found["trials"][0]["run_id"]
    first = json.loads(studies.trainer("register", run, "--json").stdout)
    again = json.loads(studies.trainer("register", run, "--json").stdout)
    assert first == again
    assert (first["name"], first["version"]) == ("script", 1)
    assert f"{first['name']}:1" in studies.trainer("show", run).stdout
    other = json.loads(studies.trainer("register", run, "--model-name", "mine", "--json").stdout)
    assert other["name"] == "mine"


def test_a_picture_of_a_study(studies: Studies, tmp_path: Path) -> None:
    found = result(studies.tune(*X, "--space", "mode=plain,other", "--trials", "6", "--parallel", "2"))
    ran = studies.trainer("show", found["study"], "--plot", str(tmp_path / "study.png"))
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")
    assert "best so far" in ran.stdout
    assert "from each parameter's low end" in ran.stdout
    ran = studies.trainer("show", found["study"], "--plot", "study.txt")
    assert ran.returncode == 2


def test_a_script_sees_what_a_fresh_process_would_show_it(studies: Studies) -> None:
    text = """
import argparse, json, os, random, sys
from pathlib import Path
import numpy as np
import neighbour
from azureml.core.run import Run
argparse.ArgumentParser(allow_abbrev=False).parse_known_args()
Run.get_context().log("score", 1.0)
seen = {
    "argv": sys.argv, "path0": os.path.basename(sys.path[0]), "main": __name__, "file": os.path.basename(__file__),
    "cwd": os.path.basename(os.getcwd()), "leader": os.getsid(0) == os.getpid(), "stdin": sys.stdin.read(),
    "variable": os.environ["MARK"], "run": os.environ["TRAINER_RUN_DIR"], "neighbour": neighbour.__file__,
    "drawn": [float(np.random.rand()), random.random()], "registered": sys.modules["__main__"].__file__ == __file__,
    "pid": os.getpid(), "shown": Path("/proc/self/environ").read_bytes().decode().count(os.environ["TRAINER_RUN_DIR"]),
}
Path("outputs/seen.json").write_text(json.dumps(seen))
sys.exit("bad end" if "--x=2" in sys.argv else 0)
"""
    studies.script(text, "own.py")
    studies.script("", "neighbour.py")
    base = ("tune", "--script", "own.py", "--space", "x=1,2,3", "--sampler", "grid", "--metric", "score", "--json")
    seen = {}
    for way in ("", "--isolated"):
        found = result(studies.trainer(*base, *filter(None, [way]), env={"MARK": "here"}))
        assert [trial["state"] for trial in found["trials"]] == ["Completed", "Failed", "Completed"]
        assert found["trials"][1]["reason"] == "bad end (exit status 1)"
        assert (studies.runs / found["trials"][1]["run_id"] / "logs" / "std_log.txt").read_text().strip() == "bad end"
        seen[way] = [
            json.loads((studies.runs / trial["run_id"] / "outputs" / "seen.json").read_text())
            for trial in found["trials"]
        ]
        for trial, each in zip(found["trials"], seen[way], strict=True):
            assert each.pop("run") == str(studies.runs / trial["run_id"])
            assert each.pop("neighbour") == str(studies.runs / trial["run_id"] / "work" / "neighbour.py")
            assert each["shown"] == 1
    drawn = [tuple(each.pop("drawn")) for each in (*seen[""], *seen["--isolated"])]
    assert len({value for pair in drawn for value in pair}) == 2 * len(drawn)
    for each in (*seen[""], *seen["--isolated"]):
        each.pop("pid")
    assert seen[""] == seen["--isolated"]


def _is_pool(process: object, studies: Studies) -> bool:
    import psutil

    assert isinstance(process, psutil.Process)
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return "backends.local_pool" in words and str(studies.path) in " ".join(words)


def _session(pid: int) -> int:
    """The session of a process; 0 of one that is gone."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def _running(studies: Studies) -> int:
    try:
        trials = studies.study.trials().values()
    except (IndexError, OSError):
        return 0
    logs = [studies.runs / trial.run_id / "metrics.jsonl" for trial in trials if trial.state == "Running"]
    # Near their beginning: they are still running a moment later.
    return sum(log.exists() and log.read_bytes().count(b"\n") < 3 for log in logs)


def _until_running(studies: Studies, count: int) -> None:
    deadline = time.monotonic() + 120
    while _running(studies) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _until_ended(studies: Studies, count: int) -> None:
    deadline = time.monotonic() + 120
    while sum(line.state != "Running" for line in studies.lines()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_numbers_of_a_model_are_those_of_its_values(studies: Studies) -> None:
    found = result(studies.tune(*X, "--trials", "2"))
    model = studies.path / ".trainer" / "models" / "script" / "1" / "model.npz"
    assert float(np.load(model)["x"]) == found["best"]["values"]["x"]


def test_a_neighbour_that_is_imported_already_makes_every_trial_a_fresh_process(studies: Studies) -> None:
    (studies.path / "job").mkdir()
    studies.script("MARK = 'the neighbour'\n", "job/token.py")
    text = "import token\nfrom azureml.core.run import Run\nassert token.MARK\nRun.get_context().log('score', 1)\n"
    studies.script(text, "job/own.py")
    words = ("--space", "x=1,2", "--sampler", "grid", "--metric", "score")
    ran = studies.trainer("tune", "--script", "job/own.py", *words, "--json")
    # The script itself reads no flags, so both trials complete.
    assert [trial["state"] for trial in result(ran)["trials"]] == ["Completed"] * 2
    assert "Each trial is a fresh process: token has the name of a module that is imported already." in ran.stderr


def test_a_trial_is_resumed_as_any_run(studies: Studies) -> None:
    found = result(studies.tune_digits("--trials", "1", epochs=2))
    run = found["trials"][0]["run_id"]
    resumed = json.loads(studies.trainer("resume", run, "--json", "--", "--epochs", "3").stdout)
    assert resumed["status"] == "Completed"
    assert resumed["resumed_from"] == run
    # It is a run of its own, not a trial.
    listed = studies.trainer("runs").stdout
    assert resumed["run_id"] in listed
    assert run not in listed
    assert len(studies.study.trials()) == 1


def test_the_live_table_fits_a_narrow_terminal(studies: Studies) -> None:
    metric = "validation/main/accuracy"
    studies.script(f"from azureml.core.run import Run\nRun.get_context().log({metric!r}, 0.5)\n", "any.py")
    space = [word for name in ("rate", "hidden_units", "activation") for word in ("--space", f"{name}=0.12345,0.6789")]
    words = ["tune", "--script", "any.py", "--metric", metric, *space, "--trials", "1", "--no-register"]
    seen = COLOUR.sub("", run_on_terminal(studies, words, COLUMNS="70"))
    heads = {line.strip() for line in re.split(r"[\r\n]|\x1b\[2K", seen) if line.strip().startswith("TRIAL ")}
    # Whole columns: the last parameter, which has no room, is left out.
    assert heads
    for head in heads:
        assert head.split() == ["TRIAL", "rate", "hidden_units", "…MAIN/ACCURACY", "SO", "FAR", "STATE"]
