"""What the routes share: the service, sign-in, paths."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.params import Depends as Dependency
from fastapi.routing import APIRoute
from starlette.types import Message

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


def _claims(request: Request) -> Claims:
    # A route's guard and its dependencies both ask.
    known: Claims | None = request.scope.get("emulator.claims")
    if known is not None:
        return known
    service: Service = request.app.state.service
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise ServiceError(401, "AuthenticationFailed", "A bearer token is required.")
    try:
        claims = service.check_token(token.strip())
    except TokenError as error:
        raise ServiceError(401, "InvalidAuthenticationToken", f"The bearer token is not valid: {error}") from None
    request.scope["emulator.claims"] = claims
    return claims


async def require_user(request: Request) -> None:
    """Let a person's token pass, not a job's: ARM does not know run tokens."""
    if _claims(request).scope not in (Scope.USER, Scope.ADMIN):
        raise ServiceError(403, "AuthorizationFailed", "A run's token is not accepted here.")


async def require_data_plane(request: Request) -> None:
    """Let a person's or a job's token pass."""
    _claims(request)


async def require_admin(request: Request) -> None:
    """Let only the emulator's own token pass."""
    if _claims(request).scope is not Scope.ADMIN:
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

MAX_BODY = 8 << 20
"""Bytes of a body that is parsed in memory. The SDK's largest, a snapshot of 2,000 files, is far below."""
_GUARDS = (require_user, require_data_plane, require_admin)
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def max_body(size: int) -> Callable[[Endpoint], Endpoint]:
    """Give a route another limit than ``MAX_BODY``, in bytes."""

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.__dict__["max_body"] = size
        return endpoint

    return mark


class GuardedRoute(APIRoute):
    """A route that checks the token before it reads the body, of which it reads no more than its limit.

    FastAPI by itself reads and parses a body before it calls the first dependency.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        handle = super().get_route_handler()
        asked = {item.dependency for item in self.dependencies}
        guards = [guard for guard in _GUARDS if guard in asked]
        limit: int = getattr(self.endpoint, "max_body", MAX_BODY)

        async def guarded(request: Request) -> Response:
            for guard in guards:
                await guard(request)
            return await handle(_limited(request, limit))

        return guarded


def _limited(request: Request, limit: int) -> Request:
    announced = request.headers.get("Content-Length", "0")
    if not announced.isdecimal() or int(announced) > limit:
        raise _too_large(limit)
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise _too_large(limit)
        return message

    return Request(request.scope, receive)


def _too_large(limit: int) -> HTTPException:
    # FastAPI lets this one through while it reads a body, and answers 400 for any other.
    return HTTPException(413, f"The request body is larger than {limit} bytes.")


def guarded_router(subject: str, *, access: list[Dependency] | None = None, prefix: str = "") -> APIRouter:
    """Make the router of one subject.

    Args:
        subject: Heading of its part of the documentation's table.
        access: Who may use all of its routes.
        prefix: How their paths begin.
    """
    return APIRouter(tags=[subject], dependencies=access or [], prefix=prefix, route_class=GuardedRoute)


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
