"""HyperDrive with scripts that run: the notebook's sweep, and what a script sees of one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from azureml_emulator import Endpoint
from tests.emulator.clients import PROGRAMS, Sdk, client_environment

LR_AND_BATCHES = {"--lr": ["choice", 0.1, 0.2], "--batchsize": ["choice", 64, 128]}
CHECKPOINTS = """\
import argparse, pathlib
from azureml.core import Run

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float)
parser.add_argument("--resume-from", type=pathlib.Path)
arguments = parser.parse_args()
start = 0
if arguments.resume_from is not None:
    start = int((arguments.resume_from / "checkpoints" / "last.txt").read_text())
run = Run.get_context(allow_offline=False)
run.log("Accuracy", start + arguments.lr)
pathlib.Path("outputs/checkpoints").mkdir(parents=True)
pathlib.Path("outputs/checkpoints/last.txt").write_text(str(start + 1))
"""


@pytest.mark.slow
def test_the_notebook_s_tuning_cells(emulator: Endpoint, sdk: Sdk, tmp_path: Path) -> None:
    emulator.write_config(tmp_path)
    result = subprocess.run(
        [sys.executable, str(PROGRAMS / "tuning.py"), str(PROGRAMS / "job"), "STANDARD_NC6"],
        cwd=tmp_path,
        env=client_environment(emulator),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Streaming azureml-logs/hyperdrive.txt" in result.stdout
    lines = result.stdout.splitlines()
    (registered,) = (line for line in lines if line.startswith("chainer-dnn-mnist\t"))
    children = {line.split("\t")[0]: line.split("\t") for line in lines if line.startswith("HD_")}
    assert len(children) == 8
    # The curves are the same for all, so no policy has a reason to stop one.
    assert {child[3] for child in children.values()} == {"Completed"}
    best = registered.split("\t")[3]
    assert float(children[best][2]) == max(float(child[2]) for child in children.values())
    # Another program finds the same.
    found = sdk.sweep_result(run_id=best.rpartition("_")[0])
    assert (found["type"], found["status"], found["best"]) == ("HyperDriveRun", "Completed", best)
    assert found["sorted"] == list(children)
    assert set(found["hyperparameters"]) == set(found["metrics"]) == set(children)
    for child, values in found["hyperparameters"].items():
        assert values["--batchsize"] in (128, 256)
        assert values["--epochs"] in (5, 10, 20, 40)
        assert found["metrics"][child]["Batch size"] == values["--batchsize"]
        assert len(found["metrics"][child]["Accuracy"]) == values["--epochs"]
        assert float(children[child][2]) == max(found["metrics"][child]["Accuracy"])


@pytest.mark.slow
def test_bandit_stops_a_bad_run(sdk: Sdk, job_source: str) -> None:
    sweep = sdk.sweep(
        source=job_source,
        arguments=["--epochs", 8, "--sleep", 1],
        sampling=["GridParameterSampling", {"--lr": ["choice", 0.01, 0.9]}],
        policy=["BanditPolicy", {"evaluation_interval": 1, "slack_amount": 0.05, "delay_evaluation": 2}],
        total=2,
    )
    assert sdk.wait(run_id=sweep, timeout=200) == "Completed"
    result = sdk.sweep_result(run_id=sweep)
    assert result["children"] == {f"{sweep}_0": "Completed", f"{sweep}_1": "Canceled"}
    assert result["best"] == f"{sweep}_0"


def test_a_grid_covers_the_space_and_can_be_cancelled(sdk: Sdk, job_source: str) -> None:
    sweep = sdk.sweep(
        source=job_source,
        arguments=["--epochs", 1000, "--sleep", 1],
        sampling=["GridParameterSampling", LR_AND_BATCHES],
        total=10,
        concurrent=4,
    )
    sdk.wait_for(run_id=f"{sweep}_3", statuses=["Running"])
    sdk.cancel_sweep(run_id=sweep)
    assert sdk.wait(run_id=sweep) == "Canceled"
    result = sdk.sweep_result(run_id=sweep)
    assert set(result["children"].values()) == {"Canceled"}
    points = {(values["--lr"], values["--batchsize"]) for values in result["hyperparameters"].values()}
    assert points == {(0.1, 64), (0.1, 128), (0.2, 64), (0.2, 128)}


@pytest.mark.slow
def test_a_resumed_child_goes_on_from_what_the_earlier_one_left(sdk: Sdk, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(CHECKPOINTS)
    sampling = ["GridParameterSampling", {"--lr": ["choice", 0.25]}]
    first = sdk.sweep(source=str(tmp_path), sampling=sampling, total=1)
    assert sdk.wait(run_id=first) == "Completed"
    again = sdk.sweep(source=str(tmp_path), sampling=sampling, total=1, resume_child_runs=[f"{first}_0"])
    assert sdk.wait(run_id=again) == "Completed"
    assert sdk.metrics(run_id=f"{again}_0") == {"Accuracy": 1.25}
    log = sdk.log_text(run_id=again, name="azureml-logs/hyperdrive.txt")
    assert f"to go on from the outputs of {first}_0" in log
    # The earlier run's files are not the new one's own.
    assert [name for name in sdk.files(run_id=f"{again}_0") if "last" in name] == ["outputs/checkpoints/last.txt"]
