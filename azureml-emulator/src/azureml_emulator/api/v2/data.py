"""Data assets of SDK v2: a name and a version for a file or a folder in a data store."""

# What a route is for is in its summary, from which the documentation's table is made.
# ruff: noqa: D103

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query, Response

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
from azureml_emulator.assets import DATA, resolve
from azureml_emulator.bodies import ArmList, StrictBody
from azureml_emulator.errors import bad_request, not_found
from azureml_emulator.service import Service
from azureml_emulator.store.versions import AssetVersion

BASE = f"{WORKSPACE}/data"
FIXED = ("dataUri", "dataType")
"""What can't be changed any more."""
LIST = [only_query("$orderBy", "$top", "$skip", "listViewType")]


class DataProperties(StrictBody):
    """A file or a folder; tables (``mltable``) are not emulated."""

    data_type: Literal["uri_file", "uri_folder"] = "uri_folder"
    data_uri: str
    description: str | None = None
    properties: dict[str, Any] = {}  # noqa: RUF012
    tags: dict[str, Any] = {}  # noqa: RUF012
    is_anonymous: bool = False
    is_archived: bool = False


class DataRequest(StrictBody):
    """PUT: make a version, or archive one."""

    properties: DataProperties


router = guarded_router("Data assets (ARM)", access=ARM_ACCESS)


@router.get(BASE, dependencies=LIST, summary="`data.list()`")
def list_data(service: ServiceDep, view: View = "ActiveOnly") -> ArmList[Resource]:
    names = dict.fromkeys(item.name for item in service.versions.all(DATA) if not item.properties["isAnonymous"])
    found = [_container(service, name) for name in names]
    return ArmList(value=[item for item in found if in_view(item.properties["isArchived"], view)])


@router.get(f"{BASE}/{{name}}", summary="`data.create_or_update` without a version")
def get_data(name: str, service: ServiceDep) -> Resource:
    return _container(service, name)


@router.get(f"{BASE}/{{name}}/versions", dependencies=LIST, summary="`data.list(name)`, `data.get(label=)`")
def list_versions(
    name: str,
    service: ServiceDep,
    top: Annotated[int | None, Query(alias="$top")] = None,
    view: View = "ActiveOnly",
) -> ArmList[Resource]:
    found = [item for item in service.versions.of(DATA, name) if in_view(item.properties["isArchived"], view)]
    return ArmList(value=[_describe(service, item) for item in found[:top]])


@router.get(f"{BASE}/{{name}}/versions/{{version}}", summary="`data.get(version=)`, an `Input` that names an asset")
def get_version(name: str, version: str, service: ServiceDep) -> Resource:
    return _describe(service, service.versions.get(DATA, name, version))


@router.put(f"{BASE}/{{name}}/versions/{{version}}", summary="`data.create_or_update`, `.archive`, `.restore`")
def put_version(name: str, version: str, body: DataRequest, service: ServiceDep, response: Response) -> Resource:
    given = body.properties
    check_name(name)
    # In its long form, and without the user-info that the SDK has put into the address of a blob.
    trailing = "/" if given.data_uri.endswith("/") else ""
    given.data_uri = resolve(service, given.data_uri).long_uri(service) + trailing
    properties = given.model_dump(by_alias=True, exclude_none=True)
    with service.database.transaction():
        known = service.versions.find(DATA, name, version)
        if known is not None and any(known.properties.get(key) != properties.get(key) for key in FIXED):
            raise immutable(f"Data version {name}:{version}", status=409)
        types = {item.properties["dataType"] for item in service.versions.of(DATA, name)}
        if types - {given.data_type}:
            raise bad_request(f"{name} is a {types.pop()}, and its versions are all of one type.")
        response.status_code = 201 if known is None else 200
        return _describe(service, service.versions.save(DATA, name, version, properties))


def _container(service: Service, name: str) -> Resource:
    versions = service.versions.of(DATA, name)
    if not versions:
        raise not_found("Data", name)
    numbers = [int(item.version) for item in versions if item.version.isdecimal()]
    properties = {
        "dataType": versions[0].properties["dataType"],
        "latestVersion": versions[0].version,
        "nextVersion": str(max(numbers, default=0) + 1),
        "isArchived": all(item.properties["isArchived"] for item in versions),
        "tags": {},
        "properties": {},
        "description": None,
    }
    return resource(service, f"data/{name}", properties, created=versions[-1].created, modified=versions[0].created)


def _describe(service: Service, item: AssetVersion) -> Resource:
    return resource(service, f"data/{item.name}/versions/{item.version}", item.properties, created=item.created)
