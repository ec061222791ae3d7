"""Datastores: the workspace's own, as far as the SDK asks for it by itself."""

# What a route is for is in its summary, from which the documentation's table is made, a body is described by its
# fields, and pydantic copies mutable defaults.
# ruff: noqa: D101, D103, RUF012

from __future__ import annotations

from fastapi import Response

from azureml_emulator.api.common import DATA_PLANE, WORKSPACE, ServiceDep, guarded_router
from azureml_emulator.bodies import Body, Page
from azureml_emulator.errors import bad_request, not_found
from azureml_emulator.service import Service

BASE = f"/datastore/v1.0{WORKSPACE}/datastores"
ACCOUNT = "emulator"
# By name, the container. The SDK looks the first up and registers the second before it submits resume_child_runs; both
# are where runs keep their files, so there is nothing to be stored of them.
CONTAINERS = {"workspaceblobstore": "azureml-blobstore", "blobstorage_datastore": "azureml"}

router = guarded_router("Datastores", access=DATA_PLANE)


class StorageSection(Body):
    account_name: str | None = None
    container_name: str | None = None


class StoredSection(StorageSection):
    endpoint: str = "core.windows.net"
    protocol: str = "https"
    credential_type: str = "None"
    credential: str | None = None
    account_key: str | None = None
    sas_token: str | None = None
    is_sas: bool = False
    subscription_id: str
    resource_group: str


class Registration(Body):
    name: str
    data_store_type: str
    azure_storage_section: StorageSection | None = None


class Datastore(Body):
    name: str
    data_store_type: str = "AzureBlob"
    has_been_validated: bool = True
    tags: dict[str, str] = {}
    azure_storage_section: StoredSection


@router.get(BASE, summary="`Experiment.submit(estimator)` with `node_count` > 1, `Workspace.datastores`")
def list_datastores() -> Page[Datastore]:
    # None: an estimator on several nodes would have the workspace's own mounted, and nothing is mounted here.
    return Page(value=[])


@router.get(f"{BASE}/{{name}}", summary="`HyperDriveConfig(resume_child_runs=)`")
def get_datastore(name: str, service: ServiceDep) -> Datastore:
    if name not in CONTAINERS:
        raise not_found("Datastore", name)
    return _datastore(service, name)


@router.post(BASE, summary="`HyperDriveConfig(resume_child_runs=)`")
def register_datastore(body: Registration, service: ServiceDep) -> Response:
    section = body.azure_storage_section
    own = _datastore(service, body.name).azure_storage_section if body.name in CONTAINERS else None
    asked = (section.account_name, section.container_name) if section is not None else None
    if own is None or asked != (own.account_name, own.container_name):
        raise bad_request(f"Datastores with data in them are not emulated; {body.name} can't be registered.")
    return Response()


def _datastore(service: Service, name: str) -> Datastore:
    return Datastore(
        name=name,
        azure_storage_section=StoredSection(
            account_name=ACCOUNT,
            container_name=CONTAINERS[name],
            subscription_id=service.settings.subscription_id,
            resource_group=service.settings.resource_group,
        ),
    )
