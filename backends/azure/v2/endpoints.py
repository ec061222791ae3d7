"""Managed online endpoints by plain HTTPS: what there is, its traffic, keys and logs, and its end.

An endpoint is an address with keys; what answers there are its deployments, among which it divides the traffic.
https://learn.microsoft.com/rest/api/azureml/online-endpoints
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from backends.azure.errors import ServiceUnavailableError, explained, is_transient, retry
from backends.azure.v2.connection import AnswerError, segments
from backends.azure.v2.endpoint_info import ENDED, Endpoint, deployed_of, mapping
from trainer.deploy.service import KeyName
from trainer.errors import RefusedError

if TYPE_CHECKING:
    from backends.azure.v2.connection import Connection

_T = TypeVar("_T")

# The versions of ARM's interface that SDK v2 1.35 asks with.
ENDPOINTS_VERSION = "2022-02-01-preview"
DEPLOYMENTS_VERSION = "2023-04-01-preview"
# What a token is for that opens an endpoint whose keys are Entra's.
_AUDIENCE = "https://ml.azure.com/.default"
# Removing one takes minutes on Azure.
_PATIENCE_SECONDS = 1800.0
_OUTAGE_SECONDS = 300.0
_LOOK_SECONDS, _EMULATED_LOOK_SECONDS = 5.0, 0.1


def find_endpoint(connection: Connection, name: str) -> Endpoint | None:
    """Look up an endpoint; None if the workspace has none of that name."""

    def find() -> Endpoint | None:
        try:
            return _read(connection, connection.arm("GET", _path(name), version=ENDPOINTS_VERSION))
        except AnswerError as error:
            if error.status_code == 404:
                return None
            raise

    with explained(f"look up the endpoint {name}"):
        return retry(find)


def all_endpoints(connection: Connection) -> list[Endpoint]:
    """Return all endpoints of the workspace."""

    def every() -> list[Endpoint]:
        found = []
        for one in connection.arm_list("/onlineEndpoints", version=ENDPOINTS_VERSION):
            try:
                found.append(_read(connection, one))
            except AnswerError as error:
                if error.status_code != 404:  # it has been removed since it was listed
                    raise
        return found

    with explained("list the endpoints"):
        return retry(every)


def change_endpoint(
    connection: Connection,
    endpoint: Endpoint,
    *,
    tags: Mapping[str, str | None] | None = None,
    traffic: Mapping[str, int] | None = None,
) -> Endpoint:
    """Change an endpoint's tags or its traffic, and wait until that holds.

    Args:
        connection: The workspace.
        endpoint: As it was seen last.
        tags: What is to be added; None takes one away.
        traffic: Percent by deployment, in the place of what there was.

    Returns:
        The endpoint as it is then.
    """
    properties = {
        name: endpoint.properties[name]
        for name in ("authMode", "description", "properties", "publicNetworkAccess", "compute")
        if endpoint.properties.get(name) is not None
    }
    properties["traffic"] = dict(endpoint.traffic if traffic is None else traffic)
    wanted = {name: value for name, value in {**endpoint.tags, **(tags or {})}.items() if value is not None}
    body: dict[str, Any] = {
        "location": endpoint.content.get("location") or connection.location,
        "tags": wanted,
        "identity": _identity(endpoint.content.get("identity")),
        "properties": properties,
    }

    def put() -> bool | None:
        return _unless_busy(lambda: connection.arm("PUT", _path(endpoint.name), version=ENDPOINTS_VERSION, body=body))

    with explained(f"change the endpoint {endpoint.name}"):
        _until(connection, put, f"The endpoint {endpoint.name} goes on being changed by others.")
    return settled(connection, endpoint.name)


def settled(connection: Connection, name: str) -> Endpoint:
    """Wait until no change of an endpoint is under way, and return it.

    Raises:
        ServiceUnavailableError: It takes too long.
        RefusedError: It is gone.
    """

    def look() -> Endpoint | None:
        found = find_endpoint(connection, name)
        if found is None:
            raise RefusedError(f"The endpoint {name} is gone.", f"Deploy again: --name {name}")
        return found if found.state in ENDED else None

    return _until(connection, look, f"The endpoint {name} goes on changing.")


def remove_endpoint(connection: Connection, name: str) -> None:
    """Remove an endpoint with its deployments, and wait until it is gone."""
    _remove(connection, _path(name), ENDPOINTS_VERSION, f"remove the endpoint {name}")


def remove_deployment(connection: Connection, endpoint: str, name: str) -> None:
    """Remove a deployment that has no traffic. On Azure it takes minutes until it is gone; nobody waits."""
    with explained(f"remove the deployment {name} of {endpoint}"):
        _delete(connection, _path(endpoint, name), DEPLOYMENTS_VERSION)


def state_of(connection: Connection, endpoint: str, deployment: str) -> str | None:
    """Return ARM's word for how a deployment fares; None if there is none."""

    def ask() -> str | None:
        try:
            found = connection.arm("GET", _path(endpoint, deployment), version=DEPLOYMENTS_VERSION)
        except AnswerError as error:
            if error.status_code == 404:
                return None
            raise
        return str(mapping(found.get("properties")).get("provisioningState", ""))

    with explained(f"look up the deployment {deployment} of {endpoint}"):
        return retry(ask)


