"""HyperDrive through the real SDK.

The nodes of the module's emulator take an hour to start, so a sweep's children wait in the queue, and the tests log for
them what their scripts would. What scripts have to do with it is in test_tuning.py.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from azureml_emulator import Settings, start_in_background
from tests.emulator.clients import PROGRAMS, Http, Sdk, SdkError

SETTINGS = Settings(phase_duration=0.0, node_start_duration=3600.0, sweep_seed=7)
JOB = str(PROGRAMS / "job")
GRID = ["GridParameterSampling", {"--lr": ["choice", 0.1, 0.2, 0.3, 0.4]}]


class Lab:
    """An emulator whose jobs wait for ever, and a client."""

    def __init__(self, directory: Path) -> None:
        self.state = directory / "state"
        self.endpoint = start_in_background(self.state, settings=SETTINGS)
        (directory / "client").mkdir()
        self.sdk = Sdk(self.endpoint, directory / "client")
        self._http = Http(self.endpoint)

    def crash(self) -> None:
        """Kill the emulator."""
        os.kill(self.endpoint.pid, signal.SIGKILL)
        while self.endpoint.is_alive():
            time.sleep(0.02)

    def start(self) -> None:
        """Start it again."""
        self.endpoint = start_in_background(self.state, settings=SETTINGS)

    def close(self) -> None:
        """End all of it; an open connection would keep the emulator waiting."""
        self.sdk.close()
        self._http.session.close()
        self.endpoint.stop()

    def log(self, run_id: str, *values: float, name: str = "Accuracy") -> None:
        """Log values in one request, as the SDK in a job does."""
        points = [{"metricId": str(uuid.uuid4()), "data": {name: value}} for value in values]
        series = {"name": name, "columns": {name: "double"}, "value": points}
        series["properties"] = {"uxMetricType": "azureml.v1.scalar"}
        path = f"/metric/v2.0{self._http.workspace}/runs/{run_id}/batch"
        # The SDK writes NaN as it is, which is no JSON.
        headers = {"Content-Type": "application/json"}
        assert self._http("POST", path, data=json.dumps({"values": [series]}), headers=headers).ok

    def sweep(self, total: int, **arguments: Any) -> list[str]:
        """Start a sweep, and return its run and its children, once they are there."""
        arguments = {"sampling": GRID, "total": total, "concurrent": total} | arguments
        run_id: str = self.sdk.sweep(source=JOB, **arguments)
        children = [f"{run_id}_{number}" for number in range(min(total, arguments["concurrent"]))]
        for child in children:
            self.wait(child, "Queued")
        return [run_id, *children]

    def statuses(self, *runs: str) -> list[str]:
        """Return the statuses of runs, "" of one that is not there. A tenth of the time that the SDK takes for it."""
        answers = [self._http("GET", f"/history/v1.0{self._http.workspace}/runs/{run_id}") for run_id in runs]
        return [answer.json()["status"] if answer.ok else "" for answer in answers]

    def wait(self, run_id: str, status: str) -> None:
        """Wait until a run has a status."""
        deadline = time.monotonic() + 600
        while self.statuses(run_id) != [status]:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def sweep_log(self, run_id: str) -> str:
        """Return a sweep's log."""
        text: str = self.sdk.log_text(run_id=run_id, name="azureml-logs/hyperdrive.txt")
        return text


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The module's emulator and client."""
    made = Lab(tmp_path_factory.mktemp("sweeps"))
    yield made
    assert made.endpoint.unknown_requests() == []
    made.close()


# Early termination


def test_bandit_does_not_compare_a_run_with_later_values_of_another(lab: Lab) -> None:
    policy = ["BanditPolicy", {"evaluation_interval": 1, "slack_factor": 0.1, "delay_evaluation": 2}]
    run, old, young, bad = lab.sweep(3, policy=policy)
    lab.log(old, 0.3, 0.44, 0.57, 0.73, 0.9)
    lab.log(young, 0.3, 0.44, 0.57)
    # Not judged before the delay, 2. The second value is better than 0.44 / 1.1, the third worse than 0.57 / 1.1.
    lab.log(bad, 0.1, 0.41, 0.42)
    lab.wait(bad, "Canceled")
    assert lab.statuses(old, young) == ["Queued", "Queued"]
    lab.log(young, 0.58)
    lab.wait(young, "Canceled")
    assert lab.statuses(run, old) == ["Running", "Queued"]
    log = lab.sweep_log(run)
    assert f"Bandit stopped {bad} at interval 3: Accuracy was 0.42, and 0.518182 was needed." in log
    assert f"Bandit stopped {young} at interval 4: Accuracy was 0.58, and 0.663636 was needed." in log


