"""Jobs of several ranks on Azure ML, which the emulator starts by mpiexec as the service does."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from backends.azure.base import AzureBackend
from backends.local import LocalBackend
from tests.backends import sdk_warnings
from tests.contract.backend_contract import arrays
from trainer.errors import RefusedError
from trainer.home import Home
from trainer.records import RunStatus
from trainer.submission import JobRequest, prepare, submit

pytestmark = sdk_warnings.IGNORED
ENDS = """
import sys
from mpi4py import MPI
print("rank", MPI.COMM_WORLD.rank, flush=True)
if MPI.COMM_WORLD.rank == 1:
    raise ValueError("no such thing")
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
    assert "rank 1 of 2" in (run.folder.logs / "user_logs_std_log_process_1.txt").read_text()
    here = submit(prepare(request, azure_home), LocalBackend(azure_home, {}), azure_home)
    assert here.wait(timeout=600).status is RunStatus.COMPLETED
    assert {name: array.tobytes() for name, array in arrays(run).items()} == {
        name: array.tobytes() for name, array in arrays(here).items()
    }


@pytest.mark.slow
def test_the_rank_that_ends_badly_is_named(either: AzureBackend, azure_home: Home, tmp_path: Path) -> None:
    script = tmp_path / "job" / "train.py"
    script.parent.mkdir()
    script.write_text(ENDS)
    request = JobRequest(script=script, dataset="none", model_name=None, processes_per_node=2, max_minutes=2)
    info = submit(prepare(request, azure_home), either, azure_home).wait(timeout=600)
    assert info.failure is not None
    assert (info.status, info.failure.message) == (RunStatus.FAILED, "rank 1: ValueError: no such thing")
    assert any("Traceback" in line for line in info.failure.log_tail)
