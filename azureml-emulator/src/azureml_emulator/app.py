"""The ASGI application: routes, error answers, faults, the request log, and strictness."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from azureml_emulator.api import (
    admin,
    arm,
    artifacts,
    blobs,
    compute,
    datastores,
    environments,
    jobs,
    metrics,
    models,
    runs,
    snapshots,
    sweeps,
    webservices,
)
from azureml_emulator.api.v2 import codes, containers, data, endpoints, history, mlflow, signin
from azureml_emulator.api.v2 import datastores as arm_datastores
from azureml_emulator.api.v2 import environments as arm_environments
from azureml_emulator.api.v2 import jobs as arm_jobs
from azureml_emulator.api.v2 import models as arm_models
from azureml_emulator.endpoint import RequestInfo
from azureml_emulator.errors import ServiceError
from azureml_emulator.faults import FaultAction, FaultRule
from azureml_emulator.gate import Gate
from azureml_emulator.jobs.scheduler import Scheduler
from azureml_emulator.logs import recordable
from azureml_emulator.service import Service

ROUTERS: tuple[APIRouter, ...] = (
    arm.router,
    signin.router,
    compute.router,
    runs.router,
    snapshots.router,
    jobs.router,
    artifacts.router,
    blobs.router,
    metrics.router,
    models.router,
    datastores.router,
    sweeps.router,
    webservices.router,
    environments.router,
    arm_jobs.router,
    arm_jobs.operations,
    codes.router,
    arm_environments.router,
    arm_datastores.router,
    arm_models.router,
    data.router,
    endpoints.router,
    endpoints.operations,
    history.router,
    mlflow.router,
    containers.router,
    admin.router,
)
ALL_METHODS = ["GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS"]

log = logging.getLogger(__name__)


def create_app(service: Service, scheduler: Scheduler, shutdown: Callable[[bool], None], port: int) -> ASGIApp:
    """Make the application.

    Args:
        service: The emulator's state.
        scheduler: Knows what clusters' nodes do.
        shutdown: Stops the server; its argument says whether jobs are to be killed.
        port: The port that is listened on.
    """
    app = FastAPI(title="azureml-emulator", openapi_url=None, docs_url=None, redoc_url=None)
    app.state.service = service
    app.state.scheduler = scheduler
    app.state.shutdown = shutdown
    for router in ROUTERS:
        app.include_router(router)
    app.add_exception_handler(ServiceError, _answer_service_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid_request)
    app.add_api_route("/{path:path}", _answer_unknown_route, methods=ALL_METHODS, include_in_schema=False)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(RecursionError, _answer_recursion)
    return Gate(FaultsAndLog(app, service), port)


async def _answer_service_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)
    # HyperDrive's client reads nothing but this, with a number as the code; it would not show the reason otherwise.
    short = {"code": error.status, "message": error.message}
    body = short if request.url.path.startswith("/hyperdrive/") else error.body()
    # Blob clients read the code from this header, the others from the body.
    return JSONResponse(body, status_code=error.status, headers={"x-ms-error-code": error.code})


async def _answer_invalid_request(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
    return JSONResponse(ServiceError(400, "UserError", f"The request is invalid: {problems}").body(), status_code=400)


async def _answer_http_exception(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = "RequestBodyTooLarge" if error.status_code == 413 else "UserError"
    return JSONResponse(
        ServiceError(error.status_code, code, str(error.detail)).body(),
        status_code=error.status_code,
        headers={"x-ms-error-code": code},
    )


async def _answer_recursion(_request: Request, _error: Exception) -> JSONResponse:
    return JSONResponse(ServiceError(400, "UserError", "The request is nested too deep.").body(), status_code=400)


async def _answer_unknown_route(request: Request) -> JSONResponse:
    service: Service = request.app.state.service
    service.requests.add_unknown(request.method, request.url.path)
    path = recordable(request.url.path)
    log.warning("unknown route: %s %s", request.method, path)
    message = f"The emulator has no route {request.method} {path}"
    return await _answer_service_error(request, ServiceError(501, "RouteNotEmulated", message))


class FaultsAndLog:
    """Outermost layer: applies the fault switches and records each request.

    Paths are logged without their query, which may hold a signature.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request, or the application's lifespan."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        method, path = scope["method"], recordable(scope["path"])
        status = 0

        async def recording_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if path.startswith("/_emulator/"):
                await self._app(scope, receive, recording_send)
            else:
                with self._service.requests.taking():
                    await self._serve(scope, receive, recording_send, send)
        finally:
            duration = time.monotonic() - started
            if not path.startswith("/_emulator/"):
                self._service.requests.add(RequestInfo(method=method, path=path, status=status, duration=duration))
                log.info("%s %s %s %.0f ms", method, path, status or "dropped", duration * 1000)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, connection: Send) -> None:
        faults = self._service.faults
        latency = faults.current.latency
        if latency:
            await asyncio.sleep(latency)
        rule = faults.next_rule(scope["method"], scope["path"])
        if rule is None:
            await self._app(scope, receive, send)
        elif rule.action is FaultAction.DELAY:
            await asyncio.sleep(rule.delay)
            await self._app(scope, receive, send)
        elif rule.action is FaultAction.STATUS:
            await _refuse(rule, scope, receive, send)
        elif rule.action is FaultAction.DROP:
            _abort(connection)
        else:
            await self._app(scope, receive, _swallow)
            _abort(connection)


async def _refuse(rule: FaultRule, scope: Scope, receive: Receive, send: Send) -> None:
    # Reads the body first: a client that is still sending would see a broken pipe rather than the status.
    while (await receive()).get("more_body"):
        pass
    headers = {} if rule.retry_after is None else {"Retry-After": str(rule.retry_after)}
    error = ServiceError(rule.status, "FaultInjected", f"The emulator was told to answer {rule.status}.")
    await JSONResponse(error.body(), status_code=rule.status, headers=headers)(scope, receive, send)


async def _swallow(_message: Message) -> None:
    """Lose the answer."""


def _abort(send: Send) -> None:
    """Close the connection without an answer. ASGI has no message for that, so this takes uvicorn's transport."""
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        raise RuntimeError("The server offers no way to drop a connection.")
    transport.abort()
