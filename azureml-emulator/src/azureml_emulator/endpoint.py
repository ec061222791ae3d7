"""A running emulator, seen from outside: finding it, using it, switching its faults."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import requests
from pydantic import BaseModel, ValidationError

from azureml_emulator.errors import EmulatorError
from azureml_emulator.faults import Faults
from azureml_emulator.private import write_atomically
from azureml_emulator.settings import Settings
from azureml_emulator.state import CLOUD_NAME, METADATA_PATH, PRINCIPAL_ID, PRINCIPAL_TENANT, StateDir, storage_suffix
from azureml_emulator.tokens import Scope, TokenAuthority

ADMIN_TOKEN_LIFETIME = 300.0


class EndpointFile(BaseModel):
    """What an emulator writes to ``endpoint.json`` when it is ready."""

    pid: int
    created: float
    port: int
    url: str
    ca: Path
    workspace_id: str
    token_lifetime: float
    settings: Settings = Settings()
    version: int = 1


class RequestInfo(BaseModel):
    """One request that the emulator served. ``duration`` is in seconds; ``status`` is 0 for a dropped connection."""

    method: str
    path: str
    status: int
    duration: float


class Endpoint:
    """An emulator that is running.

    Args:
        state_dir: Its state directory.
        info: What it wrote there.
    """

    def __init__(self, state_dir: str | os.PathLike[str], info: EndpointFile) -> None:
        self._state = StateDir.at(state_dir)
        self._info = info

    @property
    def state_dir(self) -> Path:
        """The state directory."""
        return self._state.root

    @property
    def pid(self) -> int:
        """Process id of the emulator."""
        return self._info.pid

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._info.port

    @property
    def url(self) -> str:
        """``https://127.0.0.1:PORT``."""
        return self._info.url

    @property
    def ca(self) -> Path:
        """The certificate of its throw-away CA."""
        return self._info.ca

    @property
    def ca_bundle(self) -> Path:
        """The CAs that were trusted where the emulator was started, and its own."""
        return self._state.client / "ca-bundle.pem"

    @property
    def settings(self) -> Settings:
        """What it was started with."""
        return self._info.settings

    @property
    def workspace_id(self) -> str:
        """Id of its workspace; the same for as long as the state directory lives."""
        return self._info.workspace_id

    @property
    def subscription_id(self) -> str:
        """Subscription of its workspace."""
        return self._workspace["subscription_id"]

    @property
    def resource_group(self) -> str:
        """Resource group of its workspace."""
        return self._workspace["resource_group"]

    @property
    def workspace_name(self) -> str:
        """Name of its workspace."""
        return self._workspace["workspace_name"]

    @property
    def token_url(self) -> str:
        """Where it gives bearer tokens, as a managed identity's endpoint does, for :attr:`token_secret`."""
        return f"{self.url}/msi/token"

    @property
    def token_secret(self) -> str:
        """What :attr:`token_url` wants as the header ``secret``. Who has it can run code here: show it to nobody."""
        return TokenAuthority.for_state(self._state).msi_secret

    @functools.cached_property
    def _workspace(self) -> dict[str, str]:
        try:
            found = json.loads(self.config_json())
            return {name: str(found[name]) for name in ("subscription_id", "resource_group", "workspace_name")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EmulatorError(
                f"The emulator's files for clients are damaged: {type(error).__name__}: {error}.",
                f"Remove {self.state_dir} to begin with an empty one.",
            ) from error

    # Pointing clients at it

    def env(self, *, isolate_home: bool = True) -> dict[str, str]:
        """Return the variables with which any program that uses the SDK talks to this emulator.

        The SDK reads them while it is being imported, so set them before that, best for a process of its own.

        Args:
            isolate_home: Also set HOME to a directory of the emulator's. The SDK writes caches to ~/.azureml.
        """
        variables = {
            # The SDK caches the cloud's address here and never reads it again: one directory per port.
            "AZURE_CONFIG_DIR": str(self._state.client / f"azure-{self.port}"),
            "ARM_CLOUD_METADATA_URL": f"{self.url}{METADATA_PATH}",
            "AZUREML_CURRENT_CLOUD": CLOUD_NAME,
            "MSI_ENDPOINT": self.token_url,
            "MSI_SECRET": self.token_secret,
            # With this, the SDK signs in as it does on App Service, where MSI_SECRET is sent, as a header.
            "APPSETTING_WEBSITE_SITE_NAME": "azureml-emulator",
            # The SDK's own switch against telemetry; another is a file that any program may change.
            "HBI_WORKSPACE_JOB": "true",
            # MLflow's: it reports from version 3 on.
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "REQUESTS_CA_BUNDLE": str(self.ca_bundle),
            "CURL_CA_BUNDLE": str(self.ca_bundle),
            # SDK v1 reads the cloud's description by urllib, which knows no other.
            "SSL_CERT_FILE": str(self.ca_bundle),
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }
        if isolate_home:
            variables["HOME"] = str(self._state.client_home)
        return variables

    def service_principal(self) -> dict[str, str]:
        """Return the variables with which azure-identity signs in as a service principal, to be set beside :meth:`env`.

        The secret is :attr:`token_secret`: who has it can run code here.
        """
        return {
            "AZURE_AUTHORITY_HOST": self.url,
            "AZURE_TENANT_ID": PRINCIPAL_TENANT,
            "AZURE_CLIENT_ID": PRINCIPAL_ID,
            "AZURE_CLIENT_SECRET": self.token_secret,
        }

    @property
    def cloud_metadata(self) -> dict[str, str]:
        """What ``MLClient(cloud=NAME, cloud_metadata=...)`` takes, for a program that sets no variables.

        SDK v2 reads it once per process and name: each port needs a name of its own.
        """
        names = ("azure_portal", "resource_manager", "active_directory", "aml_resource_id")
        return {
            **dict.fromkeys((*names, "registry_discovery_endpoint"), f"{self.url}/"),
            "storage_endpoint": storage_suffix(self.url),
        }

    def config_json(self) -> str:
        """Return the content of ``config.json`` for ``Workspace.from_config``."""
        return (self._state.client / "config.json").read_text()

    def write_config(self, directory: str | os.PathLike[str]) -> Path:
        """Write ``.azureml/config.json`` below ``directory``, where ``Workspace.from_config`` looks for it.

        Returns:
            The file.
        """
        path = Path(directory) / ".azureml" / "config.json"
        write_atomically(path, self.config_json(), mode=0o644)
        return path

    def token(self, audience: str = "https://management.core.windows.net/") -> str:
        """Issue a bearer token; fits ``TokenAuthentication(endpoint.token)``."""
        authority = TokenAuthority.for_state(self._state)
        return authority.issue(Scope.USER, self._info.token_lifetime, audience=audience)

    def fetch_token(self, audience: str) -> tuple[str, float]:
        """Ask the emulator for a bearer token, as a managed identity does.

        Returns:
            The token, and its end as POSIX time.

        Raises:
            EmulatorError: It answered, and gave none.
            requests.RequestException: It did not answer, or answered with an error status.
        """
        answer = self._session().get(
            self.token_url, params={"resource": audience}, headers={"secret": self.token_secret}, timeout=30
        )
        answer.raise_for_status()
        try:
            found = answer.json()
            return str(found["access_token"]), float(found["expires_on"])
        except (ValueError, KeyError, TypeError) as error:
            raise EmulatorError(f"The emulator gives no token: {error}.", f"See {self._state.log}.") from error

    # Faults and observation

    def faults(self) -> Faults:
        """Return the fault switches' positions."""
        return Faults.model_validate(self._call("GET", "faults").json())

    def set_faults(self, faults: Faults | None = None, **switches: Any) -> None:
        """Set the fault switches; those not given go back to their defaults."""
        wanted = faults or Faults.model_validate(switches)
        self._call("PUT", "faults", wanted.model_dump(mode="json"))

    def clear_faults(self) -> None:
        """Put every fault switch back to its default."""
        self.set_faults(Faults())

    def evict(self, run_id: str, *, notice: float = 0.0) -> None:
        """Take the node away from a run.

        A low-priority cluster queues the run again, unless ``evicted_runs_fail`` is set; on others it fails.

        Args:
            run_id: The run.
            notice: Seconds between SIGTERM, which the script gets, and SIGKILL. 0: there is no SIGTERM. A script that
                ends within that time with exit code 0 has completed.
        """
        self._call("POST", f"runs/{run_id}/evict", {"notice": notice})

    def recorded_requests(self) -> list[RequestInfo]:
        """Return the latest requests, oldest first."""
        return [RequestInfo.model_validate(item) for item in self._call("GET", "requests").json()]

    def unknown_requests(self) -> list[RequestInfo]:
        """Return the requests to routes that the emulator does not have."""
        return [RequestInfo.model_validate(item) for item in self._call("GET", "unknown-requests").json()]

    def clear_requests(self) -> None:
        """Forget the requests so far."""
        self._call("DELETE", "requests")

    # Life

    def is_alive(self) -> bool:
        """Tell whether the emulator answers."""
        if not process_is_alive(self._info.pid, self._info.created):
            return False
        with contextlib.suppress(requests.RequestException, ValueError):
            answer = self._session().get(f"{self.url}/_emulator/health", timeout=30)
            return bool(answer.ok and answer.json().get("workspace_id") == self._info.workspace_id)
        return False

    def stop(self, *, kill_jobs: bool = True, timeout: float = 120.0) -> None:
        """Stop the emulator and wait for its end.

        Args:
            kill_jobs: Kill running jobs too. Otherwise they go on, and the next emulator on this state finds them.
            timeout: Seconds to wait.

        Raises:
            EmulatorError: It is still there after ``timeout``.
        """
        with contextlib.suppress(requests.RequestException):
            self._call("POST", "shutdown", {"kill_jobs": kill_jobs})
        deadline = time.monotonic() + timeout
        while process_is_alive(self._info.pid, self._info.created):
            if time.monotonic() > deadline:
                raise EmulatorError(f"The emulator (process {self.pid}) did not stop.", f"See {self._state.log}.")
            time.sleep(0.02)

    def _session(self) -> requests.Session:
        session = requests.Session()
        # Neither the user's proxies nor his netrc have a part in talking to loopback.
        session.trust_env = False
        session.verify = str(self.ca)
        return session

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> requests.Response:
        token = TokenAuthority.for_state(self._state).issue(Scope.ADMIN, ADMIN_TOKEN_LIFETIME)
        answer = self._session().request(
            method,
            f"{self.url}/_emulator/{path}",
            json=body,
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
        )
        if not answer.ok:
            raise EmulatorError(f"The emulator refused {method} {path}: {answer.status_code} {answer.text}")
        return answer


def process_is_alive(pid: int, created: float) -> bool:
    """Tell whether that very process, not a later one with its id, is running."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def find(state_dir: str | os.PathLike[str]) -> Endpoint | None:
    """Find the emulator that serves this state directory, if one is running and answers.

    Raises:
        EmulatorError: The directory is another user's, or others can read or write it.
    """
    state = StateDir.at(state_dir)
    try:
        state.check()
        info = EndpointFile.model_validate_json(state.endpoint.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    endpoint = Endpoint(state_dir, info)
    return endpoint if endpoint.is_alive() else None
