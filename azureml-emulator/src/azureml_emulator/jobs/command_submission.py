"""Submitting a command job, as SDK v2 does: by putting it under a name."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from azureml_emulator.assets import arm_names
from azureml_emulator.errors import bad_request
from azureml_emulator.jobs.command import CommandPlan, JobBody, fixed_part
from azureml_emulator.jobs.files import check_files
from azureml_emulator.jobs.new_run import JOB, add_run
from azureml_emulator.jobs.submission import check_cluster, check_run_id
from azureml_emulator.service import Service
from azureml_emulator.store.jobs import Job
from azureml_emulator.store.runs import Run


def put_command(
    service: Service,
    name: str,
    document: dict[str, Any],
    *,
    parent: str | None = None,
    tags: dict[str, str] | None = None,
) -> tuple[Run, bool]:
    """Take in a command job and create its run.

    Putting the same job again changes its tags, names and description at most, and starts nothing: that is how a client
    repeats a submission whose answer was lost.

    Args:
        service: The emulator's state.
        name: The job's name, and its run's id.
        document: ARM's ``properties``.
        parent: The sweep that it is a trial of.
        tags: Further tags of its run.

    Returns:
        The run, and whether it is new.

    Raises:
        ServiceError: 400, the job can't be run here, or is another one than that which has the name; 404, something
            that it refers to is not there.
    """
    check_run_id(name)
    plan = CommandPlan.from_wire(name, document)
    job = plan.job
    with service.database.transaction():
        if (existing := is_repeated(service, name, fixed_part(document))) is not None:
            return update_mutable(service, existing, job), False
        checked = check_command(service, plan)
        run = add_run(
            service,
            JOB,
            name,
            job.experiment_name,
            parent=parent,
            properties={
                **job.properties,
                "_azureml.ComputeTargetType": "amlcompute",
                **({"ContentSnapshotId": checked.snapshot} if checked.snapshot else {}),
            },
            tags=job.tags | (tags or {}),
            target=checked.target,
            definition=run_configuration(plan, checked),
            **described(job),
        )
        service.command_jobs.add(name, document)
        ready = time.time() + service.settings.phase_duration
        service.jobs.add(
            Job(
                run_id=name,
                snapshot_id=checked.snapshot,
                compute=checked.target,
                nodes=plan.nodes,
                ready_at=ready,
            )
        )
        return run, True


@dataclass(frozen=True)
class Checked:
    """What a job refers to.

    Attributes:
        target: Its cluster.
        snapshot: Its code; "" if it has none.
        environment: Name and version.
    """

    target: str
    snapshot: str
    environment: list[str]


def check_command(service: Service, plan: CommandPlan) -> Checked:
    """See that a job can be run here, and find what it refers to.

    Raises:
        ServiceError: 400, it can't; 404, something that it refers to is not there.
    """
    target = _cluster(service, plan)
    snapshot = _snapshot(service, plan)
    environment = arm_names(service, plan.job.environment_id, "environments", "versions")
    service.versions.get("environments", *environment)
    check_files(service, plan)
    if plan.distributed:
        # Finds out now whether there is an mpiexec.
        plan.commands(service.state.jobs)
    return Checked(target, snapshot, environment)


def is_repeated(service: Service, name: str, fixed: dict[str, Any]) -> Run | None:
    """Return the run of a job that has been submitted before; None if the name is free.

    Raises:
        ServiceError: 400, the name is another job's.
    """
    existing = service.runs.find(name)
    if existing is None:
        return None
    known = service.command_jobs.find(name)
    if known is None or fixed_part(known) != fixed:
        raise bad_request(
            f"A job with this name already exists: {name}. What a job runs, on what and with what cannot be changed."
        )
    return existing


def described(job: JobBody) -> dict[str, Any]:
    """Return what a job's user says of it, as :func:`add_run` takes it."""
    return {"display_name": job.display_name, "description": job.description, "hidden": job.is_archived}


def update_mutable(service: Service, existing: Run, job: JobBody) -> Run:
    """Give a run what a second submission says about it."""

    def change(run: Run) -> None:
        run.tags |= job.tags
        run.properties |= job.properties
        run.display_name = job.display_name or run.display_name
        run.description = job.description or run.description
        run.hidden = job.is_archived

    return service.runs.update(existing.run_id, change)


def _cluster(service: Service, plan: CommandPlan) -> str:
    if plan.job.compute_id is None:
        raise bad_request("A job without a compute, which Azure runs serverless, is not emulated.", "NotEmulated")
    (target,) = arm_names(service, plan.job.compute_id, "computes")
    check_cluster(service, target, plan.nodes)
    return target


def _snapshot(service: Service, plan: CommandPlan) -> str:
    """Return the snapshot of a job's code; "" if it has none."""
    if plan.job.code_id is None:
        return ""
    code = service.versions.get("codes", *arm_names(service, plan.job.code_id, "codes", "versions"))
    found: str = code.detail["snapshot"]
    return found


def run_configuration(plan: CommandPlan, checked: Checked) -> dict[str, Any]:
    """Return what SDK v1 reads as the run's definition."""
    distribution = plan.job.distribution
    per_node = distribution.process_count_per_instance if distribution else 1
    return {
        "script": None,
        "command": plan.job.command,
        "arguments": [],
        "framework": "PyTorch" if distribution and distribution.distribution_type == "PyTorch" else "Python",
        "communicator": "IntelMpi" if distribution and distribution.distribution_type == "Mpi" else "None",
        "target": checked.target,
        "nodeCount": plan.nodes,
        "maxRunDurationSeconds": plan.cap,
        "mpi": {"processCountPerNode": per_node, "nodeCount": plan.nodes},
        "environment": dict(zip(("name", "version"), checked.environment, strict=True)),
        "environmentVariables": plan.environment_variables,
        "history": {"outputCollection": True, "directoriesToWatch": ["logs"]},
    }
