"""What a client asks for: submitting a job, cancelling a run."""

from __future__ import annotations

import re
import time
from typing import Any

from azureml_emulator.errors import ServiceError, bad_request, not_found
from azureml_emulator.jobs.local import TARGET as LOCAL_TARGET
from azureml_emulator.jobs.local import invocation
from azureml_emulator.jobs.new_run import JOB, add_run
from azureml_emulator.jobs.plan import JobPlan
from azureml_emulator.jobs.process import Attempt, prepare_job
from azureml_emulator.service import Service
from azureml_emulator.store.jobs import Job, JobState
from azureml_emulator.store.runs import Run, RunStatus

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,254}")


def check_run_id(run_id: str) -> str:
    """Return a run id if it may become the name of a directory.

    Raises:
        ServiceError: 400.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise bad_request(f"{run_id!r} is not a valid run id.")
    return run_id


def submit(
    service: Service,
    *,
    experiment: str,
    run_id: str,
    configuration: dict[str, Any],
    snapshot_id: str | None,
    parent_run_id: str | None = None,
    tags: dict[str, str] | None = None,
    resume_from: str | None = None,
) -> Run:
    """Take in a job and create its run.

    With ``resume_from``, a run's id, the script finds what that run has left in ./outputs where ``--resume-from`` says.

    The client chooses the run's id, so that a submission whose answer was lost can be repeated: the second one gets
    the first one's run and starts nothing.

    Raises:
        ServiceError: 400, the job can't be run here; 404, no such cluster or snapshot; 409, the id belongs to
            another job.
    """
    plan = JobPlan.from_wire(configuration)
    check_run_id(run_id)
    target = plan.configuration.target
    is_local = snapshot_id is None
    if not is_local:
        check_cluster(service, target, plan.nodes)
    if plan.distributed:
        # Finds out now whether there is an mpiexec.
        plan.commands(service.state.jobs)
    if snapshot_id is not None:
        service.snapshots.files(snapshot_id)
    with service.database.transaction():
        found = service.runs.ensure_experiment(experiment)
        existing = service.runs.find(run_id)
        if existing is not None:
            if existing.run_definition == configuration and existing.experiment_id == found.experiment_id:
                return existing
            raise ServiceError(409, "RunAlreadyExists", f"Run {run_id} already exists and is another job.")
        run = add_run(
            service,
            JOB,
            run_id,
            experiment,
            parent=parent_run_id,
            properties={
                "_azureml.ComputeTargetType": LOCAL_TARGET if is_local else "amlcompute",
                **({} if snapshot_id is None else {"ContentSnapshotId": snapshot_id}),
            },
            tags=tags or {},
            script=plan.configuration.script,
            target=target,
            definition=configuration,
        )
        job = Job(
            run_id=run_id,
            snapshot_id=snapshot_id or "",
            compute=target,
            nodes=plan.nodes,
            resume_from=resume_from,
        )
        if is_local:
            # The client's processes are not the emulator's to queue; it begins where a cluster's job has been started.
            changes: dict[str, object] = {"state": JobState.RUNNING, "attempt": 1, "started_at": time.time()}
        else:
            changes = {"ready_at": time.time() + service.settings.phase_duration}
        service.jobs.add(job.model_copy(update=changes))
        return run


def submit_local(
    service: Service,
    *,
    experiment: str,
    run_id: str,
    configuration: dict[str, Any],
    parent_run_id: str | None = None,
) -> bytes:
    """Take in a run that the client itself will start.

    Returns:
        A ZIP file with the script that starts it.

    Raises:
        ServiceError: 400, the run can't be prepared; 409, the id belongs to another one.
    """
    if configuration.get("target") != LOCAL_TARGET:
        raise bad_request(f"Only runs on the target {LOCAL_TARGET} are started by their client.")
    run = submit(
        service,
        experiment=experiment,
        run_id=run_id,
        configuration=configuration,
        snapshot_id=None,
        parent_run_id=parent_run_id,
    )
    job = service.jobs.find(run.run_id)
    if job is None:
        raise not_found("Job", run.run_id)
    attempt = Attempt(service.state.jobs / run.run_id / str(job.attempt))
    prepare_job(service, job, attempt, extract=False)
    return invocation(attempt)


def check_cluster(service: Service, target: str, nodes: int) -> None:
    """See that a cluster can run a job.

    Raises:
        ServiceError: 400, there is no such cluster, or it has fewer nodes.
    """
    cluster = service.computes.find(target)
    if cluster is None:
        raise bad_request(f"Compute target {target} is not in the workspace.", "ComputeTargetNotFound")
    most = cluster.spec.scale_settings.max_node_count
    if nodes > most:
        raise bad_request(
            f"The run asks for {nodes} nodes, and cluster {target} has {most} at most.", "NodeCountExceeded"
        )


def request_cancel(service: Service, run_id: str) -> None:
    """Ask for the cancellation of a run. Asking again, or after its end, changes nothing.

    Raises:
        ServiceError: 404.
    """
    run = service.runs.get(run_id)
    if run.status.is_final:
        return
    job = service.jobs.find(run_id)
    if job is not None:
        if not job.cancel:
            service.jobs.update(run_id, cancel=True)
    else:
        service.runs.set_status(run_id, RunStatus.CANCELED)
