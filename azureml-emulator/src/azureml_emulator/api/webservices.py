"""Web services: deployments to ACI and AKS."""

# What a route is for is in its summary, from which the documentation's table is made. A body is described by its
# fields.
# ruff: noqa: D101, D103

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import Body as JsonBody
from fastapi import Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from azureml_emulator.api.common import DATA_PLANE, WORKSPACE, ServiceDep, guarded_router
from azureml_emulator.api.models import has
from azureml_emulator.bodies import ArmList, Body, UserInfo
from azureml_emulator.errors import ServiceError, bad_request, not_found
from azureml_emulator.service import Service
from azureml_emulator.store.models import Model, PatchOperation
from azureml_emulator.store.webservices import Operation, ServiceState, Webservice
from azureml_emulator.webservices import control, rules
from azureml_emulator.webservices.process import read_log, start_of

BASE = f"/modelmanagement/v1.0{WORKSPACE}"
OPERATION_WAIT = 25.0
"""Seconds after which an operation that goes on is answered. The SDK asks once, and again only 5 seconds later."""
WAKE_WAIT = 60.0
"""Seconds in which a service that was asleep should be there again."""
LOOK_INTERVAL = 0.05
_FILTERS = frozenset({"expand", "computeType", "modelName", "modelId", "tags", "properties"})
_MAX_TAIL = 100_000

Json = Annotated[dict[str, Any], JsonBody()]


async def _only_v1(request: Request) -> None:
    # What belongs to an endpoint of SDK v2 has a dot in its name.
    name = str(request.path_params.get("name", ""))
    if "." in name:
        raise not_found("Service", name)


router = guarded_router("Web services", access=[*DATA_PLANE, Depends(_only_v1)])


class ValidationRequest(Body):
    type: Literal["Create", "Update", "Delete"]
    service_name: str
    create_request: dict[str, Any] | None = None
    update_request: list[PatchOperation] | None = None


class Keys(Body):
    primary_key: str
    secondary_key: str


class KeyRequest(Body):
    key_type: Literal["Primary", "Secondary"]
    key_value: str | None = None


class ServiceToken(Body):
    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - a type of token, not a token
    refresh_after: int
    expiry_on: int


class Logs(Body):
    content: str


# Before a deployment. The SDK shows the message of what is answered here, and takes anything but 200 for consent.


@router.post(f"{BASE}/services/validate/name/{{name}}", summary="`Model.deploy`")
def validate_name(name: str, service: ServiceDep) -> dict[str, Any]:
    return _verdict(lambda: control.check_free(service, name))


@router.post(f"{BASE}/services/validate", summary="`Model.deploy`, `Webservice.update`, `Webservice.delete`")
def validate(body: ValidationRequest, service: ServiceDep) -> dict[str, Any]:
    def check() -> None:
        if body.type == "Create":
            control.check_create(service, body.create_request or {})
        elif body.type == "Update":
            record = service.webservices.get(body.service_name)
            control.check_patch(service, record, body.update_request or [])

    return _verdict(check)


@router.post(f"{BASE}/services/validate/resource", summary="`Model.deploy`")
def validate_resource(body: Json) -> dict[str, Any]:
    return _verdict(lambda: rules.document(body))


def _verdict(check: Callable[[], object]) -> dict[str, Any]:
    try:
        check()
    except ServiceError as error:
        return {"error": {"code": error.code, "message": error.message}}
    return {}


# Services


@router.post(f"{BASE}/services", status_code=202, summary="`Model.deploy`")
def create_service(body: Json, service: ServiceDep) -> Response:
    return _accepted(service, control.create(service, body))


@router.get(f"{BASE}/services", summary="`Webservice.list`, `Workspace.webservices`")
def list_services(
    request: Request,
    service: ServiceDep,
    compute_type: Annotated[str | None, Query(alias="computeType")] = None,
    model_name: Annotated[str | None, Query(alias="modelName")] = None,
    model_id: Annotated[str | None, Query(alias="modelId")] = None,
    tags: str | None = None,
    properties: str | None = None,
) -> ArmList[dict[str, Any]]:
    others = sorted(set(request.query_params) - _FILTERS)
    if others:
        raise bad_request(f"Filtering services by {others[0][:40]!r} is not emulated.")
    found = []
    for record in service.webservices.all():
        if record.compute_type not in (rules.ACI, rules.AKS):
            continue
        ids = _model_ids(record)
        if (
            (compute_type is None or compute_type.upper() == record.compute_type)
            and (model_name is None or model_name in [one.rpartition(":")[0] for one in ids])
            and (model_id is None or model_id in ids)
            and has(record.document["kvTags"], tags)
            and has(record.document["properties"], properties)
        ):
            found.append(_wire(service, record))
    return ArmList(value=found)


@router.get(f"{BASE}/services/{{name}}", summary="`Webservice(workspace, name)`, `Webservice.update_deployment_state`")
def get_service(name: str, service: ServiceDep) -> dict[str, Any]:
    return _wire(service, service.webservices.get(name))


@router.patch(
    f"{BASE}/services/{{name}}",
    status_code=202,
    summary="`AciWebservice.update`, `AksWebservice.update`, `add_tags`, `add_properties`",
)
def patch_service(name: str, operations: list[PatchOperation], service: ServiceDep) -> Response:
    return _accepted(service, control.patch(service, name, operations))


@router.delete(f"{BASE}/services/{{name}}", summary="`Webservice.delete`")
def delete_service(name: str, service: ServiceDep) -> Response:
    return Response(status_code=200 if control.delete(service, name) else 204)


