"""Jobs of SDK v2: command jobs, and every submitted run of SDK v1 as one."""

# What a route is for is in its summary, from which the documentation's table is made.
# ruff: noqa: D103

from __future__ import annotations

import shlex
from typing import Annotated, Any

from fastapi import Query, Response
from pydantic.alias_generators import to_camel

from azureml_emulator.api.common import USER, WORKSPACE, ServiceDep, guarded_router, paginate
from azureml_emulator.api.v2.common import ARM_ACCESS, Resource, View, in_view, only_query, resource
from azureml_emulator.bodies import StrictBody
from azureml_emulator.errors import ServiceError, bad_request
from azureml_emulator.jobs.command_submission import put_command
from azureml_emulator.jobs.submission import request_cancel
from azureml_emulator.service import Service
from azureml_emulator.store.runs import Run
from azureml_emulator.store.sweeps import Sweep
from azureml_emulator.sweeps.command_sweep import METHODS, put_sweep
from azureml_emulator.sweeps.submission import TAG_PREFIX, cancel_sweep

BASE = f"{WORKSPACE}/jobs"
PAGE_SIZE = 100


class JobRequest(StrictBody):
    """PUT: submit a job."""

    properties: dict[str, Any]


class JobPage(StrictBody):
    """A page of jobs; ``nextLink`` is left out at the end, for its presence means another page."""

    value: list[Resource]
    next_link: str | None = None


router = guarded_router("Jobs (ARM)", access=ARM_ACCESS)
operations = guarded_router("Operations on jobs (ARM)", access=USER)


@router.put(f"{BASE}/{{name}}", summary="`jobs.create_or_update`")
def put_job(name: str, body: JobRequest, service: ServiceDep, response: Response) -> Resource:
    kind = body.properties.get("jobType")
    if kind == "Command":
        run, is_new = put_command(service, name, body.properties)
    elif kind == "Sweep":
        run, is_new = put_sweep(service, name, body.properties)
    else:
        raise bad_request(f"Jobs of the type {kind} are not emulated.", "NotEmulated")
    response.status_code = 201 if is_new else 200
    return describe(service, run)


@router.get(
    BASE,
    dependencies=[only_query("listViewType", "$skip", "jobType", "tag", "properties")],
    summary="`jobs.list`",
    response_model_exclude_none=True,
)
def list_jobs(
    service: ServiceDep,
    view: View = "ActiveOnly",
    skip: Annotated[str | None, Query(alias="$skip")] = None,
    kind: Annotated[str | None, Query(alias="jobType")] = None,
    tag: str | None = None,
    properties: str | None = None,
) -> JobPage:
    if properties:
        raise bad_request("Filtering jobs by properties is not emulated.", "NotEmulated")
    found = [run for run in service.runs.submitted() if in_view(run.hidden, view) if tag is None or _has_tag(run, tag)]
    described = [describe(service, run) for run in found]
    if kind is not None:
        described = [item for item in described if item.properties["jobType"] == kind]
    page = paginate(described, PAGE_SIZE, skip)
    link = None
    if page.continuation_token is not None:
        query = f"$skip={page.continuation_token}&listViewType={view}" + (f"&jobType={kind}" if kind else "")
        link = f"{service.base_url}{service.settings.workspace_path}/jobs?{query}" + (f"&tag={tag}" if tag else "")
    return JobPage(value=page.value, next_link=link)


@router.get(f"{BASE}/{{name}}", summary="`jobs.get`, `.stream`, `.download`, `.update`, `.archive`")
def get_job(name: str, service: ServiceDep) -> Resource:
    return describe(service, _submitted(service, name))


@router.post(f"{BASE}/{{name}}/cancel", summary="`jobs.begin_cancel`")
def cancel_job(name: str, service: ServiceDep) -> Response:
    run = _submitted(service, name)
    if run.status.is_final:
        return Response()
    if service.sweeps.find(name) is not None:
        cancel_sweep(service, name)
    else:
        request_cancel(service, name)
    return _pending(service, name)


@operations.get(
    "/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices"
    "/locations/{location}/mfeOperationResults/{operation}",
    summary="`jobs.begin_cancel(...).wait()`",
)
def get_operation_result(operation: str, service: ServiceDep) -> Response:
    kind, _, name = operation.partition(":")
    if kind != "jc":
        raise ServiceError(404, "OperationNotFound", f"Operation {operation} not found.")
    return Response() if service.runs.get(name).status.is_final else _pending(service, name)