def wait_until_ended(connection: Connection, endpoint: str, deployment: str) -> str:
    """Wait until a deployment is made, or won't be.

    Returns:
        ARM's word; ``Deleted`` if it is gone.
    """

    def look() -> str | None:
        state = state_of(connection, endpoint, deployment)
        return "Deleted" if state is None else state if state in ENDED else None

    return _until(connection, look, f"The deployment {deployment} of {endpoint} goes on.")


def keys_of(connection: Connection, endpoint: Endpoint) -> tuple[str, ...]:
    """Return what opens an endpoint: its two keys, or a token that holds for some hours."""
    mode = str(endpoint.properties.get("authMode", "")).lower()
    with explained(f"get the keys of {endpoint.name}"):
        if mode == "aadtoken":
            return (str(connection.credential.get_token(_AUDIENCE).token),)
        action = "token" if mode == "amltoken" else "listKeys"
        path = f"{_path(endpoint.name)}/{action}"
        found = retry(lambda: connection.arm("POST", path, version=ENDPOINTS_VERSION))
    names = ("accessToken",) if action == "token" else ("primaryKey", "secondaryKey")
    return tuple(str(found[name]) for name in names if found.get(name))


def has_keys(endpoint: Endpoint) -> bool:
    """Return whether an endpoint is opened by keys of its own."""
    return str(endpoint.properties.get("authMode", "")).lower() == "key"


def renew_key(connection: Connection, endpoint: Endpoint, which: KeyName) -> None:
    """Have one of an endpoint's keys replaced, and wait until its old one opens nothing any more."""
    before = keys_of(connection, endpoint)
    body = {"keyType": which.capitalize()}
    with explained(f"renew a key of {endpoint.name}"):
        path = f"{_path(endpoint.name)}/regenerateKeys"
        retry(lambda: connection.arm("POST", path, version=ENDPOINTS_VERSION, body=body))

    def renewed() -> bool | None:
        return keys_of(connection, endpoint) != before or None

    _until(connection, renewed, f"The keys of {endpoint.name} stay what they were.")


def log_of(connection: Connection, endpoint: str, deployment: str, lines: int) -> list[str]:
    """Return the last lines of a deployment's log."""
    body = {"containerType": "InferenceServer", "tail": lines}
    path = f"{_path(endpoint, deployment)}/getLogs"
    with explained(f"get the log of {endpoint}"):
        found = retry(lambda: connection.arm("POST", path, version=DEPLOYMENTS_VERSION, body=body))
    return str(found.get("content") or "").splitlines()[-lines:]


def _read(connection: Connection, content: Mapping[str, Any]) -> Endpoint:
    name = str(content.get("name", ""))
    found = connection.arm_list(f"{_path(name)}/deployments", version=DEPLOYMENTS_VERSION)
    deployments = [deployed_of(one) for one in found]
    return Endpoint(name, content, {one.name: one for one in deployments})


def _remove(connection: Connection, path: str, version: str, doing: str) -> None:
    def gone() -> bool | None:
        try:
            connection.arm("GET", path, version=version)
        except AnswerError as error:
            if error.status_code == 404:
                return True
            raise
        return None

    with explained(doing):
        _delete(connection, path, version)
        _until(connection, gone, f"It takes too long to {doing}.")


def _delete(connection: Connection, path: str, version: str) -> None:
    def delete() -> bool | None:
        try:
            return _unless_busy(lambda: connection.arm("DELETE", path, version=version))
        except AnswerError as error:
            if error.status_code == 404:
                return True
            raise

    _until(connection, delete, "It goes on being changed by others.")


def _unless_busy(ask: Callable[[], object]) -> bool | None:
    """Ask for a change; returns None where another one is under way."""
    try:
        ask()
    except AnswerError as error:
        if error.status_code == 409:
            return None
        raise
    return True


def _until(connection: Connection, look: Callable[[], _T | None], problem: str) -> _T:
    """Look until there is something, for half an hour; errors that pass are waited out for five minutes."""
    pause = _EMULATED_LOOK_SECONDS if connection.ref.is_emulated else _LOOK_SECONDS
    end = time.monotonic() + _PATIENCE_SECONDS
    failing_since: float | None = None
    while True:
        try:
            found = look()
            if found is not None:
                return found
            failing_since = None
        except Exception as error:
            failing_since = failing_since or time.monotonic()
            if not is_transient(error) or time.monotonic() - failing_since > _OUTAGE_SECONDS:
                raise
        if time.monotonic() > end:
            raise ServiceUnavailableError(problem, "Look at it in the portal, and try again later.")
        time.sleep(pause)


def _identity(given: object) -> dict[str, Any]:
    """Return an identity as it is sent: without what the service has added."""
    found = mapping(given)
    users = mapping(found.get("userAssignedIdentities"))
    kind = {"type": str(found.get("type") or "SystemAssigned")}
    return {**kind, **({"userAssignedIdentities": {name: {} for name in users}} if users else {})}


def _path(endpoint: str, deployment: str | None = None) -> str:
    inner = () if deployment is None else ("deployments", deployment)
    return segments("onlineEndpoints", endpoint, *inner)