@router.get(f"{BASE}/services/{{name}}/logs", summary="`Webservice.get_logs`")
def get_logs(
    name: str,
    service: ServiceDep,
    tail: Annotated[int, Query(ge=0, le=_MAX_TAIL)] = 5000,
    init: bool = False,
) -> Logs:
    record = service.webservices.get(name)
    if init or not record.deployments:
        return Logs(content="")
    return Logs(content=read_log(start_of(service, name, record.deployments[0]), tail))


# Keys. Whoever asks for them is about to use the service: one that is asleep is there again when they are answered.


@router.post(f"{BASE}/services/{{name}}/listkeys", summary="`Webservice.get_keys`, `Webservice.run`")
async def list_keys(name: str, service: ServiceDep) -> Keys:
    await wake(service, name)
    record = service.webservices.get(name)
    return Keys(primary_key=record.primary_key, secondary_key=record.secondary_key)


@router.post(f"{BASE}/services/{{name}}/regenerateKeys", status_code=202, summary="`Webservice.regen_key`")
def regenerate_keys(name: str, body: KeyRequest, service: ServiceDep) -> Response:
    return _accepted(service, control.regenerate_key(service, name, body.key_type, body.key_value))


@router.post(
    f"{BASE}/services/{{name}}/token", summary="`AksWebservice.get_access_token`, `get_token`, `AksWebservice.run`"
)
async def issue_token(name: str, service: ServiceDep) -> ServiceToken:
    token, refresh, end = await run_in_threadpool(control.issue_token, service, name)
    await wake(service, name)
    return ServiceToken(access_token=token, refresh_after=int(refresh), expiry_on=int(end))


@router.get(f"{BASE}/operations/{{operation_id}}", summary="`Webservice.wait_for_deployment`, `Webservice.regen_key`")
async def get_operation(operation_id: str, service: ServiceDep, offset: Annotated[int, Query(ge=0)] = 0) -> Operation:
    # Answered late rather than asked for often: then the SDK's wait ends when the operation does.
    end = time.monotonic() + OPERATION_WAIT
    while True:
        found = service.webservices.operation(operation_id)
        if found.state.is_final or time.monotonic() >= end or service.is_stopping():
            found.streaming_operation_log = found.streaming_operation_log[offset:]
            return found
        await asyncio.sleep(LOOK_INTERVAL)


async def wake(service: Service, name: str) -> None:
    """Have a service there that is about to be asked something.

    Raises:
        ServiceError: 404.
    """
    await run_in_threadpool(control.wake, service, name)
    end = time.monotonic() + WAKE_WAIT
    while time.monotonic() < end and not service.is_stopping():
        coming = service.webservices.get(name).coming
        if coming is None or coming.operation:
            return
        await asyncio.sleep(LOOK_INTERVAL)


# What is refused with a reason


@router.post(f"{BASE}/images", summary="`Image.create`, `Webservice.deploy_from_model`: refused")
def create_image() -> None:
    raise rules.not_emulated("images; deploy with Model.deploy and an InferenceConfig that has an environment")


@router.post(f"{BASE}/packages", summary="`Model.package`: refused")
def create_package() -> None:
    raise rules.not_emulated("packages of models")


@router.post(f"{BASE}/profiles", summary="`Model.profile`: refused")
def create_profile() -> None:
    raise rules.not_emulated("profiling of models")


def _accepted(service: Service, operation_id: str) -> Response:
    # The SDK takes the last segment of it.
    path = BASE.format(
        subscription=service.settings.subscription_id,
        group=service.settings.resource_group,
        workspace=service.settings.workspace_name,
    )
    location = f"{service.base_url}{path}/operations/{operation_id}"
    return Response(status_code=202, headers={"Operation-Location": location})


def _model_ids(record: Webservice) -> list[str]:
    return list(record.deployments[0].image.get("modelIds") or []) if record.deployments else []


def _wire(service: Service, record: Webservice) -> dict[str, Any]:
    """Return a service as the SDK reads it."""
    answers = record.serving is not None and record.port and record.state is not ServiceState.FAILED
    found: dict[str, Any] = {
        "name": record.name,
        "computeType": record.compute_type,
        "createdTime": record.created,
        "updatedTime": record.updated,
        "createdBy": UserInfo().model_dump(by_alias=True),
        "state": record.state,
        "error": record.error,
        "scoringUri": f"http://127.0.0.1:{record.port}/score" if answers else None,
        "appInsightsEnabled": False,
        "models": [_model(service, model_id) for model_id in _model_ids(record) if _has_model(service, model_id)],
        **record.document,
    }
    if record.deployments:
        found["environmentImageRequest"] = record.deployments[0].image
        found["operationId"] = record.deployments[0].operation
    if record.compute_type == rules.ACI:
        found |= {"cname": None, "publicIp": "127.0.0.1" if answers else None}
        found |= {"sslCertificate": None, "sslEnabled": False, "sslKey": None}
        found["location"] = record.document["location"] or service.settings.location
    else:
        found["dataCollection"] = {"eventHubEnabled": False, "storageEnabled": False}
    return found


def _has_model(service: Service, model_id: str) -> bool:
    try:
        service.models.get(model_id)
    except ServiceError:
        return False
    return True


def _model(service: Service, model_id: str) -> dict[str, Any]:
    # With its experiment's name, the SDK would fetch experiment and run each time that it reads the service.
    model: Model = service.models.get(model_id).model_copy(update={"experiment_name": None})
    return model.model_dump(by_alias=True, mode="json")
