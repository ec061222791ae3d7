"""Everything that one emulator process shares between its routes and its scheduler."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from azureml_emulator.endpoint import RequestInfo
from azureml_emulator.errors import ServiceError
from azureml_emulator.faults import FaultSwitchboard
from azureml_emulator.logs import recordable
from azureml_emulator.settings import Settings
from azureml_emulator.state import STORAGE_ACCOUNT, StateDir, storage_suffix
from azureml_emulator.store.artifacts import ArtifactStore, StoredArtifact
from azureml_emulator.store.blobs import BlobStore
from azureml_emulator.store.command_jobs import CommandJobStore
from azureml_emulator.store.compute import ComputeStore
from azureml_emulator.store.containers import ARTIFACTS, ContainerStore
from azureml_emulator.store.database import Database
from azureml_emulator.store.environments import EnvironmentStore
from azureml_emulator.store.jobs import JobStore
from azureml_emulator.store.metrics import MetricStore
from azureml_emulator.store.models import ModelStore
from azureml_emulator.store.runs import Run, RunStore
from azureml_emulator.store.snapshots import SnapshotStore
from azureml_emulator.store.sweeps import SweepStore
from azureml_emulator.store.versions import VersionStore
from azureml_emulator.store.webservices import WebserviceStore
from azureml_emulator.times import to_epoch, utc_now
from azureml_emulator.tokens import Claims, Scope, TokenAuthority, TokenError

RETURN_GRACE = 300.0
"""Seconds after a start in which the token of a job is good that expired while there was no emulator to renew it."""
EXPIRED = -60.0
"""Lifetime, in seconds, of a token or signature that a fault switch wants to be expired."""


_LAST_SEEN = "last_seen"


class RequestLog:
    """The latest requests, and the latest to unknown routes. Both are bounded, in number and in the length of paths."""

    def __init__(self, capacity: int = 20_000, unknown_capacity: int = 1_000) -> None:
        self._lock = threading.Lock()
        self._records: deque[RequestInfo] = deque(maxlen=capacity)
        self._unknown: deque[RequestInfo] = deque(maxlen=unknown_capacity)
        self.last_request = time.monotonic()
        self.under_way = 0

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Count a request while it is being answered."""
        with self._lock:
            self.under_way += 1
        try:
            yield
        finally:
            with self._lock:
                self.under_way -= 1

    def add(self, record: RequestInfo) -> None:
        """Record a request."""
        with self._lock:
            self._records.append(record)
            self.last_request = time.monotonic()

    def add_unknown(self, method: str, path: str) -> None:
        """Record a request to a route that the emulator does not have."""
        record = RequestInfo(method=method, path=recordable(path), status=501, duration=0.0)
        with self._lock:
            self._unknown.append(record)

    def records(self) -> list[RequestInfo]:
        """Return the latest requests, oldest first."""
        with self._lock:
            return list(self._records)

    def unknown(self) -> list[RequestInfo]:
        """Return the latest requests to unknown routes, oldest first."""
        with self._lock:
            return list(self._unknown)

    def clear(self) -> None:
        """Forget every request."""
        with self._lock:
            self._records.clear()
            self._unknown.clear()


