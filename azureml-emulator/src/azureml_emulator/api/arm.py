"""Azure Resource Manager: sign-in, subscriptions, the workspace, discovery, VM sizes, datastores."""

# What a route is for is in its summary, from which the documentation's table is made. A body is described by its
# fields; pydantic copies mutable defaults.
# ruff: noqa: D101, D103, RUF012

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Response

from azureml_emulator.api.common import USER, WORKSPACE, ServiceDep, guarded_router, require_workspace
from azureml_emulator.bodies import ArmList, Body
from azureml_emulator.errors import ServiceError
from azureml_emulator.state import cloud_description
from azureml_emulator.store.compute import VmSizes, offered_sizes
from azureml_emulator.tokens import TENANT_ID, Scope, TokenError


class MsiToken(Body):
    """Answer of the managed-identity endpoint; its keys are snake_case on the wire."""

    model_config = {"alias_generator": None}

    access_token: str
    expires_on: str
    expires_in: str
    resource: str
    token_type: str = "Bearer"  # noqa: S105 - a type of token, not a token


class Subscription(Body):
    id: str
    subscription_id: str
    display_name: str
    tenant_id: str
    state: str = "Enabled"


class WorkspaceProperties(Body):
    workspace_id: str
    discovery_url: str
    friendly_name: str
    description: str = ""
    creation_time: str
    provisioning_state: str = "Succeeded"
    storage_account: str = ""
    key_vault: str = ""
    application_insights: str = ""
    hbi_workspace: bool = False
    ml_flow_tracking_uri: str


class Workspace(Body):
    id: str
    name: str
    location: str
    type: str = "Microsoft.MachineLearningServices/workspaces"
    tags: dict[str, str] = {}
    sku: dict[str, str] = {"name": "Basic", "tier": "Basic"}
    identity: dict[str, str] = {}
    properties: WorkspaceProperties


class Discovery(Body):
    """URLs of the regional services. The SDK requires the first six."""

    api: str
    experimentation: str
    history: str
    hyperdrive: str
    modelmanagement: str
    studio: str
    execution: str
    environment: str
    pipelines: str
    notebook: str
    mlflow: str


router = guarded_router("Sign-in, ARM, discovery")


@router.get("/metadata/endpoints", summary="`import azureml.core`", description="`MLClient()`: what cloud is this?")
def describe_cloud(service: ServiceDep) -> Response:
    # It names addresses that whoever asks has already, and nothing else.
    return Response(cloud_description(service.base_url), media_type="application/json")


@router.get("/msi/token", summary="`azureml_emulator.Endpoint.fetch_token`", description="azure-identity, MSAL")
@router.get("/msi/token/", summary="`MsiAuthentication`, or `Workspace.from_config()` with what `Endpoint.env()` sets")
def managed_identity_token(
    service: ServiceDep, resource: str = "", secret: Annotated[str | None, Header()] = None
) -> MsiToken:
    # As App Service has it. The path alone opens nothing: it is in every message about a sign-in that failed.
    try:
        service.authority.check_msi_secret(secret)
    except TokenError as error:
        raise ServiceError(401, "AuthenticationFailed", str(error)) from None
    token, expiry = service.issue_token(Scope.USER, audience=resource)
    lifetime = max(0, int(service.settings.token_lifetime))
    return MsiToken(access_token=token, expires_on=str(int(expiry)), expires_in=str(lifetime), resource=resource)


@router.get("/subscriptions", dependencies=USER, summary="sign-in (list of subscriptions)")
def list_subscriptions(service: ServiceDep) -> ArmList[Subscription]:
    subscription = service.settings.subscription_id
    return ArmList(
        value=[
            Subscription(
                id=f"/subscriptions/{subscription}",
                subscription_id=subscription,
                display_name="emulator",
                tenant_id=TENANT_ID,
            )
        ]
    )


@router.get(
    WORKSPACE,
    dependencies=[*USER, Depends(require_workspace)],
    summary="`Workspace()`, `Workspace.get`, `Workspace.from_config`, `Workspace.get_details`",
    description="every `MLClient`, once; `workspaces.get`",
)
def get_workspace(service: ServiceDep) -> Workspace:
    settings = service.settings
    return Workspace(
        id=settings.workspace_path,
        name=settings.workspace_name,
        location=settings.location,
        identity={"type": "SystemAssigned", "principalId": service.workspace_id, "tenantId": TENANT_ID},
        properties=WorkspaceProperties(
            workspace_id=service.workspace_id,
            discovery_url=service.discovery_url,
            friendly_name=settings.workspace_name,
            creation_time=service.created,
            ml_flow_tracking_uri=service.tracking_uri,
        ),
    )


@router.get(
    "/discovery/workspaces/{workspace_id}",
    summary="every call, once (service discovery)",
    description="every `MLClient`, once",
)
def discover(workspace_id: str, service: ServiceDep) -> Discovery:
    if workspace_id != service.workspace_id:
        raise ServiceError(404, "WorkspaceNotFound", f"Workspace {workspace_id} was not found.")
    return Discovery(**dict.fromkeys(Discovery.model_fields, service.base_url))


@router.get(
    "/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices/locations/{location}/vmSizes",
    dependencies=USER,
    summary="`AmlCompute.supported_vmsizes`",
    description="`compute.list_sizes`",
)
def list_vm_sizes(service: ServiceDep) -> VmSizes:
    without = service.faults.current.sizes_not_offered
    sizes = offered_sizes(retired=service.settings.offer_retired_sizes, without=without)
    return VmSizes(aml_compute=sizes, value=sizes)
