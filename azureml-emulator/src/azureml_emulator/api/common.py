"""What the routes share: the service, sign-in, paths."""

from __future__ import annotations

from typing import Annotated, TypeVar

from fastapi import Depends, Request

from azureml_emulator.bodies import Page
from azureml_emulator.errors import ServiceError, bad_request
from azureml_emulator.service import Service
from azureml_emulator.tokens import Claims, Scope, TokenError

WORKSPACE = (
    "/subscriptions/{subscription}/resourceGroups/{group}"
    "/providers/Microsoft.MachineLearningServices/workspaces/{workspace}"
)
"""Path of a workspace, as every service has it."""

Item = TypeVar("Item")

# The dependencies are coroutines, though they wait for nothing: FastAPI would send each plain function through its
# thread pool, which takes longer than the function.


async def get_service(request: Request) -> Service:
    """Return the emulator that a request is for."""
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(get_service)]


async def _claims(request: Request, service: ServiceDep) -> Claims:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise ServiceError(401, "AuthenticationFailed", "A bearer token is required.")
    try:
        return service.authority.check(token.strip())
    except TokenError as error:
        raise ServiceError(401, "InvalidAuthenticationToken", f"The bearer token is not valid: {error}") from None


ClaimsDep = Annotated[Claims, Depends(_claims)]


async def require_user(claims: ClaimsDep) -> None:
    """Let a person's token pass, not a job's: ARM does not know run tokens."""
    if claims.scope not in (Scope.USER, Scope.ADMIN):
        raise ServiceError(403, "AuthorizationFailed", "A run's token is not accepted here.")


async def require_data_plane(claims: ClaimsDep) -> None:
    """Let a person's or a job's token pass."""


async def require_admin(claims: ClaimsDep) -> None:
    """Let only the emulator's own token pass."""
    if claims.scope is not Scope.ADMIN:
        raise ServiceError(403, "AuthorizationFailed", "The emulator's admin token is required.")


async def require_workspace(request: Request, service: ServiceDep) -> None:
    """Refuse other workspaces than the one that is served."""
    path, settings = request.path_params, service.settings
    asked = (path["subscription"], path["group"], path["workspace"])
    served = (settings.subscription_id, settings.resource_group, settings.workspace_name)
    if tuple(map(str.lower, asked)) != tuple(map(str.lower, served)):
        raise ServiceError(404, "ResourceNotFound", f"Workspace {'/'.join(asked)} was not found.")


USER = [Depends(require_user)]
DATA_PLANE = [Depends(require_workspace), Depends(require_data_plane)]
ADMIN = [Depends(require_admin)]


def paginate(items: list[Item], count: int | None, token: str | None) -> Page[Item]:
    """Return a page of ``items``; the token is the position of the next one.

    Raises:
        ServiceError: 400, the token is none of ours.
    """
    if token is not None and not token.isdecimal():
        raise bad_request("The continuation token is invalid.")
    start = int(token or 0)
    stop = len(items) if count is None else start + count
    more = stop < len(items)
    return Page(value=items[start:stop], continuation_token=str(stop) if more else None)
