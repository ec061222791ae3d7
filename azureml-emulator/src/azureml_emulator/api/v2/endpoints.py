"""Online endpoints and their deployments."""

# What a route is for is in its summary, from which the documentation's table is made.
# ruff: noqa: D103

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import Response
from starlette.concurrency import run_in_threadpool

from azureml_emulator.api.common import USER, WORKSPACE, ServiceDep, guarded_router
from azureml_emulator.api.v2.common import ARM_ACCESS, only_query, resource
from azureml_emulator.api.v2.endpoint_bodies import (
    LONGEST_REQUEST_MS,
    NAME,
    DeploymentRequest,
    EndpointKeys,
    EndpointRequest,
    EndpointToken,
    KeyRequest,
    LogRequest,
    Logs,
    TrackedResource,
)
from azureml_emulator.api.webservices import LOOK_INTERVAL, OPERATION_WAIT, wake
from azureml_emulator.assets import arm_names
from azureml_emulator.bodies import ArmList
from azureml_emulator.errors import bad_request
from azureml_emulator.service import Service
from azureml_emulator.store.webservices import OperationState, Webservice
from azureml_emulator.webservices import control, endpoints, names, rules
from azureml_emulator.webservices.process import read_log, start_of

BASE = f"{WORKSPACE}/onlineEndpoints"
DEPLOYMENTS = f"{BASE}/{{endpoint}}/deployments"
STATUS = {
    OperationState.RUNNING: "InProgress",
    OperationState.SUCCEEDED: "Succeeded",
    OperationState.FAILED: "Failed",
    OperationState.TIMED_OUT: "Failed",
}

router = guarded_router("Online endpoints (ARM)", access=ARM_ACCESS)
operations = guarded_router("Operations on online endpoints (ARM)", access=USER)


# Endpoints


@router.get(
    BASE,
    dependencies=[only_query("count", "$skip")],
    response_model_exclude_none=True,
    summary="`online_endpoints.list`",
)
def list_endpoints(service: ServiceDep) -> ArmList[TrackedResource]:
    return ArmList(value=[_describe(service, record) for record in endpoints.every(service)])


@router.get(
    f"{BASE}/{{name}}",
    response_model_exclude_none=True,
    summary="`online_endpoints.get`, `.invoke`, `.get_keys`; every deployment",
)
def get_endpoint(name: str, service: ServiceDep) -> TrackedResource:
    return _describe(service, endpoints.find(service, name))


@router.put(
    f"{BASE}/{{name}}",
    response_model_exclude_none=True,
    summary="`online_endpoints.begin_create_or_update`: a new one, or other traffic",
)
def put_endpoint(name: str, body: EndpointRequest, service: ServiceDep, response: Response) -> TrackedResource:
    _check_name(name)
    given = body.properties
    rules.check_text(body.model_dump())
    chosen = (given.keys.primary_key, given.keys.secondary_key)
    keys = tuple(None if key is None else rules.check_key(key) for key in chosen)
    wire = body.model_dump(by_alias=True, exclude={"properties": {"keys"}})
    is_new, operation = endpoints.put(service, name, wire, (keys[0], keys[1]))
    _say_what_waits(service, response, operation, is_new=is_new)
    return _describe(service, endpoints.find(service, name))


@router.delete(f"{BASE}/{{name}}", summary="`online_endpoints.begin_delete`")
def delete_endpoint(name: str, service: ServiceDep) -> Response:
    return Response(status_code=200 if endpoints.delete(service, name) else 204)


# Whoever asks for keys is about to use the endpoint: what is asleep is there again when they are answered.


@router.post(f"{BASE}/{{name}}/listKeys", summary="`online_endpoints.get_keys`, `.invoke`")
async def list_keys(name: str, service: ServiceDep) -> EndpointKeys:
    record = await _awake(service, name)
    if not record.wants_key:
        raise bad_request(f"Endpoint {name} takes tokens, not keys.")
    return EndpointKeys(primary_key=record.primary_key, secondary_key=record.secondary_key)


