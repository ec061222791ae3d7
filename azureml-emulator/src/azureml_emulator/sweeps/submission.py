"""What a client asks for: starting a sweep, cancelling it. What is not emulated is refused here."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from azureml_emulator.errors import ServiceError, bad_request
from azureml_emulator.jobs.new_run import SWEEP, add_run
from azureml_emulator.jobs.plan import JobPlan
from azureml_emulator.jobs.submission import check_cluster, check_run_id
from azureml_emulator.service import Service
from azureml_emulator.store.sweeps import MAX_DURATION_MINUTES, Sweep, SweepRequest
from azureml_emulator.sweeps.bayesian import require_optuna
from azureml_emulator.sweeps.policy import make_policy
from azureml_emulator.sweeps.resuming import check_resumed_children, check_resumed_sweeps
from azureml_emulator.sweeps.sampling import BAYESIAN, GRID, Sample, check_space, grid, random_sample

MAX_CONCURRENT = 100
TAG_PREFIX = "_aml_system_"


def start_sweep(
    service: Service,
    experiment: str,
    request: SweepRequest,
    *,
    run_id: str | None = None,
    parent_run_id: str | None = None,
) -> dict[str, Any]:
    """Create a sweep and its parent run.

    With a run id that the client has chosen, a submission may be repeated: the second one gets the first one's sweep
    and starts nothing.

    Returns:
        The request with ``ParentRunId`` filled in, as the SDK expects it back.

    Raises:
        ServiceError: 400, the sweep or its job can't be run here; 404, there is no such snapshot, or no such parent;
            409, the id belongs to another run.
    """
    plan = _check(service, request)
    chosen = run_id
    run_id = check_run_id(run_id or f"HD_{uuid.uuid4()}")
    check_run_id(f"{run_id}_{request.max_total_jobs}")
    document = request.model_dump(mode="json")
    document["platform_config"]["ParentRunId"] = run_id
    with service.database.transaction():
        service.runs.ensure_experiment(experiment)
        if chosen is not None and _is_repeated(service, chosen, experiment, request):
            return document
        parent = service.run_of(experiment, parent_run_id) if parent_run_id else None
        definition = request.platform_config.Definition
        add_run(
            service,
            SWEEP,
            run_id,
            experiment,
            parent=parent.run_id if parent else None,
            properties=sweep_properties(document),
            tags=tags_of(document),
            script=plan.configuration.script,
            target=plan.configuration.target,
            definition=definition.Overrides,
        )
        seed = run_id if service.settings.sweep_seed is None else str(service.settings.sweep_seed)
        sweep = Sweep(
            run_id=run_id,
            experiment=experiment,
            request=request,
            seed=seed,
            samples=first_samples(service, request, seed),
            deadline=time.time() + min(request.max_duration_minutes, MAX_DURATION_MINUTES) * 60,
        )
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


def _check(service: Service, request: SweepRequest) -> JobPlan:
    """Refuse what can't be run here, before anything is made."""
    if request.platform != "AML":
        raise bad_request(f"Sweeps on the platform {request.platform!r}, those of pipelines, are not emulated.")
    if request.max_concurrent_jobs > MAX_CONCURRENT:
        raise bad_request(f"A sweep has {MAX_CONCURRENT} runs at once at most, not {request.max_concurrent_jobs}.")
    generator = request.generator_config
    check_space(generator.parameter_space, generator.name)
    policy = make_policy(request.policy_config.name, request.policy_config.properties)
    if generator.name.upper() == BAYESIAN:
        if policy is not None:
            raise bad_request("Bayesian sampling does not support early termination policies.")
        require_optuna()
    plan = JobPlan.from_wire(request.platform_config.Definition.Overrides)
    if plan.configuration.command:
        raise bad_request("Sweeps of a command are not emulated: a script takes the parameters as arguments.")
    check_cluster(service, plan.configuration.target, plan.nodes)
    if plan.distributed:
        # Finds out now whether there is an mpiexec.
        plan.commands(service.state.jobs)
    service.snapshots.files(request.platform_config.Definition.SnapshotId)
    check_resumed_sweeps(service, request)
    check_resumed_children(service, request)
    return plan


def _is_repeated(service: Service, run_id: str, experiment: str, request: SweepRequest) -> bool:
    existing = service.sweeps.find(run_id)
    if existing is None:
        return False
    if existing.experiment == experiment and _essence(existing.request) == _essence(request):
        return True
    raise ServiceError(409, "RunAlreadyExists", f"Run {run_id} already exists and is another sweep.")


def _essence(request: SweepRequest) -> dict[str, Any]:
    document = request.model_dump(mode="json")
    # These have ids of the client's process.
    document["platform_config"]["Definition"].pop("TelemetryValues", None)
    return document


def first_samples(service: Service, request: SweepRequest, seed: str) -> list[Sample]:
    """Return the samples that are known at the start: those of resumed children, and all that depend on no result."""
    found = (service.sweeps.sample(key.run_id) for key in request.resume_child_runs)
    resumed = [sample for sample in found if sample is not None]
    space, method = request.generator_config.parameter_space, request.generator_config.name.upper()
    new = request.max_total_jobs - len(resumed)
    if method == BAYESIAN:
        return resumed
    if method == GRID:
        return resumed + grid(space, new)
    return resumed + [random_sample(space, seed, number) for number in range(new)]


def sweep_properties(document: dict[str, Any]) -> dict[str, str]:
    """Return the properties of a sweep's run, of which the SDK reads what the sweep is after and learns from."""
    return {
        "platform": "AML",
        "ContentSnapshotId": document["platform_config"]["Definition"]["SnapshotId"],
        "primary_metric_config": json.dumps(document["primary_metric_config"]),
        "resume_from": json.dumps(document["resume_from"] or None),
        "resume_child_runs": json.dumps(document["resume_child_runs"] or None),
    }


def tags_of(document: dict[str, Any]) -> dict[str, str]:
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
