"""Environments of SDK v2. They are stored and given back; no image is built from them."""

# What a route is for is in its summary, from which the documentation's table is made.
# ruff: noqa: D103

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import model_validator

from azureml_emulator.api.common import WORKSPACE, ServiceDep, guarded_router
from azureml_emulator.api.v2.common import (
    ARM_ACCESS,
    Resource,
    View,
    check_name,
    immutable,
    in_view,
    only_query,
    resource,
)
from azureml_emulator.assets import resolve
from azureml_emulator.bodies import ArmList, StrictBody
from azureml_emulator.errors import bad_request, not_found
from azureml_emulator.service import Service
from azureml_emulator.store.versions import AssetVersion

BASE = f"{WORKSPACE}/environments"
KIND = "environments"
FIXED = ("image", "condaFile", "build", "osType", "inferenceConfig")
"""What can't be changed any more."""
LIST = [only_query("$orderBy", "$top", "$skip", "listViewType")]


class BuildContext(StrictBody):
    """A folder with a Dockerfile."""

    context_uri: str
    dockerfile_path: str = "Dockerfile"


class InferenceRoute(StrictBody):
    """Where a container answers."""

    path: str
    port: int


class InferenceConfig(StrictBody):
    """How a container of an online deployment is asked that brings its own server."""

    liveness_route: InferenceRoute | None = None
    readiness_route: InferenceRoute | None = None
    scoring_route: InferenceRoute | None = None


class EnvironmentProperties(StrictBody):
    """An image, an image and a conda file (YAML), or a build context."""

    image: str | None = None
    conda_file: str | None = None
    build: BuildContext | None = None
    inference_config: InferenceConfig | None = None
    description: str | None = None
    properties: dict[str, Any] = {}  # noqa: RUF012
    tags: dict[str, Any] = {}  # noqa: RUF012
    is_anonymous: bool = False
    is_archived: bool = False
    auto_rebuild: str | None = None
    os_type: str = "Linux"

    @model_validator(mode="after")
    def _has_a_base(self) -> EnvironmentProperties:
        if (self.image is None) == (self.build is None) or (self.build is not None and self.conda_file is not None):
            raise ValueError("an environment has an image, with or without a conda file, or a build context")
        return self


class EnvironmentRequest(StrictBody):
    """PUT: make a version, or archive one."""

    properties: EnvironmentProperties


router = guarded_router("Environments (ARM)", access=ARM_ACCESS)


@router.get(BASE, dependencies=LIST, summary="`environments.list()`")
def list_environments(service: ServiceDep, view: View = "ActiveOnly") -> ArmList[Resource]:
    names = dict.fromkeys(
        item.name for item in service.versions.all(KIND) if not item.properties.get("isAnonymous", False)
    )
    found = [_container(service, name) for name in names]
    return ArmList(value=[item for item in found if in_view(item.properties["isArchived"], view)])


@router.get(f"{BASE}/{{name}}", summary="`environments.create_or_update` without a version")
def get_environment(name: str, service: ServiceDep) -> Resource:
    return _container(service, name)


@router.get(
    f"{BASE}/{{name}}/versions", dependencies=LIST, summary="`environments.list(name)`, `environments.get(label=)`"
)
def list_versions(
    name: str,
    service: ServiceDep,
    top: Annotated[int | None, Query(alias="$top")] = None,
    view: View = "ActiveOnly",
) -> ArmList[Resource]:
    found = [item for item in service.versions.of(KIND, name) if in_view(item.properties["isArchived"], view)]
    return ArmList(value=[_describe(service, item) for item in found[:top]])


@router.get(f"{BASE}/{{name}}/versions/{{version}}", summary="`environments.get(version=)`")
def get_version(name: str, version: str, service: ServiceDep) -> Resource:
    return _describe(service, service.versions.get(KIND, name, version))


@router.put(
    f"{BASE}/{{name}}/versions/{{version}}",
    summary="`jobs.create_or_update` of a job with an `Environment`, `environments.create_or_update`, `.archive`",
)
def put_version(name: str, version: str, body: EnvironmentRequest, service: ServiceDep, response: Response) -> Resource:
    given = body.properties
    check_name(name)
    if given.build is not None:
        # With the host's user-info, which the SDK put there, an address is good for nothing but that SDK.
        given.build.context_uri = resolve(service, given.build.context_uri).long_uri(service)
    if given.os_type != "Linux":
        raise bad_request(f"Environments for {given.os_type} are not emulated.", "NotEmulated")
    properties = given.model_dump(by_alias=True, exclude_none=True)
    with service.database.transaction():
        known = service.versions.find(KIND, name, version)
        if known is not None and any(known.properties.get(key) != properties.get(key) for key in FIXED):
            # The SDK tries the latest version first, and takes the next one after this answer.
            raise immutable(f"Environment {name}:{version}", status=409)
        response.status_code = 201 if known is None else 200
        return _describe(service, service.versions.save(KIND, name, version, properties))


def _container(service: Service, name: str) -> Resource:
    versions = service.versions.of(KIND, name)
    if not versions:
        raise not_found("Environment", name)
    numbers = [int(item.version) for item in versions if item.version.isdecimal()]
    properties = {
        "latestVersion": versions[0].version,
        "nextVersion": str(max(numbers, default=0) + 1),
        "isArchived": all(item.properties["isArchived"] for item in versions),
        "tags": {},
        "properties": {},
        "description": None,
    }
    return resource(
        service, f"environments/{name}", properties, created=versions[-1].created, modified=versions[0].created
    )


def _describe(service: Service, item: AssetVersion) -> Resource:
    properties = {**item.properties, "environmentType": "UserCreated"}
    return resource(service, f"environments/{item.name}/versions/{item.version}", properties, created=item.created)
