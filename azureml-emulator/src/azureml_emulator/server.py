"""The emulator's process: lock, certificates, socket, scheduler, HTTPS server."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable

import filelock
import psutil
import uvicorn

from azureml_emulator.app import create_app
from azureml_emulator.certificates import ensure_certificates
from azureml_emulator.endpoint import EndpointFile
from azureml_emulator.errors import STATE_IN_USE, EmulatorError
from azureml_emulator.faults import Faults, FaultSwitchboard
from azureml_emulator.jobs.scheduler import Scheduler
from azureml_emulator.logs import configure_logging
from azureml_emulator.private import FILE_MODE, umask, write_atomically
from azureml_emulator.service import Service
from azureml_emulator.settings import Settings
from azureml_emulator.state import StateDir, write_client_files
from azureml_emulator.store.database import Database
from azureml_emulator.sweeps.driver import SweepDriver
from azureml_emulator.webservices.driver import WebserviceDriver

HOST = "127.0.0.1"

log = logging.getLogger("azureml_emulator")


class _Server(uvicorn.Server):
    """Says when it is ready, which uvicorn itself only logs."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then tell."""
        await super().startup(sockets=sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; connections on which nothing is being answered are closed at once.

        By TLS they would end when their clients have said goodbye, and a client that keeps one for later does not.
        """
        for connection in list(self.server_state.connections):
            cycle = getattr(connection, "cycle", None)
            transport = getattr(connection, "transport", None)
            if transport is not None and (cycle is None or cycle.response_complete):
                transport.abort()
        await super().shutdown(sockets)


def run_server(
    state: StateDir,
    port: int,
    settings: Settings,
    faults: Faults | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve a state directory until told to stop (SIGINT, SIGTERM, or the admin API).

    Args:
        state: The state directory; made if it is not there.
        port: 0 takes the port that this state had before, if it is free, else any: jobs that outlived the last
            emulator know it by that port.
        settings: Configuration.
        faults: Fault switches.
        on_ready: Called once requests are answered and ``endpoint.json`` is written.

    Raises:
        EmulatorError: Another emulator serves this state, its directory is not private, or the port is taken.
    """
    state.create()
    with umask():
        _run_locked(state, port, settings, faults, on_ready)


def _run_locked(
    state: StateDir, port: int, settings: Settings, faults: Faults | None, on_ready: Callable[[], None]
) -> None:
    lock = filelock.FileLock(state.lock, timeout=0, mode=FILE_MODE)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise EmulatorError(f"{STATE_IN_USE} {state.root}.", "Stop it, or use another state directory.") from None
    try:
        state.tighten()
        configure_logging(state.log)
        for upload in state.uploads.iterdir():
            # Left by requests that a killed emulator was receiving. Directories hold blocks, which are complete.
            if upload.is_file():
                upload.unlink()
        _, certificate, key = ensure_certificates(state.tls)
        _serve(state, port, settings, faults, on_ready, str(certificate), str(key))
    finally:
        state.endpoint.unlink(missing_ok=True)
        lock.release()


def _serve(
    state: StateDir,
    port: int,
    settings: Settings,
    faults: Faults | None,
    on_ready: Callable[[], None],
    certificate: str,
    key: str,
) -> None:
    listener = _listen(state, port)
    port = listener.getsockname()[1]
    base_url = f"https://{HOST}:{port}"
    bundle = write_client_files(state, settings)
    service = Service(state, settings, base_url, bundle, FaultSwitchboard(faults))
    service.database.set_meta("port", str(port))
    webservices = WebserviceDriver(service)
    scheduler = Scheduler(service, _each(SweepDriver(service).tick, webservices.tick))
    kill_jobs = False

    def shutdown(kill: bool) -> None:
        nonlocal kill_jobs
        kill_jobs = kill
        server.should_exit = True

    def ready() -> None:
        info = EndpointFile(
            pid=os.getpid(),
            created=psutil.Process().create_time(),
            port=port,
            url=base_url,
            ca=state.ca,
            workspace_id=service.workspace_id,
            token_lifetime=settings.token_lifetime,
            settings=settings,
        )
        # Nobody could ask anything before.
        service.requests.last_request = time.monotonic()
        write_atomically(state.endpoint, info.model_dump_json(indent=2))
        on_ready()

    config = uvicorn.Config(
        create_app(service, scheduler, shutdown, port),
        ssl_certfile=certificate,
        ssl_keyfile=key,
        log_config=None,
        access_log=False,
        # Forwarded headers mean nothing on loopback, and the layer would hide the transport from the fault switches.
        proxy_headers=False,
        http="h11",
        ws="none",
        lifespan="off",
        timeout_keep_alive=30,
        timeout_graceful_shutdown=3,
        server_header=False,
    )
    server = _Server(config, ready)
    service.is_stopping = lambda: server.should_exit
    scheduler.start()
    if settings.idle_exit is not None:
        threading.Thread(target=_exit_when_idle, args=(server, service, settings.idle_exit), daemon=True).start()
    try:
        server.run(sockets=[listener])
    finally:
        scheduler.stop(kill_jobs=kill_jobs)
        webservices.stop(kill=kill_jobs)
        service.database.close()


def _each(*ticks: Callable[[], None]) -> Callable[[], None]:
    def tick() -> None:
        for one in ticks:
            try:
                one()
            except Exception:
                # The others must not stand still for it.
                log.exception("a driver's tick failed")

    return tick


def _listen(state: StateDir, port: int) -> socket.socket:
    wanted = [port] if port else [*_last_port(state), 0]
    for candidate in wanted:
        # asyncio switches Nagle's algorithm off only for sockets that name TCP; with it, answers take 40 ms longer.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, candidate))
            listener.listen(256)
        except OSError as error:
            listener.close()
            problem = error
        else:
            return listener
    raise EmulatorError(f"Port {port} is not available: {problem}.", "Choose another, or 0 for any.")


def _last_port(state: StateDir) -> list[int]:
    if not state.database.exists():
        return []
    database = Database(state.database)
    try:
        port = int(database.meta("port", "0"))
    finally:
        database.close()
    return [port] if port else []


def _exit_when_idle(server: uvicorn.Server, service: Service, limit: float) -> None:
    while not server.should_exit:
        time.sleep(min(1.0, limit / 4))
        quiet = time.monotonic() - service.requests.last_request
        if (
            quiet >= limit
            and not service.requests.under_way
            and not service.jobs.active()
            and not service.sweeps.active()
            and not service.webservices.in_transition()
        ):
            server.should_exit = True
