"""Driving sweeps: starting children, stopping the bad ones, ending the parent."""

from __future__ import annotations

import json
import logging
import time
import uuid
from typing import Any

from azureml_emulator.errors import ServiceError
from azureml_emulator.jobs.plan import JobPlan
from azureml_emulator.jobs.submission import request_cancel, submit
from azureml_emulator.service import Service
from azureml_emulator.store.artifacts import RUN_ORIGIN
from azureml_emulator.store.runs import Run, RunStatus, RunTypeV2
from azureml_emulator.store.sweeps import Sweep, SweepRequest
from azureml_emulator.sweeps.policy import make_policy
from azureml_emulator.sweeps.sampling import draw
from azureml_emulator.times import utc_now

LOG_NAME = "azureml-logs/hyperdrive.txt"
"""The one log that the SDK streams for a sweep."""

TAG_PREFIX = "_aml_system_"

log = logging.getLogger(__name__)


def start_sweep(service: Service, experiment: str, request: SweepRequest) -> dict[str, Any]:
    """Create a sweep and its parent run.

    Returns:
        The request with ``ParentRunId`` filled in, as the SDK expects it back.

    Raises:
        ServiceError: 400, the sweep or its job can't be run here.
    """
    run_id = f"HD_{uuid.uuid4()}"
    definition = request.platform_config.Definition
    goal = request.primary_metric_config.goal
    make_policy(request.policy_config.name, request.policy_config.properties, goal)
    plan = JobPlan.from_wire(definition.Overrides)
    if service.computes.find(plan.configuration.target) is None:
        raise ServiceError(400, "ComputeTargetNotFound", f"Compute target {plan.configuration.target} is unknown.")
    generator = request.generator_config
    samples = draw(generator.parameter_space, generator.name, request.max_total_jobs, run_id)
    document = request.model_dump(mode="json")
    document["platform_config"]["ParentRunId"] = run_id
    found = service.runs.ensure_experiment(experiment)
    with service.database.transaction():
        service.runs.add(
            Run(
                run_id=run_id,
                run_number=0,
                root_run_id=run_id,
                experiment_id=found.experiment_id,
                data_container_id=f"dcid.{run_id}",
                status=RunStatus.RUNNING,
                created_utc=utc_now(),
                start_time_utc=utc_now(),
                display_name=run_id,
                run_type="hyperdrive",
                run_type_v2=RunTypeV2(orchestrator="HyperDrive"),
                properties={
                    "azureml.runsource": "hyperdrive",
                    "platform": "AML",
                    "resume_from": "null",
                    "ContentSnapshotId": definition.SnapshotId,
                    "primary_metric_config": json.dumps(document["primary_metric_config"]),
                },
                tags=_tags(document),
                script_name=plan.configuration.script,
                target=plan.configuration.target,
                run_definition=definition.Overrides,
            )
        )
        minutes = request.max_duration_minutes
        deadline = time.time() + minutes * 60 if minutes else None
        sweep = Sweep(run_id=run_id, experiment=experiment, request=request, samples=samples, deadline=deadline)
        service.sweeps.save(sweep, active=True)
    return document


def cancel_sweep(service: Service, run_id: str) -> None:
    """Ask for the cancellation of a sweep.

    Raises:
        ServiceError: 404, the run is no sweep.
    """
    with service.database.transaction():
        sweep = service.sweeps.find(run_id)
        if sweep is None:
            raise ServiceError(404, "RunNotFound", f"Run {run_id} is not a sweep.")
        if not service.runs.get(run_id).status.is_final:
            sweep.cancel = True
            service.sweeps.save(sweep, active=True)