def test_intervals_that_came_together_are_each_judged_once(lab: Lab) -> None:
    policy = ["BanditPolicy", {"evaluation_interval": 2, "slack_amount": 0.1, "delay_evaluation": 3}]
    run, good, late = lab.sweep(2, policy=policy)
    lab.log(good, 0.9)
    lab.log(late, 0.1)
    lab.log(good, *[0.9] * 8)
    # At 2 the delay is not over; 4 was passed, and its best value up to there is too low, though the fifth is not.
    lab.log(late, 0.1, 0.1, 0.1, 0.9)
    lab.wait(late, "Canceled")
    assert f"stopped {late} at interval 4" in lab.sweep_log(run)
    assert lab.statuses(good) == ["Queued"]


def test_the_other_policies(lab: Lab) -> None:
    run, *children = lab.sweep(3, policy=["MedianStoppingPolicy", {"evaluation_interval": 1}], goal="MINIMIZE")
    for child, values in zip(children, ([0.5, 0.3], [0.5, 0.4], [0.6, 0.9]), strict=True):
        lab.log(child, *values)
    lab.wait(children[2], "Canceled")
    assert lab.statuses(*children[:2]) == ["Queued", "Queued"]
    policy = ["TruncationSelectionPolicy", {"truncation_percentage": 50, "evaluation_interval": 2}]
    # Two only, for of two the worse is stopped, whether they are looked at together or one after the other.
    run, good, bad = lab.sweep(2, policy=policy)
    lab.log(good, 0.1, 0.5)
    lab.log(bad, 0.9, 0.1)
    lab.wait(bad, "Canceled")
    assert lab.statuses(good) == ["Queued"]
    assert f"TruncationSelection stopped {bad} at interval 2" in lab.sweep_log(run)
    assert lab.sdk.settings_of(run_id=run)["policy"]["properties"]["truncation_percentage"] == 50


# Samples


def test_a_seed_makes_samples_repeatable(lab: Lab) -> None:
    sampling = ["RandomParameterSampling", {"--lr": ["loguniform", -6, -1], "--batchsize": ["choice", 64, 128]}]
    found = []
    for _ in range(2):
        run, *children = lab.sweep(3, sampling=sampling)
        parameters = lab.sdk.hyperparameters(run_id=run)
        found.append([parameters[child] for child in children])
        arguments = [lab.sdk.arguments_of(run_id=child) for child in children]
        assert arguments == [["--lr", each["--lr"], "--batchsize", each["--batchsize"]] for each in found[-1]]
    assert found[0] == found[1]
    assert len({each["--lr"] for each in found[0]}) == 3


def test_bayesian_sampling_draws_one_run_after_another(lab: Lab) -> None:
    space = {"--lr": ["uniform", 0, 1], "--batchsize": ["quniform", 16, 64, 16], "--name": ["choice", "a", "b"]}
    run, *_ = lab.sweep(3, sampling=["BayesianParameterSampling", space], concurrent=1)
    for number in range(3):
        child = f"{run}_{number}"
        lab.wait(child, "Queued")
        lab.log(child, 0.5 + number / 10)
        lab.sdk.cancel(run_id=child)
    lab.wait(run, "Completed")
    result = lab.sdk.sweep_result(run_id=run)
    assert result["best"] == f"{run}_2"
    for values in result["hyperparameters"].values():
        assert 0 <= values["--lr"] <= 1
        assert values["--batchsize"] in (16, 32, 48, 64)
        assert values["--name"] in ("a", "b")
    assert len({values["--lr"] for values in result["hyperparameters"].values()}) == 3


# The best run


