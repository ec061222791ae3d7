"""The model registry."""

# What a route is for is in its summary, from which the documentation's table is made.
# ruff: noqa: D103

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query, Request, Response

from azureml_emulator.api.common import DATA_PLANE, WORKSPACE, ServiceDep, guarded_router, paginate
from azureml_emulator.bodies import Page
from azureml_emulator.errors import bad_request
from azureml_emulator.store.models import Asset, AssetRequest, Model, ModelRequest, PatchOperation

BASE = f"/modelmanagement/v1.0{WORKSPACE}"
_MAPPINGS = {"kvTags": "kv_tags", "properties": "properties"}
_TEXTS = {"description": "description"}

router = guarded_router("Models", access=DATA_PLANE)


@router.post(f"{BASE}/assets", summary="`Run.register_model`, `Model.register`")
def create_asset(body: AssetRequest, service: ServiceDep) -> Asset:
    return service.models.add_asset(body)


@router.get(f"{BASE}/assets/{{asset_id}}", summary="`Model.download`")
def get_asset(asset_id: str, service: ServiceDep) -> Asset:
    return service.models.asset(asset_id)


@router.post(f"{BASE}/models", summary="`Run.register_model`, `Model.register`")
def register_model(body: ModelRequest, service: ServiceDep) -> Model:
    service.models.asset(body.url.removeprefix("aml://asset/"))
    return service.models.register(body)


@router.get(f"{BASE}/models", summary="`Model(workspace, name)`, `Model.list`, `Workspace.models`")
def list_models(
    request: Request,
    service: ServiceDep,
    name: str | None = None,
    count: int = 255,
    latest: Annotated[bool, Query(alias="latestVersionOnly")] = False,
    tags: str | None = None,
    tag: str | None = None,
    properties: str | None = None,
    run_id: Annotated[str | None, Query(alias="runId")] = None,
    framework: str | None = None,
    dataset_id: Annotated[str | None, Query(alias="datasetId")] = None,
    order: Annotated[str | None, Query(alias="orderBy")] = None,
    skip: Annotated[str | None, Query(alias="$skipToken")] = None,
) -> Page[Model]:
    if dataset_id or order:
        raise bad_request("Filtering models by dataset and ordering them are not emulated.")
    found = [
        model
        for model in service.models.all()
        if name in (None, model.name)
        and run_id in (None, model.run_id)
        and framework in (None, model.framework)
        and has(model.kv_tags, tags)
        and has(model.kv_tags, tag)
        and has(model.properties, properties)
    ]
    if latest:
        newest: dict[str, Model] = {}
        for model in found:
            newest.setdefault(model.name, model)
        found = list(newest.values())
    page = paginate(found, count, skip)
    if page.continuation_token is not None:
        # This client follows the link's $skipToken, and ignores the token beside it.
        query = {**request.query_params, "$skipToken": page.continuation_token}
        page.next_link = f"{service.base_url}{request.url.path}?{urlencode(query)}"
    return page


@router.get(f"{BASE}/models/{{model_id}}", summary="`Model(workspace, name, version=)`, `Model(workspace, id=)`")
def get_model(model_id: str, service: ServiceDep) -> Model:
    return service.models.get(model_id)


@router.patch(
    f"{BASE}/models/{{model_id}}",
    summary="`Model.add_tags`, `Model.remove_tags`, `Model.add_properties`, `Model.update`",
)
def patch_model(model_id: str, operations: list[PatchOperation], service: ServiceDep) -> Model:
    def change(model: Model) -> None:
        for operation in operations:
            _apply(model, operation)

    return service.models.update(model_id, change)


@router.delete(f"{BASE}/models/{{model_id}}", summary="`Model.delete`")
def delete_model(model_id: str, service: ServiceDep) -> Response:
    service.models.delete(model_id)
    return Response()


def has(mapping: dict[str, str], condition: str | None) -> bool:
    """Tell whether a mapping meets ``key=value,other key``, as the SDK writes its filters."""
    for part in (condition or "").split(","):
        key, equals, value = part.partition("=")
        if key and (key not in mapping or (equals and mapping[key] != value)):
            return False
    return True


def _apply(model: Model, operation: PatchOperation) -> None:
    field, _, key = operation.path.strip("/").partition("/")
    if field in _MAPPINGS and not key and operation.op != "remove":
        setattr(model, _MAPPINGS[field], _texts(operation.value))
    elif field in _MAPPINGS and key:
        mapping = getattr(model, _MAPPINGS[field])
        name = key.replace("~1", "/").replace("~0", "~")
        if operation.op == "remove":
            mapping.pop(name, None)
        else:
            mapping[name] = str(operation.value)
    elif field in _TEXTS and not key and operation.op != "remove":
        setattr(model, _TEXTS[field], operation.value)
    else:
        raise bad_request(f"Patching {operation.path} by {operation.op} is not emulated.")


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise bad_request("The value of a patch to tags or properties must be an object.")
    return {str(key): str(item) for key, item in value.items()}
