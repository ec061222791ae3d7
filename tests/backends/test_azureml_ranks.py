"""Jobs of several ranks on Azure ML, which the emulator starts by mpiexec as the service does."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from backends.azure.base import AzureBackend
from backends.local import LocalBackend
from tests.backends import sdk_warnings
from tests.backends.local_runs import gone
from tests.contract.backend_contract import arrays
from trainer.errors import RefusedError
from trainer.handle import Run
from trainer.home import Home
from trainer.records import RunStatus
from trainer.submission import JobRequest, prepare, submit

pytestmark = sdk_warnings.IGNORED
ENDS = """
import os, sys, time
from mpi4py import MPI
print(os.getpid(), flush=True)
if MPI.COMM_WORLD.rank == 1:
    if sys.argv[1] == "raise":
        raise ValueError("no such thing")
    if sys.argv[1] == "leave":
        os._exit(4)
    if sys.argv[1] == "kill":
        os.kill(os.getpid(), 9)
    time.sleep(600)
MPI.COMM_WORLD.allreduce(1)
"""


def test_more_nodes_than_the_cluster_has_are_refused(either: AzureBackend, azure_home: Home, tiny_data: Path) -> None:
    prepared = prepare(JobRequest(dataset=str(tiny_data)), azure_home)
    job = prepared.job
    either.check(job)
    with pytest.raises(RefusedError, match="4 nodes at most, and the job needs 9"):
        either.check(msgspec.structs.replace(job, nodes=9))
    two = msgspec.structs.replace(job, nodes=2, processes_per_node=3)
    assert either.check_ranks(two) == ()
    details = either.plan(two, prepared.snapshot).details
    assert details["ranks"] == "6, 3 on each node"
    assert details["each_batch"].startswith("22 examples for 2 of the ranks, 21 for each other")


@pytest.mark.slow
def test_ranks_train_and_report_as_one(either: AzureBackend, azure_home: Home, tiny_data: Path) -> None:
    training = {"epochs": 3, "batchsize": 64, "device": "cpu", "seed": 1}
    request = JobRequest(training=training, dataset=str(tiny_data), nodes=2, processes_per_node=1)
    run = submit(prepare(request, azure_home), either, azure_home)
    info = run.wait(timeout=600)
    assert info.status is RunStatus.COMPLETED, (info, list(run.logs()))
    assert info.model is not None
    assert [metric.step for metric in run.metrics() if metric.name == "Accuracy"] == [1, 2, 3]
    assert json.loads((run.folder.outputs / "environment.json").read_bytes())["ranks"] == 2
    assert "rank 1 of 2" in run.folder.read_log(rank=1).decode()
    here = submit(prepare(request, azure_home), LocalBackend(azure_home, {}), azure_home)
    assert here.wait(timeout=600).status is RunStatus.COMPLETED
    assert {name: array.tobytes() for name, array in arrays(run).items()} == {
        name: array.tobytes() for name, array in arrays(here).items()
    }


@pytest.mark.slow
def test_a_rank_ends_the_job(either: AzureBackend, azure_home: Home, tmp_path: Path) -> None:
    script = tmp_path / "job" / "train.py"
    script.parent.mkdir()
    script.write_text(ENDS)

    def start(end: str) -> Run:
        asked = JobRequest(script=script, script_args=(end,), model_name=None, processes_per_node=2, max_minutes=10)
        return submit(prepare(asked, azure_home), either, azure_home)

    runs = {end: start(end) for end in ("wait", "raise", "leave", "kill")}
    pids = [int(next(runs["wait"].logs(follow=True, rank=rank))) for rank in range(2)]
    runs["wait"].cancel()
    infos = {end: run.wait(timeout=600) for end, run in runs.items()}
    assert infos.pop("wait").status is RunStatus.CANCELED
    assert all(gone(pid) for pid in pids)
    assert {end: info.failure.message for end, info in infos.items() if info.failure} == {
        "raise": "rank 1: ValueError: no such thing",
        "leave": "rank 1: The script ended with exit status 4.",
        "kill": "rank 1: The script was ended by SIGKILL, possibly out of memory.",
    }
    failure = infos["raise"].failure
    assert failure is not None
    assert any("Traceback" in line for line in failure.log_tail)