def test_the_parent_says_which_child_is_the_best(lab: Lab) -> None:
    run, one, other, third = lab.sweep(3)
    assert lab.sdk.best_run(run_id=run) is None
    lab.log(one, 0.5)
    lab.log(third, float("nan"))
    _wait_for_best(lab, run, one)
    lab.log(other, 0.8, 0.2)
    _wait_for_best(lab, run, other)
    lab.log(one, 0.7)
    lab.sdk.cancel_sweep(run_id=run)
    lab.wait(run, "Canceled")
    assert lab.statuses(one, other, third) == ["Canceled"] * 3
    table = lab.sdk.parent_metrics(run_id=run)["best_child_by_primary_metric"]
    assert table["metric_name"] == ["Accuracy"] * 3
    assert table["run_id"] == [one, other, other]
    assert table["metric_value"] == [0.5, 0.8, 0.8]
    assert table["final"] == [False, False, True]
    lab.endpoint.clear_requests()
    assert lab.sdk.best_run(run_id=run) == other
    asked = [request.path for request in lab.endpoint.recorded_requests() if request.path.endswith("/full")]
    assert [path.split("/")[-2] for path in asked] == [run], "it took the children's metrics to find the best"
    # Without cancelled runs there is none.
    assert lab.sdk.best_run(run_id=run, include_canceled=False) is None
    metrics = lab.sdk.sweep_result(run_id=run)["metrics"]
    assert metrics[one] == {"Accuracy": [0.5, 0.7]}
    assert math.isnan(metrics[third]["Accuracy"])


def _wait_for_best(lab: Lab, run: str, child: str) -> None:
    deadline = time.monotonic() + 600
    while (found := lab.sdk.parent_metrics(run_id=run).get("best_child_by_primary_metric")) is None or (
        child not in found["run_id"]
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)


# Resuming


def test_resume_from_counts_the_runs_of_earlier_sweeps(lab: Lab) -> None:
    first, old = lab.sweep(1)
    lab.log(old, 0.8, 0.9)
    lab.sdk.cancel(run_id=old)
    lab.wait(first, "Completed")
    policy = ["BanditPolicy", {"slack_factor": 0.2}]
    run, good, bad = lab.sweep(2, policy=policy, resume_from=[first])
    lab.log(good, 0.7)
    lab.log(bad, 0.6)
    lab.wait(bad, "Canceled")
    assert lab.statuses(good) == ["Queued"]
    # Found again by its id, the run still knows what it was resumed from.
    assert lab.sdk.settings_of(run_id=run)["resume_from"] == [first]
    assert lab.sdk.best_run(run_id=run) == old
    assert lab.sdk.best_run(run_id=run, include_resume_from_runs=False) == good
    with pytest.raises(SdkError, match="completed or canceled"):
        lab.sdk.sweep(source=JOB, sampling=GRID, resume_from=[run])


def test_resumed_children_come_first_with_their_parameters(lab: Lab) -> None:
    first, *old = lab.sweep(3)
    lab.sdk.cancel_sweep(run_id=first)
    lab.wait(first, "Canceled")
    parameters = lab.sdk.hyperparameters(run_id=first)
    sampling = ["RandomParameterSampling", {"--lr": ["uniform", 0.5, 1]}]
    run, *new = lab.sweep(3, sampling=sampling, resume_child_runs=[old[2], old[0]])
    found = lab.sdk.hyperparameters(run_id=run)
    assert [found[child] for child in new[:2]] == [parameters[old[2]], parameters[old[0]]]
    assert found[new[2]]["--lr"] >= 0.5
    assert lab.sdk.settings_of(run_id=run)["resume_child_runs"] == [old[2], old[0]]


# The parent run


def test_a_sweep_sent_again_with_its_id_is_the_first_one(lab: Lab) -> None:
    name = "my-sweep"
    assert lab.sweep(2, custom_run_id=name) == [name, f"{name}_0", f"{name}_1"]
    assert lab.sdk.sweep(source=JOB, sampling=GRID, total=2, concurrent=2, custom_run_id=name) == name
    assert sorted(lab.sdk.children(run_id=name)) == [f"{name}_0", f"{name}_1"]
    with pytest.raises(SdkError, match=f"Run {name} already exists and is another sweep"):
        lab.sdk.sweep(source=JOB, sampling=GRID, total=3, concurrent=2, custom_run_id=name)
    with pytest.raises(SdkError, match="not a valid run id"):
        lab.sdk.sweep(source=JOB, sampling=GRID, custom_run_id=" my sweep")


