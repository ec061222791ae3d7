"""Clients of an emulator: the real SDK in a process of its own, and plain HTTP."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import psutil
import requests

from azureml_emulator import Endpoint, Settings
from azureml_emulator.endpoint import process_is_alive
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


def kill(endpoint: Endpoint) -> None:
    """Kill an emulator without a word."""
    created = psutil.Process(endpoint.pid).create_time()
    os.kill(endpoint.pid, signal.SIGKILL)
    while process_is_alive(endpoint.pid, created):
        time.sleep(0.01)


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


def image_of(http: Http, name: str, script: str) -> dict[str, Any]:
    """Upload a score script as the SDK does, and return the environment image request that names it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("src/score.py")
        member.size = len(script)
        archive.addfile(member, io.BytesIO(script.encode()))
    upload = f"/artifact/v2.0{http.workspace}/artifacts/batch/metadata/LocalUpload/{name}"
    reserved = http("POST", upload, json={"paths": [{"path": "s.tar.gz"}]}).json()
    url = reserved["artifactContentInformation"]["s.tar.gz"]["contentUri"].replace("emu.blob.local@", "")
    headers = {"x-ms-blob-type": "BlockBlob"}
    assert http("PUT", url, token=None, data=packed.getvalue(), headers=headers).status_code == 201
    asset = {"id": "s.tar.gz", "url": f"aml://artifact/LocalUpload/{name}/s.tar.gz", "unpack": True}
    variables = {"AZUREML_ENTRY_SCRIPT": "src/score.py", "AZUREML_SOURCE_DIRECTORY": "src"}
    return {"assets": [asset], "environment": {"name": "e", "environmentVariables": variables}}


def deploy_over_http(http: Http, name: str, script: str) -> None:
    """Deploy a web service as the SDK does, without a process that imports it."""
    image = image_of(http, name, script)
    body = {"name": name, "computeType": "ACI", "authEnabled": True, "environmentImageRequest": image}
    answers = [http("POST", f"/modelmanagement/v1.0{http.workspace}/services", json=body) for _ in range(2)]
    locations = {answer.headers["Operation-Location"] for answer in answers}
    assert len(locations) == 1, "a repeated request starts nothing"
    assert http("GET", locations.pop()).json()["state"] == "Succeeded"
