"""Run history: experiments, runs, events, tokens."""

# What a route is for is in its summary, from which the documentation's table is made.
# ruff: noqa: D103

from __future__ import annotations

import time
from typing import Annotated

from fastapi import Body, Query, Response

from azureml_emulator.api.common import DATA_PLANE, WORKSPACE, ServiceDep, guarded_router, paginate
from azureml_emulator.api.run_filter import run_filter, sort_runs
from azureml_emulator.bodies import Page
from azureml_emulator.errors import ServiceError, bad_request
from azureml_emulator.jobs.local import TARGET as LOCAL_TARGET
from azureml_emulator.jobs.submission import check_run_id, request_cancel
from azureml_emulator.service import Service
from azureml_emulator.store.artifacts import RUN_ORIGIN
from azureml_emulator.store.runs import (
    ErrorResponse,
    Experiment,
    ExperimentQuery,
    Run,
    RunDetails,
    RunEvent,
    RunPatch,
    RunQuery,
    RunStatus,
    RunToken,
    RunTypeV2,
    Warn,
)
from azureml_emulator.sweeps.submission import cancel_sweep
from azureml_emulator.times import from_epoch, utc_now
from azureml_emulator.tokens import Scope

BASE = f"/history/v1.0{WORKSPACE}"
BY_NAME = f"{BASE}/experiments/{{experiment}}"
BY_ID = f"{BASE}/experimentids/{{experiment_id}}"
EVENT_PREFIX = "Microsoft.MachineLearning.Run."
_ENDING_EVENTS = {
    "Completed": RunStatus.COMPLETED,
    "Failed": RunStatus.FAILED,
    "Canceled": RunStatus.CANCELED,
}
_LOG_FOLDERS = ("user_logs/", "logs/", "azureml-logs/")

router = guarded_router("Run history", access=DATA_PLANE)


# Experiments


@router.get(BY_NAME, summary="`Experiment()`")
def get_experiment(experiment: str, service: ServiceDep) -> Experiment:
    return service.runs.experiment(experiment)


@router.post(BY_NAME, summary="`Experiment()` of a new name")
def create_experiment(experiment: str, service: ServiceDep) -> Experiment:
    return service.runs.ensure_experiment(experiment)


@router.post(f"{BASE}/experiments:query", summary="`Experiment.list`, `Workspace.experiments`")
def query_experiments(query: ExperimentQuery, service: ServiceDep) -> Page[Experiment]:
    if query.filter:
        raise bad_request(f"Filtering experiments by {query.filter!r} is not emulated.")
    return paginate(service.runs.experiments(), query.top, query.continuation_token)


@router.get(BY_ID, summary="`Run.get`")
def get_experiment_by_id(experiment_id: str, service: ServiceDep) -> Experiment:
    return service.runs.experiment_by_id(experiment_id)


# Runs


@router.get(f"{BASE}/runs/{{run_id}}", summary="`Run.get`, `Workspace.get_run`")
def get_run_of_workspace(run_id: str, service: ServiceDep) -> Run:
    return service.runs.get(run_id)


@router.get(f"{BY_NAME}/runs/{{run_id}}", summary="`Run()`, `Experiment.submit`")
def get_run(experiment: str, run_id: str, service: ServiceDep) -> Run:
    return service.run_of(experiment, run_id)


@router.get(f"{BY_ID}/runs/{{run_id}}", summary="`Run.get_status`, `Run.get_properties`, `Run.get_tags`, `Run.refresh`")
def get_run_by_experiment_id(experiment_id: str, run_id: str, service: ServiceDep) -> Run:
    return service.run_of(service.runs.experiment_by_id(experiment_id).name, run_id)


@router.patch(
    f"{BY_NAME}/runs/{{run_id}}",
    summary="`Run.tag`, `Run.set_tags`, `Run.add_properties`",
    description="`jobs.update`, `.archive`, `.restore`",
)
def patch_run(experiment: str, run_id: str, patch: RunPatch, service: ServiceDep) -> Run:
    return _create_or_patch(service, service.runs.ensure_experiment(experiment), run_id, patch)