@router.post(f"{BASE}/{{name}}/token", summary="`online_endpoints.get_keys`, `.invoke`, with `aml_token`")
async def issue_token(name: str, service: ServiceDep) -> EndpointToken:
    await _awake(service, name)
    token, refresh, end = await run_in_threadpool(control.issue_token, service, names.of_endpoint(name))
    return EndpointToken(access_token=token, refresh_after_time_utc=int(refresh), expiry_time_utc=int(end))


@router.post(f"{BASE}/{{name}}/regenerateKeys", summary="`online_endpoints.begin_regenerate_keys`")
def regenerate_keys(name: str, body: KeyRequest, service: ServiceDep) -> Response:
    record = endpoints.find(service, name)
    # The SDK sends along the key that is to be replaced.
    chosen = body.key_value if body.key_value not in (record.primary_key, record.secondary_key) else None
    control.regenerate_key(service, record.name, body.key_type, chosen)
    return Response(status_code=200)


async def _awake(service: Service, name: str) -> Webservice:
    await run_in_threadpool(endpoints.find, service, name)
    for one in await run_in_threadpool(endpoints.everything_of, service, name):
        await wake(service, one)
    return endpoints.find(service, name)


# Deployments


@router.get(
    DEPLOYMENTS,
    dependencies=[only_query("$top", "$skip", "$orderBy")],
    response_model_exclude_none=True,
    summary="`online_deployments.list`, `online_endpoints.get`",
)
def list_deployments(endpoint: str, service: ServiceDep) -> ArmList[TrackedResource]:
    endpoints.find(service, endpoint)
    return ArmList(value=[_describe_deployment(service, one) for one in endpoints.deployments(service, endpoint)])


@router.get(f"{DEPLOYMENTS}/{{name}}", response_model_exclude_none=True, summary="`online_deployments.get`")
def get_deployment(endpoint: str, name: str, service: ServiceDep) -> TrackedResource:
    return _describe_deployment(service, endpoints.find_deployment(service, endpoint, name))


@router.put(
    f"{DEPLOYMENTS}/{{name}}",
    response_model_exclude_none=True,
    summary="`online_deployments.begin_create_or_update`",
)
def put_deployment(
    endpoint: str, name: str, body: DeploymentRequest, service: ServiceDep, response: Response
) -> TrackedResource:
    _check_name(name)
    rules.check_text(body.model_dump())
    given = body.properties
    if given.instance_type.lower() in map(str.lower, service.faults.current.sizes_not_offered):
        raise bad_request(f"The instance type {given.instance_type} is not offered.", "OutOfCapacity")
    timeout = given.request_settings.timeout_ms
    if not 0 < timeout <= LONGEST_REQUEST_MS:
        raise bad_request(f"A request may take at most {LONGEST_REQUEST_MS // 1000} seconds.")
    image = _image(service, body)
    wire = body.model_dump(by_alias=True, exclude_none=True)
    is_new, operation = endpoints.put_deployment(service, endpoint, name, wire, image, timeout)
    _say_what_waits(service, response, operation, is_new=is_new)
    return _describe_deployment(service, endpoints.find_deployment(service, endpoint, name))


@router.delete(f"{DEPLOYMENTS}/{{name}}", summary="`online_deployments.begin_delete`")
def delete_deployment(endpoint: str, name: str, service: ServiceDep) -> Response:
    return Response(status_code=200 if endpoints.delete_deployment(service, endpoint, name) else 204)


@router.post(f"{DEPLOYMENTS}/{{name}}/getLogs", summary="`online_deployments.get_logs`")
def get_logs(endpoint: str, name: str, body: LogRequest, service: ServiceDep) -> Logs:
    record = endpoints.find_deployment(service, endpoint, name)
    if body.container_type != "InferenceServer" or not record.deployments:
        return Logs(content="")
    return Logs(content=read_log(start_of(service, record.name, record.deployments[0]), body.tail))


# Operations


