"""Under what names the services of this machine are kept.

A web service of SDK v1 has its own name, which has no dot in it. An online endpoint of SDK v2 is a service
``NAME.endpoint``, each of its deployments one ``ENDPOINT.NAME.deployment``. So none meets another, and each has a
directory.
"""

from __future__ import annotations

import os
from pathlib import Path

ENDPOINT, MANAGED = "OnlineEndpoint", "Managed"
"""What stands in place of v1's ``ACI`` and ``AKS``."""
SOCKET = "front"
_ENDPOINT, _DEPLOYMENT = ".endpoint", ".deployment"


def of_endpoint(name: str) -> str:
    """Return the service of an endpoint."""
    return name + _ENDPOINT


def of_deployment(endpoint: str, name: str) -> str:
    """Return the service of a deployment."""
    return f"{endpoint}.{name}{_DEPLOYMENT}"


def endpoint_of(service: str) -> str:
    """Return the endpoint that a service is, or that it is a deployment of."""
    return service.partition(".")[0]


def deployment_of(service: str) -> str:
    """Return the deployment that a service is."""
    return service.split(".")[1]


def socket_of(endpoint: str, deployment: str, start: Path) -> str:
    """Return where a deployment listens, as seen from a working directory: a socket's path has little room."""
    return os.path.relpath(start.parents[2] / of_deployment(endpoint, deployment) / SOCKET, start)
