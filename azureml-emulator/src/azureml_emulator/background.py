"""Starting an emulator in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

from azureml_emulator.endpoint import Endpoint, find
from azureml_emulator.errors import EmulatorError
from azureml_emulator.faults import Faults
from azureml_emulator.settings import Settings
from azureml_emulator.state import StateDir

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Emulators that this process has started; they outlive it, unless they are stopped."""


def start_in_background(
    state_dir: str | os.PathLike[str],
    port: int = 0,
    *,
    settings: Settings | None = None,
    faults: Faults | None = None,
    timeout: float = 60.0,
) -> Endpoint:
    """Start an emulator in a process that outlives this one, and wait until it answers.

    If one serves this state directory already, that one is returned, with its own settings.

    Args:
        state_dir: Where it keeps its state.
        port: Port on 127.0.0.1; 0 for the one it had before, or any.
        settings: Configuration.
        faults: Fault switches.
        timeout: Seconds to wait.

    Raises:
        EmulatorError: It did not start.
    """
    running = find(state_dir)
    if running is not None:
        return running
    state = StateDir.at(state_dir)
    state.create()
    command = [sys.executable, "-m", "azureml_emulator", "--state", str(state.root), "--port", str(port)]
    command += ["--settings", (settings or Settings()).model_dump_json(exclude_unset=True)]
    command += ["--faults", (faults or Faults()).model_dump_json(exclude_unset=True)]
    output = state.root / "startup.log"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            cwd=state.root,
            env=_without_client_variables(),
        )
    _children[process.pid] = process
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        # Also sees an emulator that someone else has started at the same time, and that won the lock.
        endpoint = find(state_dir)
        if endpoint is not None:
            return endpoint
        if process.poll() is not None and not state.endpoint.exists():
            endpoint = _wait_for_rival(state_dir, deadline)
            if endpoint is not None:
                return endpoint
            break
        time.sleep(0.05)
    if process.poll() is None:
        process.terminate()
    detail = output.read_text(errors="replace").strip().splitlines()
    raise EmulatorError(
        "The emulator did not start" + (f": {detail[0].removeprefix('error: ')}" if detail else "."),
        f"See {output}.",
    )


def _wait_for_rival(state_dir: str | os.PathLike[str], deadline: float) -> Endpoint | None:
    """The emulator that holds the lock may need another moment until it answers."""
    until = min(deadline, time.monotonic() + 10.0)
    while time.monotonic() < until:
        endpoint = find(state_dir)
        if endpoint is not None:
            return endpoint
        time.sleep(0.1)
    return None


def _without_client_variables() -> dict[str, str]:
    """An emulator started from a client's environment must not trust what points at another emulator."""
    return {name: value for name, value in os.environ.items() if name not in ("MSI_ENDPOINT", "MSI_SECRET")}


class Emulator:
    """An emulator for the length of a ``with`` block; the block gets its :class:`Endpoint`.

    Args:
        state_dir: Where it keeps its state. None: a temporary directory, removed at the end.
        port: Port on 127.0.0.1; 0 for any.
        settings: Configuration.
        faults: Fault switches.
    """

    def __init__(
        self,
        state_dir: str | os.PathLike[str] | None = None,
        port: int = 0,
        *,
        settings: Settings | None = None,
        faults: Faults | None = None,
    ) -> None:
        self._temporary = tempfile.mkdtemp(prefix="azureml-emulator-") if state_dir is None else None
        self._state_dir = Path(self._temporary or state_dir or "")
        self._port = port
        self._settings = settings
        self._faults = faults
        self._endpoint: Endpoint | None = None

    def start(self) -> Endpoint:
        """Start it, and wait until it answers.

        Raises:
            EmulatorError: It did not start, or another emulator serves this state.
        """
        if find(self._state_dir) is not None:
            raise EmulatorError(
                f"Another emulator serves {self._state_dir}.", "Stop it, or use another state directory."
            )
        self._endpoint = start_in_background(self._state_dir, self._port, settings=self._settings, faults=self._faults)
        return self._endpoint

    def stop(self) -> None:
        """Stop it and kill its jobs."""
        if self._endpoint is not None:
            self._endpoint.stop(kill_jobs=True)
            process = _children.pop(self._endpoint.pid, None)
            if process is not None:
                process.wait()
            self._endpoint = None
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def __enter__(self) -> Endpoint:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
