"""Code versions: the source folders of jobs."""

# What a route is for is in its summary, from which the documentation's table is made.
# ruff: noqa: D103

from __future__ import annotations

import uuid
from typing import Any

from fastapi import Response

from azureml_emulator.api.common import WORKSPACE, ServiceDep, guarded_router
from azureml_emulator.api.v2.common import ARM_ACCESS, Resource, check_name, immutable, only_query, resource
from azureml_emulator.bodies import ArmList, StrictBody
from azureml_emulator.errors import bad_request
from azureml_emulator.service import Service
from azureml_emulator.store.versions import AssetVersion

BASE = f"{WORKSPACE}/codes/{{name}}/versions"
KIND = "codes"
HASH = "hash_sha256"


class UploadRequest(StrictBody):
    """Asks for a place to upload to."""

    pending_upload_id: str | None = None
    pending_upload_type: str = "TemporaryBlobReference"


class CodeProperties(StrictBody):
    """A folder of blobs."""

    code_uri: str
    description: str | None = None
    properties: dict[str, Any] = {}  # noqa: RUF012
    tags: dict[str, Any] = {}  # noqa: RUF012
    is_anonymous: bool = False
    is_archived: bool = False


class CodeRequest(StrictBody):
    """PUT: make a version."""

    properties: CodeProperties


router = guarded_router("Code", access=ARM_ACCESS)


@router.get(
    BASE,
    dependencies=[only_query("hash", "hashVersion", "$orderBy", "$top", "$skip")],
    summary="`jobs.create_or_update` of a job with `code` (is it there already?)",
)
def find_code(name: str, service: ServiceDep, hash: str | None = None) -> ArmList[Resource]:
    # Each new folder comes under a name of its own, so that looking for its hash means: under any name.
    found = service.versions.of(KIND, name) if hash is None else service.versions.all(KIND)
    if hash is not None:
        found = [item for item in found if item.properties["properties"].get(HASH) == hash][:1]
    return ArmList(value=[_describe(service, item) for item in found])


@router.post(
    f"{BASE}/{{version}}/startPendingUpload", summary="`jobs.create_or_update` of a job with `code` that is new"
)
def start_upload(body: UploadRequest, service: ServiceDep) -> dict[str, Any]:
    if body.pending_upload_type != "TemporaryBlobReference":
        raise bad_request(f"A pending upload of the type {body.pending_upload_type} is not emulated.", "NotEmulated")
    container = service.containers.new_upload()
    uri = f"{service.base_url}/{container}"
    return {
        "pendingUploadId": str(uuid.uuid4()),
        "pendingUploadType": body.pending_upload_type,
        "blobReferenceForConsumption": {
            "blobUri": uri,
            "storageAccountArmId": f"{service.settings.workspace_path}/storage",
            "credential": {
                "credentialType": "SAS",
                "sasUri": f"{uri}?{service.container_signature(container)}",
            },
        },
    }


@router.put(f"{BASE}/{{version}}", summary="`jobs.create_or_update` of a job with `code` that is new")
def put_code(name: str, version: str, body: CodeRequest, service: ServiceDep, response: Response) -> Resource:
    properties = body.properties.model_dump(by_alias=True)
    check_name(name)
    with service.database.transaction():
        known = service.versions.find(KIND, name, version)
        if known is not None and known.properties["codeUri"] != properties["codeUri"]:
            raise immutable(f"Code {name}:{version}")
        detail = known.detail if known else {"snapshot": _snapshot(service, body.properties.code_uri)}
        response.status_code = 201 if known is None else 200
        return _describe(service, service.versions.save(KIND, name, version, properties, detail))


@router.get(f"{BASE}/{{version}}", summary="`jobs.create_or_update` of a job with `code` that is there already")
def get_code(name: str, version: str, service: ServiceDep) -> Resource:
    return _describe(service, service.versions.get(KIND, name, version))


def _snapshot(service: Service, uri: str) -> str:
    container, _, path = uri.removeprefix(f"{service.base_url}/").rstrip("/").partition("/")
    if not uri.startswith(f"{service.base_url}/"):
        raise bad_request("Code must be in a container of this emulator.")
    files = service.containers.below(container, path)
    if not files:
        raise bad_request(f"There is nothing at {uri}.")
    # A single file has no path within itself.
    keys = {inner or path.rpartition("/")[2]: stored.blob_key for inner, stored in files.items()}
    return service.snapshots.add_files(keys)


def _describe(service: Service, item: AssetVersion) -> Resource:
    return resource(service, f"codes/{item.name}/versions/{item.version}", item.properties, created=item.created)
