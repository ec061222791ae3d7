"""What becomes of a job whose node is taken away."""

from __future__ import annotations

from azureml_emulator.jobs.process import Attempt
from azureml_emulator.service import Service
from azureml_emulator.store.jobs import Job

LOG_FOLDERS = ("user_logs", "logs", "azureml-logs")
"""Folders whose files an attempt writes anew."""
# As Azure says it: Azure/MachineLearningNotebooks#1242, microsoft/MLOpsPython#346.
PREEMPTED = (
    "UserError",
    "AzureMLCompute job failed.\nPreemptionError: Nodes of this job got pre-empted. Check if the run has failed or"
    " restarted. Reason: Received pre-emption warning signal",
)
LOST = ("NodeLost", "The node that ran the job was lost.")


def has_lost_its_node(service: Service, job: Job, attempt: Attempt, now: float) -> bool:
    """Tell whether the time of a job that is to be evicted is over; its script is told first, if that was asked for."""
    if not attempt.is_claimed:
        # Its supervisor must not begin any more.
        return attempt.void()
    if job.notice == 0:
        return True
    if job.noticed_at is None:
        service.jobs.update(job.run_id, noticed_at=now)
        attempt.warn()
        return False
    return now >= job.noticed_at + job.notice


def error_of_eviction(service: Service, job: Job) -> tuple[str, str] | None:
    """Return code and message of the error with which an evicted run fails; None if it is queued again."""
    cluster = service.computes.find(job.compute)
    if cluster is None or cluster.spec.vm_priority.lower() != "lowpriority":
        return LOST
    return PREEMPTED if service.faults.current.evicted_runs_fail else None
