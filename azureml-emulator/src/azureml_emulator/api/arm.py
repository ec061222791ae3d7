"""Azure Resource Manager: sign-in, subscriptions, the workspace, discovery, VM sizes."""

# What a route is for is in its summary, from which the documentation's table is made.
# ruff: noqa: D103

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Header

from azureml_emulator.api.common import USER, WORKSPACE, ServiceDep, require_workspace
from azureml_emulator.bodies import ArmList
from azureml_emulator.errors import ServiceError
from azureml_emulator.tokens import TENANT_ID, Scope
from azureml_emulator.vm_sizes import offered_sizes
from azureml_emulator.wire import arm
from azureml_emulator.wire.compute import VmSizes

router = APIRouter(tags=["Sign-in, ARM, discovery"])


@router.post("/msi/{secret}/token", summary="`MsiAuthentication`, or `Workspace.from_config()` with `MSI_ENDPOINT` set")
def managed_identity_token(
    secret: str,
    service: ServiceDep,
    resource: Annotated[str, Form()],
    metadata: Annotated[str | None, Header()] = None,
) -> arm.MsiToken:
    if secret != service.authority.msi_secret or (metadata or "").lower() != "true":
        raise ServiceError(401, "AuthenticationFailed", "This is not the managed identity's URL.")
    token, expiry = service.issue_token(Scope.USER, audience=resource)
    lifetime = max(0, int(service.settings.token_lifetime))
    return arm.MsiToken(access_token=token, expires_on=str(int(expiry)), expires_in=str(lifetime), resource=resource)


@router.get("/subscriptions", dependencies=USER, summary="sign-in (list of subscriptions)")
def list_subscriptions(service: ServiceDep) -> ArmList[arm.Subscription]:
    subscription = service.settings.subscription_id
    return ArmList(
        value=[
            arm.Subscription(
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
)
def get_workspace(service: ServiceDep) -> arm.Workspace:
    settings = service.settings
    return arm.Workspace(
        id=settings.workspace_path,
        name=settings.workspace_name,
        location=settings.location,
        identity={"type": "SystemAssigned", "principalId": service.workspace_id, "tenantId": TENANT_ID},
        properties=arm.WorkspaceProperties(
            workspace_id=service.workspace_id,
            discovery_url=service.discovery_url,
            friendly_name=settings.workspace_name,
            creation_time=service.created,
        ),
    )


@router.get("/discovery/workspaces/{workspace_id}", summary="every call, once (service discovery)")
def discover(workspace_id: str, service: ServiceDep) -> arm.Discovery:
    if workspace_id != service.workspace_id:
        raise ServiceError(404, "WorkspaceNotFound", f"Workspace {workspace_id} was not found.")
    return arm.Discovery(**dict.fromkeys(arm.Discovery.model_fields, service.base_url))


@router.get(
    "/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices/locations/{location}/vmSizes",
    dependencies=USER,
    summary="`AmlCompute.supported_vmsizes`",
)
def list_vm_sizes(service: ServiceDep) -> VmSizes:
    without = service.faults.current.sizes_not_offered
    return VmSizes(aml_compute=offered_sizes(retired=service.settings.offer_retired_sizes, without=without))
