"""Clients of an emulator: the real SDK in a process of its own, and plain HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import psutil
import requests

from azureml_emulator import Endpoint, Settings
from azureml_emulator.tokens import Scope, TokenAuthority

PROGRAMS = Path(__file__).parent / "programs"


def processes_of(run_id: str) -> list[psutil.Process]:
    """Processes that work in a run's directory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if run_id in process.cwd():
                found.append(process)
    return found


class SdkError(Exception):
    """The SDK raised; the message starts with the exception's type."""


class Sdk:
    """A process that has imported the SDK and runs scenarios; attributes are the functions of scenarios.py."""

    _worker = "sdk_worker.py"

    def __init__(self, endpoint: Endpoint, directory: Path) -> None:
        endpoint.write_config(directory)
        self.output = ""
        self._log = directory / "sdk.log"
        with self._log.open("wb") as log:
            self._process = self._start(endpoint, directory, log)
        self._read()
        self.open_workspace()

    @classmethod
    def _start(cls, endpoint: Endpoint, directory: Path, log: BinaryIO) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(PROGRAMS / cls._worker)],
            cwd=directory,
            env=client_environment(endpoint) | {"TOKEN": endpoint.token()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(**arguments: Any) -> Any:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({"call": name, "arguments": arguments}) + "\n")
            self._process.stdin.flush()
            return self._read()

        return call

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the SDK's process has died: {self._log.read_text()[-2000:]}"
        answer = json.loads(line)
        self.output = answer["output"]
        if "error" in answer:
            raise SdkError(f"{answer['error']}: {answer['message']}")
        return answer["value"]

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=600)


class SdkV2(Sdk):
    """The same with SDK v2; attributes are the functions of v2/scenarios_v2.py."""

    _worker = "v2/worker.py"


def client_environment(endpoint: Endpoint) -> dict[str, str]:
    """The environment of a client that knows nothing but the emulator."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return {"PATH": os.environ["PATH"], **threads, **endpoint.env()}


class Http:
    """Plain HTTP requests to an emulator, with a bearer token."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.authority = TokenAuthority.for_state(endpoint._state)
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = str(endpoint.ca)
        settings = Settings()
        self.workspace = settings.workspace_path

    def __call__(
        self, method: str, path: str, *, token: str | None = "", admin: bool = False, **options: Any
    ) -> requests.Response:
        """Send a request. ``token`` None sends none, "" a good one."""
        if token == "":
            token = self.authority.issue(Scope.ADMIN, 60) if admin else self.endpoint.token()
        headers = options.pop("headers", {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        url = path if path.startswith("https:") else self.endpoint.url + path
        return self.session.request(method, url, headers=headers, timeout=600, **options)
