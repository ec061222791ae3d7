"""What ARM says of managed online endpoints, in this project's words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from backends.azure.service_info import ID_TAG, MODEL_TAG, NETWORK_TAG, SCRIPT_TAG, Detail
from backends.azure.session import WorkspaceRef
from trainer.deploy.service import FAILED, HEALTHY, TRANSITIONING, UNHEALTHY, ServiceInfo

BACKEND = "azureml-v2"
KIND = "managed endpoint"
# States of ARM's that stay.
ENDED = ("Succeeded", "Failed", "Canceled")


class Deployed(NamedTuple):
    """A deployment.

    Attributes:
        name: Its name.
        state: ARM's word for how the latest change of it fares.
        tags: Its tags.
        model: ``name:version``; empty if it is not known.
        updated: Seconds since the epoch.
    """

    name: str
    state: str
    tags: Mapping[str, str]
    model: str
    updated: float

    @property
    def is_ours(self) -> bool:
        """Whether it was deployed by this program."""
        return ID_TAG in self.tags


class Endpoint(NamedTuple):
    """An endpoint, and what is deployed to it.

    Attributes:
        name: Its name.
        content: As ARM describes it.
        deployments: By name.
    """

    name: str
    content: Mapping[str, Any]
    deployments: Mapping[str, Deployed]

    @property
    def properties(self) -> Mapping[str, Any]:
        """What ARM says of it apart from tags and the like."""
        return mapping(self.content.get("properties"))

    @property
    def state(self) -> str:
        """ARM's word for how the latest change of it fares."""
        return str(self.properties.get("provisioningState", ""))

    @property
    def tags(self) -> Mapping[str, str]:
        """Its tags."""
        return mapping(self.content.get("tags"))

    @property
    def traffic(self) -> Mapping[str, int]:
        """Percent by deployment, of those that get any."""
        given = mapping(self.properties.get("traffic"))
        return {name: share for name, share in given.items() if isinstance(share, int) and share > 0}

    @property
    def live(self) -> Deployed | None:
        """The deployment that gets most of the traffic."""
        names = [name for name in self.traffic if name in self.deployments]
        return self.deployments[max(names, key=lambda name: self.traffic[name])] if names else None

    @property
    def newest(self) -> Deployed | None:
        """The deployment that was asked for last: by its tag, else by its time."""
        wanted = self.tags.get(ID_TAG)
        for one in self.deployments.values():
            if wanted is not None and one.tags.get(ID_TAG) == wanted:
                return one
        return max(self.deployments.values(), key=lambda one: one.updated, default=None)


def info_of(endpoint: Endpoint, ref: WorkspaceRef, detail: Detail | None = None) -> ServiceInfo:
    """Return what is known of an endpoint in this project's words.

    It is as healthy as the deployment that gets its traffic; where none does, as the one that was asked for last.

    Args:
        endpoint: As ARM has it.
        ref: The workspace.
        detail: What its record keeps, or None where it has none.
    """
    live, shown = endpoint.live, endpoint.live or endpoint.newest
    state, error = _state(endpoint)
    times = mapping(endpoint.content.get("systemData"))
    created = _seconds(times.get("createdAt"))
    return ServiceInfo(
        name=endpoint.name,
        backend=BACKEND,
        kind=KIND,
        state=state,
        model="" if shown is None else shown.model or shown.tags.get(MODEL_TAG, ""),
        script=None if shown is None else shown.tags.get(SCRIPT_TAG),
        network=None if shown is None else shown.tags.get(NETWORK_TAG),
        url=str(endpoint.properties.get("scoringUri") or "") or None if live is not None else None,
        created=created,
        updated=created if shown is None else shown.updated,
        error=error,
        detail=msgspec.to_builtins(Detail(workspace=ref) if detail is None else detail),
    )


def _state(endpoint: Endpoint) -> tuple[str, str]:
    live, newest = endpoint.live, endpoint.newest
    if live is not None:
        if live.state == "Failed":
            return UNHEALTHY, f"The latest change of the deployment {live.name} has failed."
        return HEALTHY, ""
    if endpoint.state == "Deleting":
        return "Deleting", ""
    if endpoint.state == "Failed":
        return FAILED, "The endpoint could not be made."
    if newest is None:
        return TRANSITIONING, "Nothing is deployed to the endpoint yet."
    if newest.state not in ENDED:
        return TRANSITIONING, ""
    if newest.state == "Succeeded":
        # Its client is about to give it the traffic, or has ended before it could.
        return TRANSITIONING, "No deployment of the endpoint gets traffic yet."
    return FAILED, f"The deployment {newest.name} has failed."


def deployed_of(content: Mapping[str, Any]) -> Deployed:
    """Read a deployment."""
    properties, times = mapping(content.get("properties")), mapping(content.get("systemData"))
    # .../models/NAME/versions/VERSION, or azureml:NAME:VERSION
    parts = str(properties.get("model") or "").split("/")
    model = f"{parts[-3]}:{parts[-1]}" if len(parts) > 3 and parts[-2] == "versions" else ""
    return Deployed(
        name=str(content.get("name", "")),
        state=str(properties.get("provisioningState", "")),
        tags=mapping(content.get("tags")),
        model=model,
        updated=_seconds(times.get("lastModifiedAt") or times.get("createdAt")),
    )


def _seconds(value: object) -> float:
    try:
        return datetime.fromisoformat(str(value)).timestamp()
    except ValueError:
        return 0.0


def mapping(value: object) -> dict[str, Any]:
    """Return a value that should be an object; an empty one for another."""
    return value if isinstance(value, dict) else {}
