"""A service's process, seen from outside: starting it, asking it, reading its log, ending it.

:mod:`backends.local_service` is what runs in it.
"""

from __future__ import annotations

import http.client
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from backends import local_processes as processes
from backends.local_service import LOG_FILE, PROCESS_LOCK, SERVICE_DIR_VARIABLE, read_running
from trainer.deploy.service import Tell
from trainer.locks import is_locked

LOOK_SECONDS = 0.05
"""Between two looks at a process that is awaited."""
_START_SECONDS = 60.0
# A process of a busy machine that answers late is not one that does not answer.
_PROBE_SECONDS = 10.0
_WAIT_SECONDS = 2.0
# Longer than the requests under way are given.
_DRAIN_SECONDS = 35.0
_LOG_READ = 1 << 20


def start(folder: Path) -> None:
    """Start a service's process; return when it holds its lock.

    Raises:
        ConfigError: It could not be started.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRAINER_RUN_")}
    processes.start_or_explain(
        "The service's process",
        "backends.local_service",
        str(folder),
        directory=folder,
        environment=environment | {SERVICE_DIR_VARIABLE: str(folder)},
        log=folder / LOG_FILE,
        seconds=_START_SECONDS,
    )


def end(folder: Path, tell: Tell) -> None:
    """End every process of a service: its supervisor lets requests under way finish; what stays is killed."""
    running = read_running(folder)
    if running is not None and answers(folder):
        found = processes.find_processes(folder, SERVICE_DIR_VARIABLE)
        processes.signal_all([each for each in found if each.pid == running.pid], signal.SIGTERM)
        begun = time.monotonic()
        told = False
        while is_locked(folder / PROCESS_LOCK) and time.monotonic() - begun < _DRAIN_SECONDS:
            if not told and time.monotonic() - begun > _WAIT_SECONDS:
                tell("Waiting for requests under way.")
                told = True
            time.sleep(LOOK_SECONDS)
    processes.stop(processes.find_processes(folder, SERVICE_DIR_VARIABLE))


def answers(folder: Path) -> bool:
    """Return whether a service's process lives and has had a model loaded."""
    alive = is_locked(folder / PROCESS_LOCK)
    running = read_running(folder)
    return alive and running is not None and running.revision > 0


def is_ready(port: int) -> bool:
    """Ask a service's server whether it would answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PROBE_SECONDS)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def tail(path: Path, lines: int, begin: int = 0) -> list[str]:
    """Return the last lines of a file, from ``begin`` on, of its last megabyte; none where it can't be read."""
    with suppress(OSError), path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        first = begin if begin <= size else 0
        stream.seek(max(first, size - _LOG_READ))
        return stream.read(_LOG_READ).decode("utf-8", "replace").splitlines()[-lines:] if lines > 0 else []
    return []