class SweepDriver:
    """Moves sweeps on, one step per tick."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def tick(self) -> None:
        """Look at every active sweep once."""
        for sweep in self._service.sweeps.active():
            try:
                with self._service.database.transaction():
                    self._step(sweep.run_id)
            except Exception as error:
                log.exception("sweep %s failed", sweep.run_id)
                self._service.runs.set_error(sweep.run_id, "ServiceError", str(error))
                self._service.runs.set_status(sweep.run_id, RunStatus.FAILED)
                self._service.sweeps.save(sweep, active=False)

    def _step(self, run_id: str) -> None:
        service = self._service
        sweep = service.sweeps.find(run_id)
        assert sweep is not None
        children = list(reversed(service.runs.children(run_id)))
        running = [child for child in children if not child.status.is_final]
        if sweep.deadline is not None and time.time() >= sweep.deadline and not sweep.cancel:
            sweep.cancel = True
            self._log(sweep, "The sweep reached its maximum duration.")
        if sweep.cancel:
            for child in running:
                request_cancel(service, child.run_id)
        else:
            self._apply_policy(sweep, children, running)
            self._start_children(sweep, len(running))
        # Children that have just been started are not among those that were looked at.
        seen_all = sweep.started == len(children)
        done = seen_all and not running and (sweep.cancel or sweep.started == len(sweep.samples))
        if done:
            self._end(sweep, children)
        service.sweeps.save(sweep, active=not done)

    def _start_children(self, sweep: Sweep, running: int) -> None:
        definition = sweep.request.platform_config.Definition
        while sweep.started < len(sweep.samples) and running < sweep.request.max_concurrent_jobs:
            sample = sweep.samples[sweep.started]
            child_id = f"{sweep.run_id}_{sweep.started}"
            arguments = list(definition.Overrides.get("arguments") or [])
            for name, value in sample.items():
                arguments += [name, value]
            submit(
                self._service,
                experiment=sweep.experiment,
                run_id=child_id,
                configuration={**definition.Overrides, "arguments": arguments},
                snapshot_id=definition.SnapshotId,
                parent_run_id=sweep.run_id,
                tags={"hyperparameters": json.dumps(sample)},
            )
            tag = {f"{TAG_PREFIX}{child_id}": json.dumps(sample)}
            self._service.runs.update(sweep.run_id, lambda run, tag=tag: run.tags.update(tag))  # type: ignore[misc]
            self._log(sweep, f"Started {child_id} with {json.dumps(sample)}.")
            sweep.started += 1
            running += 1

    def _apply_policy(self, sweep: Sweep, children: list[Run], running: list[Run]) -> None:
        request = sweep.request
        metric = request.primary_metric_config
        policy = make_policy(request.policy_config.name, request.policy_config.properties, metric.goal)
        if policy is None:
            return
        logged = {child.run_id: self._service.metrics.scalars(child.run_id, metric.name) for child in children}
        for child in running:
            others = [values for run_id, values in logged.items() if run_id != child.run_id]
            if child.run_id not in sweep.stopped_early and policy.stops(logged[child.run_id], others):
                sweep.stopped_early.append(child.run_id)
                request_cancel(self._service, child.run_id)
                self._log(sweep, f"Bandit stopped {child.run_id}: {metric.name} was {logged[child.run_id][-1]}.")

    def _end(self, sweep: Sweep, children: list[Run]) -> None:
        failed = [child.run_id for child in children if child.status is RunStatus.FAILED]
        if sweep.cancel:
            status = RunStatus.CANCELED
        elif failed and len(failed) == len(children):
            status = RunStatus.FAILED
            self._service.runs.set_error(sweep.run_id, "UserError", f"All {len(failed)} runs of the sweep failed.")
        else:
            status = RunStatus.COMPLETED
        self._log(sweep, f"The sweep is {status}.")
        self._service.runs.set_status(sweep.run_id, status)

    def _log(self, sweep: Sweep, line: str) -> None:
        sweep.log.append(f"[{utc_now()}] {line}")
        artifact = self._service.artifacts.reserve(RUN_ORIGIN, f"dcid.{sweep.run_id}", LOG_NAME)
        self._service.blobs.commit_bytes(artifact.blob_key, ("\n".join(sweep.log) + "\n").encode())


def _tags(document: dict[str, Any]) -> dict[str, str]:
    """Return the tags from which the SDK rebuilds a HyperDriveRun."""
    names = (
        "generator_config",
        "primary_metric_config",
        "policy_config",
        "platform_config",
        "max_total_jobs",
        "max_concurrent_jobs",
        "max_duration_minutes",
    )
    return {f"{TAG_PREFIX}{name}": json.dumps(document[name]) for name in names}