@router.patch(
    f"{BY_ID}/runs/{{run_id}}", summary="`Experiment.start_logging`, `Run.child_run`, `Run.take_snapshot`, `Run.tag`"
)
def patch_run_by_experiment_id(experiment_id: str, run_id: str, patch: RunPatch, service: ServiceDep) -> Run:
    return _create_or_patch(service, service.runs.experiment_by_id(experiment_id), run_id, patch)


@router.get(
    f"{BY_NAME}/runs/{{run_id}}/details",
    summary="`Run.get_details`, `Run.wait_for_completion`, `Run.get_all_logs`",
)
def get_run_details(experiment: str, run_id: str, service: ServiceDep) -> RunDetails:
    return details(service, service.run_of(experiment, run_id))


def details(service: Service, run: Run) -> RunDetails:
    """Return a run with the addresses of its logs."""
    found = service.artifacts.list(RUN_ORIGIN, run.data_container_id)
    logs = {
        artifact.path: service.read_url(artifact.blob_key)
        for artifact in service.visible(found, run.data_container_id)
        if artifact.path.startswith(_LOG_FOLDERS)
    }
    return RunDetails(
        run_id=run.run_id,
        target=run.target,
        status=run.status,
        start_time_utc=run.start_time_utc,
        end_time_utc=run.end_time_utc,
        error=run.error,
        warnings=run.warnings,
        properties=run.properties,
        run_definition=run.run_definition,
        log_files=logs,
    )


@router.get(f"{BY_NAME}/runs/{{run_id}}/children", summary="`Run.get_children`")
def get_children(
    experiment: str,
    run_id: str,
    service: ServiceDep,
    top: Annotated[int | None, Query(alias="$top")] = None,
    order: Annotated[list[str] | None, Query(alias="$orderby")] = None,
    condition: Annotated[str | None, Query(alias="$filter")] = None,
    token: Annotated[str | None, Query(alias="$continuationToken")] = None,
) -> Page[Run]:
    service.run_of(experiment, run_id)
    matches = run_filter(condition)
    found = [run for run in service.runs.children(run_id) if matches(run)]
    return paginate(sort_runs(found, order), top, token)


@router.post(f"{BY_NAME}/runs:query", summary="`Experiment.get_runs`, `Run.list`")
def query_runs(experiment: str, query: RunQuery, service: ServiceDep) -> Page[Run]:
    matches = run_filter(query.filter)
    order = [query.orderby] if isinstance(query.orderby, str) else query.orderby
    every = service.runs.of_experiment(service.runs.experiment(experiment).experiment_id)
    found = [run for run in every if matches(run)]
    return paginate(sort_runs(found, order), query.top, query.continuation_token)


@router.delete(f"{BY_NAME}/runs/{{run_id}}/tags", summary="`Run.remove_tags`")
def delete_tags(experiment: str, run_id: str, names: Annotated[list[str], Body()], service: ServiceDep) -> Run:
    service.run_of(experiment, run_id)

    def change(run: Run) -> None:
        run.tags = {name: value for name, value in run.tags.items() if name not in names}

    return service.runs.update(run_id, change)


# Events, tokens, flushing