def _pending(service: Service, name: str) -> Response:
    settings = service.settings
    location = (
        f"{service.base_url}/subscriptions/{settings.subscription_id}/providers/Microsoft.MachineLearningServices"
        f"/locations/{settings.location}/mfeOperationResults/jc:{name}"
    )
    # Without the second header the SDK waits half a minute between two looks.
    return Response(status_code=202, headers={"Location": location, "Retry-After": "1"})


def _submitted(service: Service, name: str) -> Run:
    run = service.runs.find(name)
    if run is None or run.cancel_uri is None:
        raise ServiceError(404, "NotFound", f"Job {name} was not found.")
    return run


def _has_tag(run: Run, tag: str) -> bool:
    key, equals, value = tag.partition("=")
    return key in run.tags and (not equals or run.tags[key] == value)


def describe(service: Service, run: Run) -> Resource:
    """Return a run as ARM has it."""
    document = service.command_jobs.find(run.run_id)
    if document is None:
        sweep = service.sweeps.find(run.run_id)
        document = _of_configuration(service, run) if sweep is None else _of_sweep(service, run, sweep)
    studio = f"https://studio.emulator.invalid/runs/{run.run_id}?wsid={service.settings.workspace_path}"
    properties = {
        **document,
        "displayName": run.display_name,
        "description": run.description,
        # Those with which SDK v1 rebuilds a sweep are not the user's.
        "tags": {key: value for key, value in run.tags.items() if not key.startswith(TAG_PREFIX)},
        "properties": run.properties,
        "experimentName": service.runs.experiment_by_id(run.experiment_id).name,
        "isArchived": run.hidden,
        "status": run.status,
        "services": {
            "Tracking": {"jobServiceType": "Tracking", "endpoint": service.tracking_uri, "port": None, "status": None},
            "Studio": {"jobServiceType": "Studio", "endpoint": studio, "port": None, "status": None},
        },
    }
    return resource(service, f"jobs/{run.run_id}", properties, created=run.created_utc)


def _of_configuration(service: Service, run: Run) -> dict[str, Any]:
    """Return the job that a run of SDK v1 is."""
    definition = run.run_definition or {}
    command = definition.get("command")
    if isinstance(command, list):
        command = shlex.join(map(str, command))
    if not command:
        command = shlex.join(["python", str(definition.get("script")), *map(str, definition.get("arguments") or [])])
    environment = definition.get("environment") or {}
    name, version = environment.get("name") or "unnamed", environment.get("version") or "1"
    base = service.settings.workspace_path
    return {
        "jobType": "Command",
        "command": command,
        "computeId": f"{base}/computes/{run.target}",
        "environmentId": f"{base}/environments/{name}/versions/{version}",
        "environmentVariables": {},
        "inputs": {},
        "outputs": {},
        "resources": {"instanceCount": definition.get("nodeCount") or 1, "properties": {}},
    }


def _of_sweep(service: Service, run: Run, sweep: Sweep) -> dict[str, Any]:
    """Return the job that a sweep of SDK v1 is."""
    request, trial = sweep.request, _of_configuration(service, run)
    kind = next(name for name, method in METHODS.items() if method == request.generator_config.name.upper())
    policy = request.policy_config
    properties = {to_camel(key): value for key, value in policy.properties.items()}
    is_default = policy.name.lower() == "default"
    return {
        "jobType": "Sweep",
        "trial": {key: trial[key] for key in ("command", "environmentId", "environmentVariables", "resources")},
        "computeId": trial["computeId"],
        "searchSpace": request.generator_config.parameter_space,
        "samplingAlgorithm": {"samplingAlgorithmType": kind},
        "objective": {
            "goal": request.primary_metric_config.goal,
            "primaryMetric": request.primary_metric_config.name,
        },
        "limits": {
            "jobLimitsType": "Sweep",
            "maxTotalTrials": request.max_total_jobs,
            "maxConcurrentTrials": request.max_concurrent_jobs,
            "timeout": f"PT{request.max_duration_minutes}M",
        },
        "earlyTermination": None if is_default else {"policyType": policy.name, **properties},
        "inputs": {},
        "outputs": {},
    }
