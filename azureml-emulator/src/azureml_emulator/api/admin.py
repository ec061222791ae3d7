"""The emulator's own API, below /_emulator. Only its admin token opens it, but for the health check."""

# What a route is for is in its summary, from which the documentation's table is made.
# ruff: noqa: D103

from __future__ import annotations

import os
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel, Field

from azureml_emulator.api.common import ADMIN, ServiceDep, guarded_router
from azureml_emulator.endpoint import RequestInfo
from azureml_emulator.errors import ServiceError
from azureml_emulator.faults import Faults

router = guarded_router("Emulator", prefix="/_emulator")


class Health(BaseModel):
    """Who is there."""

    service: str = "azureml-emulator"
    workspace_id: str
    pid: int


class Shutdown(BaseModel):
    """How to stop."""

    kill_jobs: bool = False


class Eviction(BaseModel):
    """How a node is lost; ``notice`` is in seconds."""

    notice: float = Field(default=0.0, ge=0, allow_inf_nan=False)


@router.get("/health", summary="`azureml_emulator.find`")
def health(service: ServiceDep) -> Health:
    return Health(workspace_id=service.workspace_id, pid=os.getpid())


@router.get("/faults", dependencies=ADMIN, summary="`Endpoint.faults`")
def get_faults(service: ServiceDep) -> Faults:
    return service.faults.current


@router.put("/faults", dependencies=ADMIN, summary="`Endpoint.set_faults`")
def set_faults(faults: Faults, service: ServiceDep) -> Faults:
    service.faults.set(faults)
    return service.faults.current


@router.get("/requests", dependencies=ADMIN, summary="`Endpoint.recorded_requests`")
def get_requests(service: ServiceDep) -> list[RequestInfo]:
    return service.requests.records()


@router.get("/unknown-requests", dependencies=ADMIN, summary="`Endpoint.unknown_requests`")
def get_unknown_requests(service: ServiceDep) -> list[RequestInfo]:
    return service.requests.unknown()


@router.delete("/requests", dependencies=ADMIN, summary="`Endpoint.clear_requests`")
def clear_requests(service: ServiceDep) -> Response:
    service.requests.clear()
    return Response()


@router.post("/runs/{run_id}/evict", dependencies=ADMIN, summary="`Endpoint.evict`")
def evict(run_id: str, service: ServiceDep, body: Eviction | None = None) -> Response:
    if service.jobs.find(run_id) is None:
        raise ServiceError(404, "JobNotFound", f"Run {run_id} is no job of this emulator.")
    service.jobs.update(run_id, evict=True, notice=(body or Eviction()).notice)
    return Response()


@router.post("/shutdown", dependencies=ADMIN, summary="`Endpoint.stop`")
def shutdown(body: Shutdown, request: Request) -> dict[str, Any]:
    request.app.state.shutdown(body.kill_jobs)
    return {}