def test_a_sweep_may_be_a_child_and_be_cancelled_as_any_run(lab: Lab) -> None:
    parent = lab.sdk.start_parent(experiment="sweeps")
    run, child = lab.sweep(1, child_of=parent)
    assert lab.sdk.parent_of(run_id=run) == parent
    lab.sdk.cancel_as_any_run(run_id=run)
    lab.wait(run, "Canceled")
    assert lab.statuses(child) == ["Canceled"]


def test_a_sweep_that_can_t_go_on_says_why(lab: Lab) -> None:
    run, one, other = lab.sweep(4, concurrent=2, target="short-lived")[:3]
    lab.log(one, 0.5)
    _wait_for_best(lab, run, one)
    lab.sdk.delete_cluster(name="short-lived")
    lab.wait(run, "Failed")
    assert {*lab.statuses(one, other)} <= {"Failed", "Canceled"}
    error = lab.sdk.details(run_id=run)["error"]["error"]
    assert error["message"] == "Compute target short-lived is not in the workspace."
    assert lab.sdk.best_run(run_id=run) == one


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"command": ["python", "train.py"]}, "Sweeps of a command are not emulated"),
        ({"sampling": ["RandomParameterSampling", {"--a": ["choice", 1]}, {"x": 1}]}, "generator_config.properties"),
        ({"sampling": ["RandomParameterSampling", {"--a": ["choice", [[1], [2]]]}]}, "takes a list of texts and"),
        (
            {
                "sampling": ["BayesianParameterSampling", {"--a": ["uniform", 0, 1]}],
                "policy": ["MedianStoppingPolicy", {}],
            },
            "Bayesian sampling does not support early termination",
        ),
        ({"policy": ["BanditPolicy", {"slack_factor": 0.1, "evaluation_interval": 0}]}, "greater than or equal to 1"),
        ({"debug_flag": {"x": 1}}, "_debug_flag: is not emulated"),
    ],
)
def test_what_is_not_emulated_is_refused_where_the_user_sees_it(
    lab: Lab, arguments: dict[str, Any], reason: str
) -> None:
    with pytest.raises(SdkError, match=reason):
        lab.sdk.sweep(source=JOB, **({"sampling": GRID} | arguments))


# The emulator's end


def test_sweeps_survive_their_emulator_and_end_with_their_time(lab: Lab) -> None:
    policy = ["BanditPolicy", {"slack_amount": 0.1}]
    run, one, other = lab.sweep(4, policy=policy, concurrent=2)
    short, child = lab.sweep(1, max_duration_minutes=1)
    lab.log(one, 0.5)
    lab.log(child, 0.4)
    _wait_for_best(lab, run, one)
    lab.crash()
    _let_time_pass(lab, short)
    lab.start()
    # Nothing has been forgotten or done twice: the second run is compared with what the first had logged before.
    assert lab.statuses(run, one, other) == ["Running", "Queued", "Queued"]
    lab.log(other, 0.3)
    lab.wait(other, "Canceled")
    # Its place is taken by the third run, and by no other.
    lab.wait(f"{run}_2", "Queued")
    assert lab.statuses(f"{run}_3") == [""]
    log = lab.sweep_log(run)
    assert [log.count(f"Started {run}_{number} ") for number in range(4)] == [1, 1, 1, 0]
    assert log.count("stopped") == 1
    lab.wait(short, "Canceled")
    assert lab.statuses(child) == ["Canceled"]
    (warning,) = lab.sdk.details(run_id=short)["warnings"]
    assert warning["message"] == "The sweep reached its maximum duration, 1 minute."
    assert lab.sdk.best_run(run_id=short) == child


def _let_time_pass(lab: Lab, run: str) -> None:
    """Let a sweep's time be over, while its emulator is away."""
    database = sqlite3.connect(lab.state / "emulator.db")
    database.execute("UPDATE sweeps SET doc = json_set(doc, '$.deadline', 1.0) WHERE run_id = ?", (run,))
    database.commit()
    database.close()
