"""What ``trainer serve`` is told, checked."""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path

import msgspec

from trainer.errors import MissingExtraError, UsageError, must_be
from trainer.modeluse.building import NetworkChoice, check_choice

# Azure's inference server listens on it.
MODEL_PORT = 5001
# How the emulator of Azure ML serves a score script; the path of a Unix socket takes the place of {socket}.
SCORING_SERVER = (sys.executable, "-m", "trainer.serving.container", "{socket}")
BODY_MAX = 16 << 20
WORKERS_MAX = 64


class ServeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is served.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 for a free one.
        socket: Unix socket to listen on instead; its folder says who may.
        workers: Number of processes.
        script: A score script by Azure's contract, or None.
        app_root: The folder that is to be AML_APP_ROOT, with script and models in it as in Azure's container; None to
            have it made.
        model_file: ``FILE.py:FUNCTION`` that builds the Chainer network, or None for the one that trainer knows.
        input_shape: Shape of one input of ``model_file``'s network, or empty where it isn't told.
        network: ``FILE.py:NAME`` as ``trainer run --network`` took it, where the run is not here.
        key_file: The file that holds the keys, or None where none is asked for.
        body_max: Bytes of a request's body.
        body_seconds: Time for a client to send its headers, and again its body.
        drain_seconds: Time for requests under way to end when a worker stops.
        log_requests: Write a line per request to standard error.
        name: What the service is called in its API description.
    """

    host: str = "127.0.0.1"
    port: int = MODEL_PORT
    socket: Path | None = None
    workers: int = 1
    script: Path | None = None
    app_root: Path | None = None
    model_file: str | None = None
    input_shape: tuple[int, ...] = ()
    network: str | None = None
    key_file: Path | None = None
    body_max: int = BODY_MAX
    body_seconds: float = 30.0
    drain_seconds: float = 30.0
    log_requests: bool = True
    name: str = "model"

    @property
    def choice(self) -> NetworkChoice:
        """What says how the network is built."""
        return NetworkChoice(network=self.network, model_file=self.model_file, input_shape=self.input_shape)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)


def check(settings: ServeSettings) -> ServeSettings:
    """Return the settings if they can be used.

    Raises:
        UsageError: A value is unusable, or two exclude each other.
    """
    if not 0 <= settings.port <= 65535:
        raise UsageError(must_be("--port", "a port from 0 to 65535", settings.port), "0 takes a free one.")
    if not 1 <= settings.workers <= WORKERS_MAX:
        raise UsageError(
            must_be("--workers", f"a whole number from 1 to {WORKERS_MAX}", settings.workers), "One per core is plenty."
        )
    check_choice(settings.choice, settings.script)
    if settings.script is not None and not settings.script.is_file():
        raise UsageError(f"There is no score script {settings.script}.", "Check the path.")
    if settings.key_file is None and not settings.is_loopback:
        raise UsageError(
            f"--no-key would let anyone who reaches {settings.host} use the model.", "Leave --no-key or --host out."
        )
    return settings


def check_installed(what: str) -> None:
    """Refuse where the HTTP server is not installed.

    Args:
        what: What needs it.

    Raises:
        MissingExtraError: It isn't.
    """
    from importlib.util import find_spec

    for name in ("uvicorn", "httptools"):
        if find_spec(name) is None:
            raise MissingExtraError(f"{what} ({name})", "serve")


def is_loopback(host: str) -> bool:
    """Return whether an address, or ``localhost``, can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
