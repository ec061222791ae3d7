"""The two data stores of a workspace, as SDK v2 asks for them."""

# What a route is for is in its summary, from which the documentation's table is made.
# ruff: noqa: D103

from __future__ import annotations

from typing import Any

from azureml_emulator.api.common import WORKSPACE, ServiceDep, guarded_router
from azureml_emulator.api.v2.common import ARM_ACCESS, Resource, only_query, resource
from azureml_emulator.bodies import ArmList, StrictBody
from azureml_emulator.errors import bad_request
from azureml_emulator.service import Service
from azureml_emulator.state import STORAGE_ACCOUNT

BASE = f"{WORKSPACE}/datastores"


class SecretRequest(StrictBody):
    """How long the secret is to be good for."""

    expirable_secret: bool = True
    expire_after_hours: int = 1


router = guarded_router("Data stores (ARM)", access=ARM_ACCESS)


@router.get(
    BASE, dependencies=[only_query("isDefault", "count", "orderByAsc", "orderBy", "$skip")], summary="`jobs.download`"
)
def list_datastores(service: ServiceDep, isDefault: bool | None = None) -> ArmList[Resource]:  # noqa: N803
    names = service.containers.datastores
    return ArmList(
        value=[_describe(service, name) for name in names if isDefault is None or isDefault == (name == names[0])]
    )


@router.get(f"{BASE}/{{name}}", summary="uploads of inputs, build contexts and models, every download")
def get_datastore(name: str, service: ServiceDep) -> Resource:
    return _describe(service, name)


@router.post(f"{BASE}/{{name}}/listSecrets", summary="uploads of inputs, build contexts and models, every download")
def list_secrets(name: str, service: ServiceDep, body: SecretRequest | None = None) -> dict[str, Any]:
    wanted = body or SecretRequest()
    if not wanted.expirable_secret:
        raise bad_request("The emulator gives no account keys, only signatures that expire.", "NotEmulated")
    container = service.containers.of_datastore(name)
    token = service.container_signature(container, wanted.expire_after_hours * 3600.0)
    return {"secretsType": "Sas", "sasToken": token}


def _describe(service: Service, name: str) -> Resource:
    container = service.containers.of_datastore(name)
    properties = {
        "datastoreType": "AzureBlob",
        "isDefault": name == service.containers.datastores[0],
        "accountName": STORAGE_ACCOUNT,
        "containerName": container,
        "endpoint": "core.windows.net",
        "protocol": "https",
        # What Azure's own data stores say; the secret that is given is a signature, as with shared access signatures.
        "credentials": {"credentialsType": "AccountKey"},
        "tags": {},
        "properties": {},
        "description": None,
    }
    return resource(service, f"datastores/{name}", properties, created=service.created)
