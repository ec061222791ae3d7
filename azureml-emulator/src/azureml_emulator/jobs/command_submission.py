"""Submitting a command job, as SDK v2 does: by putting it under a name."""

from __future__ import annotations

import time
from typing import Any

from azureml_emulator.assets import arm_names
from azureml_emulator.errors import bad_request
from azureml_emulator.jobs.command import CommandPlan, fixed_part
from azureml_emulator.jobs.files import check_files
from azureml_emulator.jobs.submission import check_cluster, check_run_id
from azureml_emulator.service import Service
from azureml_emulator.store.jobs import Job
from azureml_emulator.store.runs import Run, RunStatus, RunTypeV2
from azureml_emulator.times import utc_now


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
        existing = service.runs.find(name)
        if existing is not None:
            return _repeat(service, existing, plan, document), False
        target = _cluster(service, plan)
        snapshot = _snapshot(service, plan)
        environment = arm_names(service, job.environment_id, "environments", "versions")
        service.versions.get("environments", *environment)
        check_files(service, plan)
        if plan.distributed:
            # Finds out now whether there is an mpiexec.
            plan.commands(service.state.jobs)
        experiment = service.runs.ensure_experiment(job.experiment_name)
        run = service.runs.add(
            Run(
                run_id=name,
                run_number=0,
                root_run_id=service.runs.get(parent).root_run_id if parent else name,
                parent_run_id=parent,
                experiment_id=experiment.experiment_id,
                data_container_id=f"dcid.{name}",
                status=RunStatus.PREPARING,
                created_utc=utc_now(),
                display_name=job.display_name or name,
                description=job.description,
                hidden=job.is_archived,
                run_type="azureml.scriptrun",
                run_type_v2=RunTypeV2(orchestrator="Execution"),
                properties={
                    **job.properties,
                    "_azureml.ComputeTargetType": "amlcompute",
                    "azureml.runsource": "azureml.scriptrun",
                    **({"ContentSnapshotId": snapshot} if snapshot else {}),
                },
                tags=job.tags | (tags or {}),
                target=target,
                run_definition=_run_configuration(plan, target, environment),
                cancel_uri=(
                    f"{service.base_url}/execution/v1.0{service.settings.workspace_path}"
                    f"/experiments/{job.experiment_name}/runId/{name}/cancel"
                ),
            )
        )
        service.command_jobs.add(name, document)
        ready = time.time() + service.settings.phase_duration
        service.jobs.add(Job(run_id=name, snapshot_id=snapshot, compute=target, nodes=plan.nodes, ready_at=ready))
        return run, True


def _repeat(service: Service, existing: Run, plan: CommandPlan, document: dict[str, Any]) -> Run:
    known = service.command_jobs.find(existing.run_id)
    if known is None or fixed_part(known) != fixed_part(document):
        raise bad_request(
            f"A job with this name already exists: {existing.run_id}. What a job runs, on what and with what cannot be "
            "changed.",
            "UserError",
        )

    def change(run: Run) -> None:
        run.tags |= plan.job.tags
        run.properties |= plan.job.properties
        run.display_name = plan.job.display_name or run.display_name
        run.description = plan.job.description or run.description
        run.hidden = plan.job.is_archived

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


def _run_configuration(plan: CommandPlan, target: str, environment: list[str]) -> dict[str, Any]:
    """Return what SDK v1 reads as the run's definition."""
    distribution = plan.job.distribution
    per_node = distribution.process_count_per_instance if distribution else 1
    return {
        "script": None,
        "command": plan.job.command,
        "arguments": [],
        "framework": "PyTorch" if distribution and distribution.distribution_type == "PyTorch" else "Python",
        "communicator": "IntelMpi" if distribution and distribution.distribution_type == "Mpi" else "None",
        "target": target,
        "nodeCount": plan.nodes,
        "maxRunDurationSeconds": plan.cap,
        "mpi": {"processCountPerNode": per_node, "nodeCount": plan.nodes},
        "environment": {"name": environment[0], "version": environment[1]},
        "environmentVariables": plan.environment_variables,
        "history": {"outputCollection": True, "directoriesToWatch": ["logs"]},
    }
