"""Runs on the emulator that lose their node, with and without a restart by the service."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from azureml_emulator import Endpoint, FaultAction, FaultRule
from backends.azure import restarts
from backends.azure.base import AzureBackend, workspace_ref
from backends.azure.sync import run_name
from backends.azure.v2.connection import open_connection
from backends.azure.v2.submit import RestClient
from backends.azureml import AzureMLBackend
from backends.azureml_v2 import AzureMLV2Backend
from backends.local import LocalBackend
from tests.backends import sdk_warnings
from tests.backends.local_runs import SECONDS, until
from trainer.errors import RefusedError
from trainer.handle import Run
from trainer.home import Home
from trainer.records import RunStatus
from trainer.submission import JobRequest, prepare, resume, submit

pytestmark = [sdk_warnings.IGNORED, pytest.mark.slow]
_PREEMPTED = (
    "AzureMLCompute job failed.\nPreemptionError: Nodes of this job got pre-empted. Check if the run has failed."
)
EPOCHS = 300
# One file of each name, and the name takes some care in a URL.
GOES_ON = """
import os, time
from pathlib import Path
state = Path("states", "50% \u00fc #1.txt")
earlier = os.environ.get("TRAINER_RESUME_DIR")
if earlier is None:
    path = Path("outputs", state)
    path.parent.mkdir(parents=True)
    path.with_name(".half").write_text("7")
    path.with_name(".half").rename(path)
    time.sleep(600)