@operations.get(
    "/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices"
    "/locations/{location}/mfeOperationsStatus/{operation}",
    summary="`online_endpoints.begin_create_or_update(...).result()`, `online_deployments`' too",
)
async def get_operation(operation: str, service: ServiceDep) -> dict[str, Any]:
    # Answered late rather than asked for often: then the SDK's wait ends when the operation does.
    end = time.monotonic() + OPERATION_WAIT
    while True:
        found = service.webservices.operation(operation)
        if found.state.is_final or time.monotonic() >= end or service.is_stopping():
            error = {"error": found.error} if found.error is not None else {}
            return {"name": operation, "status": STATUS[found.state], **error}
        await asyncio.sleep(LOOK_INTERVAL)


def _say_what_waits(service: Service, response: Response, operation: str, *, is_new: bool) -> None:
    response.status_code = 201 if is_new else 200
    if service.webservices.operation(operation).state.is_final:
        return
    settings = service.settings
    response.headers["Azure-AsyncOperation"] = (
        f"{service.base_url}/subscriptions/{settings.subscription_id}/providers/Microsoft.MachineLearningServices"
        f"/locations/{settings.location}/mfeOperationsStatus/{operation}"
    )
    # Without it the SDK waits for half a minute before its first look.
    response.headers["Retry-After"] = "1"


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise bad_request(f"{name[:40]!r} is not a valid name: 3 to 32 letters, digits and dashes, a letter first.")


def _image(service: Service, body: DeploymentRequest) -> dict[str, Any]:
    """Return what SDK v1 would have asked for."""
    given = body.properties
    name, version = arm_names(service, given.environment_id, "environments", "versions")
    environment = service.versions.get("environments", name, version).properties
    route = (environment.get("inferenceConfig") or {}).get("scoringRoute")
    if route is not None and route["path"] != "/score":
        raise rules.not_emulated("containers that are not Azure's inference server, which scores at /score")
    code = service.versions.get("codes", *arm_names(service, given.code_configuration.code_id, "codes", "versions"))
    folder = str(code.properties["codeUri"]).rstrip("/").rpartition("/")[2]
    snapshot = str(code.detail["snapshot"])
    if given.code_configuration.scoring_script not in service.snapshots.files(snapshot):
        raise bad_request(f"The code has no scoring script {given.code_configuration.scoring_script[:80]}.")
    models = [] if given.model is None else [":".join(arm_names(service, given.model, "models", "versions"))]
    entry = f"{folder}/{given.code_configuration.scoring_script}"
    variables = {**given.environment_variables, "AZUREML_ENTRY_SCRIPT": entry}
    return {
        "snapshot": snapshot,
        "folder": folder,
        "modelIds": models,
        "environment": {"name": name, "version": version, "environmentVariables": variables},
    }


def _describe(service: Service, record: Webservice) -> TrackedResource:
    """Return an endpoint as ARM has it."""
    wire, name = record.document["wire"], names.endpoint_of(record.name)
    base = f"http://127.0.0.1:{record.port}" if record.port else None
    properties = {
        **wire["properties"],
        "provisioningState": endpoints.state_of(record),
        "scoringUri": base and f"{base}/score",
        "swaggerUri": base and f"{base}/swagger.json",
    }
    return _tracked(service, f"onlineEndpoints/{name}", record, properties, kind="Managed")


def _describe_deployment(service: Service, record: Webservice) -> TrackedResource:
    """Return a deployment as ARM has it."""
    wire = record.document["wire"]
    properties = {**wire["properties"], "provisioningState": endpoints.state_of(record)}
    path = f"onlineEndpoints/{names.endpoint_of(record.name)}/deployments/{names.deployment_of(record.name)}"
    return _tracked(service, path, record, properties, kind="Managed", sku=wire["sku"])


def _tracked(
    service: Service, path: str, record: Webservice, properties: dict[str, Any], **more: Any
) -> TrackedResource:
    wire = record.document["wire"]
    plain = resource(service, path, properties, created=record.created, modified=record.updated)
    own = {"location": wire["location"], "tags": wire["tags"], "identity": wire.get("identity"), **more}
    return TrackedResource(**plain.model_dump(), **own)