@router.post(
    f"{BY_NAME}/runs/{{run_id}}/events",
    summary="`Run.start`, `Run.complete`, `Run.fail`, `Run.cancel`, a script's error or warning",
)
def post_event(experiment: str, run_id: str, event: RunEvent, service: ServiceDep) -> Response:
    service.run_of(experiment, run_id)
    if not event.name.startswith(EVENT_PREFIX):
        raise bad_request(f"Event {event.name!r} is not emulated.")
    kind = event.name.removeprefix(EVENT_PREFIX)
    error = event.data.get("ErrorResponse")
    if error is not None:
        parsed = ErrorResponse.model_validate(error)
        service.runs.update(run_id, lambda run: setattr(run, "error", parsed))
    if kind in ("Error", "Heartbeat"):
        return Response()
    if kind == "Warning":
        message = str(event.data.get("Message") or event.data.get("message") or "")
        service.runs.update(run_id, lambda run: run.warnings.append(Warn(source="script", message=message)))
    elif kind == "Start" or kind in _ENDING_EVENTS:
        # How a submitted run goes on is for the service to say, not for its script.
        job = service.jobs.find(run_id)
        if service.sweeps.find(run_id) is not None:
            # A program that has not imported azureml.train takes a sweep for any run.
            if kind == "Canceled":
                cancel_sweep(service, run_id)
        elif job is None:
            service.runs.set_status(run_id, _ENDING_EVENTS.get(kind, RunStatus.RUNNING))
        elif job.compute == LOCAL_TARGET and kind == "Canceled":
            # A local run has no other way to be cancelled.
            request_cancel(service, run_id)
    else:
        raise bad_request(f"Event {event.name!r} is not emulated.")
    return Response()


@router.get(
    f"{BY_NAME}/runs/{{run_id}}/token",
    summary="a job's token refresh",
    description="a job's token refresh (azureml-mlflow)",
)
def renew_token(experiment: str, run_id: str, service: ServiceDep) -> RunToken:
    service.run_of(experiment, run_id)
    return _run_token(service, run_id)


@router.get(f"{BY_ID}/runs/{{run_id}}/token", summary="a job's token refresh")
def renew_token_by_experiment_id(experiment_id: str, run_id: str, service: ServiceDep) -> RunToken:
    service.run_of(service.runs.experiment_by_id(experiment_id).name, run_id)
    return _run_token(service, run_id)


@router.get(f"{BY_NAME}/runs/{{run_id}}/metricsingest/wait", summary="`Run.flush`, `Run.complete`, `Run.cancel`")
def wait_for_metrics(experiment: str, run_id: str, service: ServiceDep) -> Response:
    # Metrics are in the database as soon as they are accepted, so there is nothing to wait for.
    service.run_of(experiment, run_id)
    return Response()


def _run_token(service: Service, run_id: str) -> RunToken:
    token, expiry = service.issue_token(Scope.RUN, run_id=run_id)
    return RunToken(token=token, expiry_time_utc=from_epoch(expiry).replace("+00:00", "Z"))


def _create_or_patch(service: Service, experiment: Experiment, run_id: str, patch: RunPatch) -> Run:
    with service.database.transaction():
        if service.runs.find(run_id) is None:
            service.runs.add(_new_run(service, experiment, run_id, patch))
        run = service.run_of(experiment.name, run_id)
        return service.runs.update(run.run_id, lambda run: _apply(run, patch))


def _new_run(service: Service, experiment: Experiment, run_id: str, patch: RunPatch) -> Run:
    parent = service.runs.get(patch.parent_run_id) if patch.parent_run_id else None
    return Run(
        run_id=check_run_id(run_id),
        run_number=0,
        root_run_id=parent.root_run_id if parent else run_id,
        parent_run_id=patch.parent_run_id,
        experiment_id=experiment.experiment_id,
        data_container_id=f"dcid.{run_id}",
        status=RunStatus.NOT_STARTED,
        created_utc=utc_now(),
        display_name=run_id,
        run_type_v2=RunTypeV2(orchestrator="External", traits=["unspecified"]),
    )


def _apply(run: Run, patch: RunPatch) -> None:
    if patch.status is not None and patch.status != run.status:
        if run.cancel_uri is not None:
            raise ServiceError(400, "UserError", "The status of a submitted run can't be set.")
        run.status = patch.status
        if patch.status is RunStatus.RUNNING:
            run.start_time_utc = patch.start_time_utc or from_epoch(time.time())
    for name in ("name", "display_name", "description", "hidden", "run_type", "target", "script_name"):
        value = getattr(patch, name)
        if value is not None:
            setattr(run, name, value)
    run.properties |= _texts(patch.properties)
    run.tags |= _texts(patch.tags)


def _texts(mapping: dict[str, object] | None) -> dict[str, str]:
    return {key: value if isinstance(value, str) else str(value) for key, value in (mapping or {}).items()}
