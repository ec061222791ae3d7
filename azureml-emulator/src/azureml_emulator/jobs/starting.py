"""Starting an attempt at a job: its files, its logs, its environment, its supervisor."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from azureml_emulator.jobs.environment import job_environment
from azureml_emulator.jobs.plan import JobPlan
from azureml_emulator.jobs.process import Attempt
from azureml_emulator.service import Service
from azureml_emulator.store.artifacts import RUN_ORIGIN
from azureml_emulator.store.jobs import Job
from azureml_emulator.tokens import Scope
from azureml_emulator.wire.history import Run


def start_job(service: Service, job: Job, attempt: Attempt) -> subprocess.Popen[bytes]:
    """Start an attempt.

    Returns:
        Its supervisor.

    Raises:
        ServiceError: The snapshot is gone, or the configuration can't be run here any more.
        OSError: The files can't be written, or the process can't be started.
    """
    run = service.runs.get(job.run_id)
    plan = JobPlan.from_wire(run.run_definition or {})
    attempt.create()
    service.snapshots.extract(job.snapshot_id, attempt.work)
    for name in plan.log_names():
        path = attempt.logs / name
        path.touch()
        artifact = service.artifacts.reserve(RUN_ORIGIN, run.data_container_id, f"user_logs/{name}")
        service.blobs.link(artifact.blob_key, path)
    cap = plan.configuration.max_run_duration_seconds or service.settings.default_max_run_duration
    return attempt.start(
        plan.commands(attempt.logs),
        _environment(service, run, plan, attempt.home),
        log=attempt.logs / plan.log_names()[0],
        deadline=time.time() + cap if cap else None,
        grace=service.settings.cancel_grace,
    )


def _environment(service: Service, run: Run, plan: JobPlan, home: Path) -> dict[str, str]:
    token, expiry = service.issue_token(Scope.RUN, run_id=run.run_id)
    return job_environment(
        service.settings,
        inherited=os.environ,
        requested=plan.environment_variables,
        experiment=service.runs.experiment_by_id(run.experiment_id).name,
        experiment_id=run.experiment_id,
        run_id=run.run_id,
        token=token,
        token_expiry=expiry,
        base_url=service.base_url,
        discovery_url=service.discovery_url,
        workspace_id=service.workspace_id,
        ca_bundle=service.ca_bundle,
        home=home,
        distributed=plan.distributed,
    )