print("attempt", os.environ["TRAINER_ATTEMPT"], "goes on from", Path(earlier, state).read_text(), flush=True)
"""
RANKS = """
import os, sys, time
from pathlib import Path
import numpy as np
from azureml.core.run import Run
from mpi4py import MPI
# Told of its checkpoint as a script that uses trainer.runtime's Checkpoint() and has an option "--resume".
EPOCH = "updater/iterator:main/epoch"
resume = os.environ.get("TRAINER_RESUME_DIR")
epoch = resume and int(np.load(resume + "/checkpoint.npz")[EPOCH])
print(sys.argv[1:], os.environ["TRAINER_ATTEMPT"], epoch, flush=True)
if not resume:
    if MPI.COMM_WORLD.rank == 0:
        np.savez("half.npz", **{EPOCH: 3})
        Path("half.npz").rename("outputs/checkpoint.npz")
        while "trainer_checkpoints/1/1.json" not in Run.get_context().get_file_names():
            time.sleep(0.1)
        print("saved", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, emulated: Callable[[Path], Home]) -> Home:
    return emulated(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def request_of_ours(tiny_data: Path) -> JobRequest:
    training = {"epochs": EPOCHS, "batchsize": 64, "units": 20, "device": "cpu", "seed": 3}
    return JobRequest(training=training, dataset=str(tiny_data))


@pytest.fixture(scope="module")
def expected(home: Home, request_of_ours: JobRequest) -> dict[str, bytes]:
    """The undisturbed run's model."""
    run = submit(prepare(request_of_ours, home), LocalBackend(home, {}), home)
    run.wait(SECONDS)
    return arrays(run)


@pytest.fixture(autouse=True)
def _no_faults(service: Endpoint) -> Iterator[None]:
    yield
    service.clear_faults()


def arrays(run: Run) -> dict[str, bytes]:
    with zipfile.ZipFile(run.file("model.npz")) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def low(home: Home, kind: type[AzureBackend] = AzureMLBackend, **options: object) -> AzureBackend:
    words = {"emulator": True, "compute": "low-cluster", "vm_priority": "lowpriority", "checkpoint_seconds": 1}
    return kind(home, {**words, **options})


def evict(service: Endpoint, run: Run, epochs: int) -> None:
    """Take the node away once so many epochs are known, and a checkpoint has arrived."""
    until(lambda: run.info().status.terminal or (len(run.metrics()) > 3 * epochs and checkpoints(run)), "the epochs")
    service.evict(run_name(run.folder.info()))


def checkpoints(run: Run) -> list[str]:
    """The checkpoints that have arrived."""
    info = run.folder.info()
    there = RestClient(open_connection(workspace_ref(info))).find_run(run_name(info))
    names = [] if there is None else there.get_file_names()
    return [name for name in names if re.fullmatch(r"trainer_checkpoints/\d+/\d+\.json", name)]


@pytest.mark.parametrize(
    ("code", "message", "lost"),
    [
        ("UserError", _PREEMPTED, True),
        ("NodeLost", "The node that ran the job was lost.", True),
        ("UserError", "User program failed with RuntimeError: I was preempted", False),
        ("JobFailed", "The process exited with code 3. See user_logs/std_log.txt.", False),
        ("", "", False),
    ],
)
def test_what_counts_as_a_lost_node(code: str, message: str, *, lost: bool) -> None:
    assert restarts.lost_its_node({"error": {"error": {"code": code, "message": message}}}) == lost
    assert not restarts.lost_its_node({"error": message})
    assert not restarts.lost_its_node({})


@pytest.mark.parametrize("kind", [AzureMLBackend, AzureMLV2Backend], ids=lambda kind: kind.name)
def test_a_run_that_the_service_restarts_goes_on(
    service: Endpoint, home: Home, request_of_ours: JobRequest, expected: dict[str, bytes], kind: type[AzureBackend]
) -> None:
    run = submit(prepare(request_of_ours, home), low(home, kind), home)
    evict(service, run, 8)
    info = run.wait(SECONDS)
    assert info.status is RunStatus.COMPLETED, run.folder.log_tail()
    assert arrays(run) == expected
    assert [metric.step for metric in run.metrics() if metric.name == "Accuracy"] == list(range(1, EPOCHS + 1))
    [restart] = info.restarts
    assert restart.epoch
    assert restart.text == f"attempt 2, from epoch {restart.epoch:g}: the node was lost"
    assert {metric.attempt for metric in run.metrics()} == {1, 2}
    assert "checkpoint.npz" in run.files()
    assert not [name for name in run.files() if "trainer_checkpoints" in name]
    assert info.detail["max_restarts"] == 3
    with pytest.raises(RefusedError, match="low-priority nodes, which can't be changed"):
        submit(prepare(request_of_ours, home), low(home, kind, vm_priority="dedicated"), home)


def test_a_script_of_the_users_goes_on_from_its_files_on_a_node_without_the_sdk(
    service: Endpoint, home: Home, tmp_path: Path
) -> None:
    service.set_faults(
        evicted_runs_fail=True,
        rules=[
            FaultRule(route="POST */batch/metadata", status=503, times=1),
            FaultRule(route="PUT */azureml/ExperimentRun/*", action=FaultAction.DROP_ANSWER, times=1),
        ],
    )
    script = tmp_path / "job" / "train.py"
    script.parent.mkdir()
    script.write_text(GOES_ON)
    request = JobRequest(script=script, dataset="none", model_name=None, checkpoints="states/*", max_restarts=1)
    backend = low(home, AzureMLV2Backend)
    run = submit(prepare(request, home), backend, home)
    until(lambda: checkpoints(run), "the upload")
    assert [rule.times for rule in service.faults().rules] == [0, 0]
    service.evict(run.run_id)
    info = run.wait(SECONDS)
    assert info.status is RunStatus.COMPLETED, (info.failure, run.folder.log_tail())
    assert info.detail["run"] == f"{run.run_id}-2"
    assert "attempt 2 goes on from 7" in "\n".join(run.logs())
    assert backend.open(workspace_ref(info)).find_run(f"{run.run_id}-3") is None


def test_ranks_that_the_service_restarts_go_on_from_one_checkpoint(
    service: Endpoint, home: Home, tmp_path: Path
) -> None:
    script = tmp_path / "job" / "train.py"
    script.parent.mkdir()
    script.write_text(RANKS)
    run = submit(prepare(JobRequest(script=script, model_name=None, processes_per_node=2), home), low(home), home)
    logs = [run.logs(follow=True, rank=rank) for rank in range(2)]
    assert [next(log) for log in logs] == ["[] 1 None"] * 2
    assert next(logs[0]) == "saved"
    service.evict(run.run_id)
    info = run.wait(SECONDS)
    assert info.status is RunStatus.COMPLETED, (info.failure, run.folder.log_tail())
    assert [restart.text for restart in info.restarts] == ["attempt 2, from epoch 3: the node was lost"]
    for rank in range(2):
        assert "['--resume', '_trainer_job/resume/checkpoint.npz'] 2 3" in list(run.logs(rank=rank))


def test_a_run_that_fails_is_sent_again_and_resumed_from_here(
    service: Endpoint, home: Home, request_of_ours: JobRequest, expected: dict[str, bytes]
) -> None:
    service.set_faults(evicted_runs_fail=True)
    training, dataset = request_of_ours.training, request_of_ours.dataset
    once = JobRequest(training=training, dataset=dataset, max_restarts=1, max_minutes=20)
    backend = low(home)
    run = submit(prepare(once, home), backend, home)
    evict(service, run, 8)
    until(lambda: run.info().restarts, "the second attempt")
    info = run.folder.info()
    assert info.detail["run"] == f"{run.run_id}-2"
    # The second attempt has what the first left of the cap.
    [(name, spent)] = info.detail["spent_seconds"].items()
    assert name == run.run_id
    assert 0 < spent < 1200
    again = backend.open(workspace_ref(info)).find_run(f"{run.run_id}-2")
    assert again is not None
    assert again.get_details()["runDefinition"]["maxRunDurationSeconds"] == round(1200 - spent)
    restart = run.folder.info().restarts[0]
    until(lambda: run.info().status.terminal or any(m.attempt == 2 for m in run.metrics()), "its first epoch")
    evict(service, run, int(restart.epoch or 0))
    info = run.wait(SECONDS)
    assert info.status is RunStatus.FAILED
    assert info.failure is not None
    assert info.failure.lost
    assert "PreemptionError" in info.failure.message
    assert len(info.restarts) == 1
    # By the command line, on this machine.
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "resume", run.run_id, "--backend", "local", "--no-logs"],
        env={**os.environ, "TRAINER_HOME": str(home.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    newest = Run(run.folder.__class__(max(home.runs.glob("2*"))), LocalBackend(home, {}))
    assert newest.info().resumed_from == run.run_id
    assert arrays(newest) == expected


def test_a_run_that_lost_its_node_before_its_first_checkpoint_says_so(
    service: Endpoint, home: Home, tmp_path: Path
) -> None:
    script = tmp_path / "job" / "train.py"
    script.parent.mkdir()
    script.write_text("import time\nprint('up', flush=True)\ntime.sleep(600)\n")
    request = JobRequest(script=script, model_name=None, checkpoints="checkpoints/*")
    run = submit(prepare(request, home), AzureMLBackend(home, {"emulator": True}), home)
    until(lambda: run.info().status is RunStatus.RUNNING, "the start")
    service.evict(run.run_id)
    info = run.wait(SECONDS)
    assert info.failure is not None
    assert info.failure.message.startswith("The node was lost: ")
    with pytest.raises(Exception, match="left no"):
        resume(run, ("--resume", "x"))
