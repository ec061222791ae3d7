"""The model registry as SDK v2 sees it: the same models as SDK v1's."""

# What a route is for is in its summary, from which the documentation's table is made.
# ruff: noqa: D103

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Response

from azureml_emulator.api.common import WORKSPACE, ServiceDep, guarded_router
from azureml_emulator.api.v2.common import ARM_ACCESS, Resource, View, check_name, in_view, only_query, resource
from azureml_emulator.assets import Place, artifact_prefix, model_place, resolve
from azureml_emulator.bodies import ArmList, StrictBody
from azureml_emulator.errors import bad_request, not_found
from azureml_emulator.service import Service
from azureml_emulator.store.models import ArtifactPrefix, AssetRequest, Model, ModelRequest

BASE = f"{WORKSPACE}/models"
TYPES = ("custom_model", "mlflow_model", "triton_model")
LIST = [only_query("$orderBy", "$top", "$skip", "listViewType", "tags")]


class ModelProperties(StrictBody):
    """A version's content."""

    model_uri: str
    model_type: str = "custom_model"
    description: str | None = None
    tags: dict[str, str] = {}  # noqa: RUF012
    properties: dict[str, str] = {}  # noqa: RUF012
    flavors: dict[str, Any] = {}  # noqa: RUF012
    job_name: str | None = None
    stage: str | None = None
    is_anonymous: bool = False
    is_archived: bool = False


class ModelVersionRequest(StrictBody):
    """PUT: register a version, or change or archive one."""

    properties: ModelProperties


class ContainerProperties(StrictBody):
    """What all versions of a name have in common."""

    description: str | None = None
    tags: dict[str, str] = {}  # noqa: RUF012
    properties: dict[str, str] = {}  # noqa: RUF012
    is_archived: bool = False
    latest_version: str | None = None
    next_version: str | None = None
    provisioning_state: str | None = None


class ContainerRequest(StrictBody):
    """PUT: archive or restore every version of a name."""

    properties: ContainerProperties


router = guarded_router("Models (ARM)", access=ARM_ACCESS)


@router.get(BASE, dependencies=LIST, summary="`models.list()`")
def list_models(service: ServiceDep, view: View = "ActiveOnly") -> ArmList[Resource]:
    names = dict.fromkeys(model.name for model in service.models.all())
    described = [_container(service, name) for name in names]
    return ArmList(value=[item for item in described if in_view(item.properties["isArchived"], view)])


@router.get(f"{BASE}/{{name}}", summary="`models.create_or_update` without a version, `models.archive(name)`")
def get_model(name: str, service: ServiceDep) -> Resource:
    return _container(service, name)


@router.put(f"{BASE}/{{name}}", summary="`models.archive(name)`, `models.restore(name)`")
def put_model(name: str, body: ContainerRequest, service: ServiceDep) -> Resource:
    if body.properties.tags or body.properties.properties or body.properties.description:
        raise bad_request("Tags, properties and a description are of a model's versions here.", "NotEmulated")
    service.models.archive(name, archived=body.properties.is_archived)
    return _container(service, name)


@router.get(f"{BASE}/{{name}}/versions", dependencies=LIST, summary="`models.list(name)`, `models.get(label=)`")
def list_versions(
    name: str,
    service: ServiceDep,
    top: Annotated[int | None, Query(alias="$top")] = None,
    order: Annotated[str | None, Query(alias="$orderBy")] = None,
    tags: str | None = None,
    view: View = "ActiveOnly",
) -> ArmList[Resource]:
    if order not in (None, "createdtime desc"):
        raise bad_request(f"Ordering models by {order!r} is not emulated.", "NotEmulated")
    if tags:
        raise bad_request("Filtering models by tags is not emulated.", "NotEmulated")
    found = [model for model in service.models.all() if model.name == name and in_view(model.archived, view)]
    return ArmList(value=[_describe(service, model) for model in found[:top]])


@router.get(f"{BASE}/{{name}}/versions/{{version}}", summary="`models.get`, `models.download`")
def get_version(name: str, version: str, service: ServiceDep) -> Resource:
    return _describe(service, service.models.get(f"{name}:{version}"))


@router.put(
    f"{BASE}/{{name}}/versions/{{version}}",
    summary="`models.create_or_update`, `models.archive`, `models.restore`",
)
def put_version(
    name: str, version: str, body: ModelVersionRequest, service: ServiceDep, response: Response
) -> Resource:
    given = body.properties
    check_name(name)
    if not (version.isascii() and version.isdecimal() and int(version) > 0):
        raise bad_request(
            f"{version!r} is no version here: SDK v1 shares the registry, and has numbers.", "NotEmulated"
        )
    if given.model_type not in TYPES:
        raise bad_request(f"A model of the type {given.model_type} is not emulated.", "NotEmulated")
    place = resolve(service, given.model_uri)
    with service.database.transaction():
        known = service.models.find(name, int(version))
        if known is None:
            model = _register(service, name, int(version), given, place)
        elif model_place(service, name, version) != place:
            # In these words the SDK recognises the error.
            raise bad_request("Asset paths cannot be updated.")
        else:
            model = service.models.update(known.id, lambda model: _change(model, given))
        response.status_code = 201 if known is None else 200
        return _describe(service, model)


def _register(service: Service, name: str, version: int, given: ModelProperties, place: Place) -> Model:
    if not service.containers.below(service.containers.of_datastore(place.datastore), place.path):
        raise bad_request(f"There is nothing at {given.model_uri}.", "ModelNotFound")
    job = given.job_name or place.job
    run = service.runs.find(job) if job else None
    prefix = artifact_prefix(service, place)
    asset = service.models.add_asset(AssetRequest(name=name, artifacts=[ArtifactPrefix(prefix=prefix)], runid=job))
    made = service.models.register(
        ModelRequest(
            name=name,
            url=f"aml://asset/{asset.id}",
            run_id=job,
            experiment_name=service.runs.experiment_by_id(run.experiment_id).name if run else None,
            framework="Custom",
        ),
        version=version,
    )
    return service.models.update(made.id, lambda model: _change(model, given))


def _change(model: Model, given: ModelProperties) -> None:
    model.description = given.description
    model.kv_tags = given.tags
    model.properties = given.properties
    model.model_type = given.model_type
    model.flavors = given.flavors
    model.stage = given.stage
    model.archived = given.is_archived


def _container(service: Service, name: str) -> Resource:
    versions = [model for model in service.models.all() if model.name == name]
    if not versions:
        raise not_found("Model", name)
    properties = {
        "latestVersion": str(versions[0].version),
        "nextVersion": str(service.models.last_version(name) + 1),
        "isArchived": all(model.archived for model in versions),
        "tags": {},
        "properties": {},
        "description": None,
        "provisioningState": "Succeeded",
    }
    return resource(
        service,
        f"models/{name}",
        properties,
        created=versions[-1].created_time,
        modified=versions[0].modified_time,
    )


def _describe(service: Service, model: Model) -> Resource:
    properties = {
        "modelUri": model_place(service, model.name, str(model.version)).long_uri(service),
        "modelType": model.model_type,
        "description": model.description,
        "tags": model.kv_tags,
        "properties": model.properties,
        "flavors": model.flavors,
        "jobName": model.run_id,
        "stage": model.stage,
        "isAnonymous": False,
        "isArchived": model.archived,
        "provisioningState": "Succeeded",
    }
    return resource(
        service,
        f"models/{model.name}/versions/{model.version}",
        properties,
        created=model.created_time,
        modified=model.modified_time,
    )
