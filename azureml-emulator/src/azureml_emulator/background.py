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
from azureml_emulator.errors import STATE_IN_USE, EmulatorError
from azureml_emulator.faults import Faults
from azureml_emulator.settings import Settings
from azureml_emulator.state import StateDir

_POLL = 0.05
_PAUSE = 1.0

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Emulators that this process has started; they outlive it, unless they are stopped."""


def start_in_background(
    state_dir: str | os.PathLike[str],
    port: int = 0,
    *,
    settings: Settings | None = None,
    faults: Faults | None = None,
    timeout: float = 120.0,
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
    state = StateDir.at(state_dir)
    deadline = time.monotonic() + timeout
    start: _Start | None = None
    try:
        # Looking anew each time also finds an emulator that someone else has started at the same moment.
        while (endpoint := find(state_dir)) is None:
            if time.monotonic() > deadline:
                raise _not_started(state, f"it does not answer after {timeout:.0f} s")
            if start is None:
                start = _Start(state, port, settings or Settings(), faults or Faults())
            elif start.has_ended:
                problem = start.last_words()
                if STATE_IN_USE not in problem:
                    raise _not_started(state, problem)
                # The one that has the state's lock is about to answer, or about to end, which frees it for us.
                start.close()
                start = None
                time.sleep(_PAUSE)
            time.sleep(_POLL)
        return endpoint
    except BaseException:
        if start is not None:
            start.terminate()
        raise
    finally:
        if start is not None:
            start.close()


class _Start:
    """One try to start an emulator."""

    def __init__(self, state: StateDir, port: int, settings: Settings, faults: Faults) -> None:
        state.create()
        command = [sys.executable, "-m", "azureml_emulator", "--state", str(state.root), "--port", str(port)]
        command += ["--settings", settings.model_dump_json(exclude_unset=True)]
        command += ["--faults", faults.model_dump_json(exclude_unset=True)]
        # A file of its own each, so that two that start at once don't write over each other.
        descriptor, name = tempfile.mkstemp(dir=state.root, prefix=".startup.")
        self._output = os.fdopen(descriptor, "r+b")
        Path(name).replace(state.startup_log)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,
            cwd=state.root,
            env=_without_client_variables(),
        )
        _children[self._process.pid] = self._process

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def last_words(self) -> str:
        self._output.seek(0)
        lines = self._output.read().decode("utf-8", "replace").strip().splitlines()
        return lines[0].removeprefix("error: ").rstrip(".") if lines else "it says nothing"

    def terminate(self) -> None:
        if not self.has_ended:
            self._process.terminate()

    def close(self) -> None:
        self._output.close()


def _not_started(state: StateDir, problem: str) -> EmulatorError:
    return EmulatorError(f"The emulator did not start: {problem}.", f"See {state.startup_log}.")


def _without_client_variables() -> dict[str, str]:
    """Return the environment without what points at another emulator, which a new one must not trust."""
    theirs = ("MSI_ENDPOINT", "MSI_SECRET", "APPSETTING_WEBSITE_SITE_NAME")
    return {name: value for name, value in os.environ.items() if name not in theirs}


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
            raise EmulatorError(f"{STATE_IN_USE} {self._state_dir}.", "Stop it, or use another state directory.")
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