class Service:
    """The stores, the keys and the switches of one emulator.

    Args:
        state: The state directory, which exists.
        settings: Configuration.
        base_url: ``https://127.0.0.1:PORT``.
        ca_bundle: Bundle that jobs check the emulator's certificate with.
        faults: Fault switches.
    """

    def __init__(
        self, state: StateDir, settings: Settings, base_url: str, ca_bundle: Path, faults: FaultSwitchboard
    ) -> None:
        self.state = state
        self.settings = settings
        self.base_url = base_url
        self.ca_bundle = ca_bundle
        self.faults = faults
        self.requests = RequestLog()
        self.authority = TokenAuthority.for_state(state)
        self.database = Database(state.database)
        self.runs = RunStore(self.database)
        self.metrics = MetricStore(self.database)
        self.blobs = BlobStore(self.database, state)
        self.artifacts = ArtifactStore(self.database, self.blobs)
        self.snapshots = SnapshotStore(self.database, self.blobs)
        self.models = ModelStore(self.database)
        self.computes = ComputeStore(self.database)
        self.environments = EnvironmentStore(self.database)
        self.jobs = JobStore(self.database)
        self.sweeps = SweepStore(self.database)
        self.command_jobs = CommandJobStore(self.database)
        self.versions = VersionStore(self.database)
        self.webservices = WebserviceStore(self.database)
        self.is_stopping: Callable[[], bool] = lambda: False
        # The SDK caches its latest snapshot by workspace id. A new state needs a new one, or the SDK would build on
        # snapshots that are gone.
        self.created = self.database.meta("created", utc_now())
        self.workspace_id = self.database.meta("workspace_id", str(uuid.uuid4()))
        self.containers = ContainerStore(self.database, self.blobs, self.artifacts, self.workspace_id)
        self._started = time.time()
        self._last_seen = float(self.database.meta(_LAST_SEEN, str(self._started)))

    def check_token(self, token: str) -> Claims:
        """Return the claims of a valid token.

        Raises:
            TokenError: It is not valid.
        """
        try:
            return self.authority.check(token)
        except TokenError:
            now = time.time()
            if now > self._started + RETURN_GRACE:
                raise
            claims = self.authority.check(token, leeway=max(0.0, now - self._last_seen))
            if claims.scope is not Scope.RUN:
                raise
            return claims

    def note_being_here(self) -> None:
        """Record that there is an emulator now, for the next one to know since when there has been none."""
        self.database.set_meta(_LAST_SEEN, str(time.time()))

    @property
    def discovery_url(self) -> str:
        """Where the workspace's services are listed."""
        return f"{self.base_url}/discovery/workspaces/{self.workspace_id}"

    @property
    def tracking_uri(self) -> str:
        """Where MLflow, with azureml-mlflow, tracks runs."""
        return f"azureml://{self.base_url.removeprefix('https://')}/mlflow/v1.0{self.settings.workspace_path}"

    def issue_token(self, scope: Scope, *, audience: str = "emulator", run_id: str | None = None) -> tuple[str, float]:
        """Issue a token, and say when it ends (POSIX time): in the past, if that fault switch is on."""
        lifetime = self.settings.run_token_lifetime if scope is Scope.RUN else self.settings.token_lifetime
        if self.faults.current.expired_tokens:
            lifetime = EXPIRED
        token = self.authority.issue(scope, lifetime, audience=audience, run_id=run_id)
        return token, time.time() + lifetime

    def read_url(self, blob_key: str) -> str:
        """Return a signed URL to read a blob."""
        return f"{self.base_url}/blobs/{blob_key}?{self._signature(blob_key, 'r')}"

    def write_url(self, blob_key: str) -> str:
        """Return a signed URL to write a blob.

        The SDK takes the host of such a URL apart and rebuilds it as ``<account>.blob.<suffix>``. As user-info
        before the address that form leads to loopback without a name to resolve.
        """
        host = self.base_url.removeprefix("https://")
        return f"https://emu.blob.local@{host}/blobs/{blob_key}?{self._signature(blob_key, 'rcw')}"

    def named_url(self, origin: str, container: str, path: str) -> str:
        """Return a signed URL of a run's file in the container of the artifacts, to read it or write it.

        It has the form ``https://ACCOUNT.blob.SUFFIX/``, by which azureml-mlflow knows a blob.
        """
        name = f"{origin}/{container}/{path}"
        lifetime = EXPIRED if self.faults.current.expired_sas else self.settings.sas_lifetime
        host = f"https://{STORAGE_ACCOUNT}.blob.{storage_suffix(self.base_url)}"
        return f"{host}/{ARTIFACTS}/{quote(name)}?{self.authority.sign_named(ARTIFACTS, name, lifetime)}"

    def container_signature(self, container: str, lifetime: float | None = None) -> str:
        """Return the query that opens a container, for so many seconds at most."""
        longest = self.settings.sas_lifetime
        seconds = EXPIRED if self.faults.current.expired_sas else min(longest, lifetime or longest)
        return self.authority.sign_container(container, seconds)

    def _signature(self, blob_key: str, permissions: str) -> str:
        lifetime = EXPIRED if self.faults.current.expired_sas else self.settings.sas_lifetime
        return self.authority.sign_blob(blob_key, permissions, lifetime)

    def run_of(self, experiment: str, run_id: str) -> Run:
        """Return a run of an experiment.

        Raises:
            ServiceError: 404.
        """
        run = self.runs.get(run_id)
        if run.experiment_id != self.runs.experiment(experiment).experiment_id:
            raise ServiceError(404, "RunNotFound", f"Run {run_id} not found in experiment {experiment}.")
        return run

    def container_owner(self, container: str) -> Run | None:
        """Return the run whose files are in a data container."""
        return self.runs.find(container.removeprefix("dcid.")) if container.startswith("dcid.") else None

    def visible(self, found: list[StoredArtifact], container: str) -> list[StoredArtifact]:
        """Leave out the user logs that the fault switch for late logs still hides."""
        late = self.faults.current.late_logs
        if not late:
            return found
        run = self.container_owner(container)
        if run is None:
            return found
        if run.end_time_utc is not None and time.time() >= to_epoch(run.end_time_utc) + late:
            return found
        return [item for item in found if not item.path.startswith("user_logs/")]
