"""The directories and the processes of a service.

``webservices/NAME/auth.json``          who may ask; its front reads it
``webservices/NAME/NUMBER/app``         one content, in the layout of Azure's container: ``AML_APP_ROOT``
``webservices/NAME/NUMBER/ATTEMPT``     one start of it: log, supervisor, front
``webservices/NAME/routes.json``        of an endpoint: where its front passes requests on to
``webservices/NAME/front``              of an endpoint's deployment: the socket that its front listens on
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from azureml_emulator.errors import ServiceError, bad_request
from azureml_emulator.faults import Faults
from azureml_emulator.jobs.plan import kept_environment
from azureml_emulator.jobs.process import Attempt
from azureml_emulator.private import tighten_all, write_atomically
from azureml_emulator.service import Service
from azureml_emulator.settings import Settings
from azureml_emulator.store.artifacts import StoredArtifact, normalise
from azureml_emulator.store.webservices import Deployment, Webservice
from azureml_emulator.webservices import names

FRONT, ROUTER = "azureml_emulator.webservices.front", "azureml_emulator.webservices.router"
PYTHON_VARIABLE = "AZUREML_EMULATOR_SCORING_PYTHON"
MODELS_DIR = "azureml-models"
MAX_BYTES = 1 << 30
MAX_FILES = 20_000
"""Limits of a source directory that is sent with a service."""

# Azure's own command can't be used: it listens on every interface. This is what it calls; gunicorn takes unix:PATH.
_AZURE_SERVER = (
    "import os, sys; from azureml_inference_server_http import amlserver_linux as server; "
    "server.run('unix', sys.argv[1], os.environ.get('WORKER_COUNT') or '1')"
)
_DECISION_SECONDS = 0.5
_LOOK_AGAIN = 0.01
_CRASH = "echo 'Exception in init(): the emulator was told to have services crash.'; exit 3"
_AZURE_PACKAGE = "azureml_inference_server_http"
_LOOPBACK = "127.0.0.1,localhost"


class Start(Attempt):
    """One start of a service's content."""

    def __init__(self, service_directory: Path, number: int, attempt: int) -> None:
        super().__init__(service_directory / str(number) / str(attempt))
        self.content = service_directory / str(number)

    @property
    def work(self) -> Path:
        """The working directory: ``AML_APP_ROOT``."""
        return self.content / "app"

    @property
    def log(self) -> Path:
        """What the container writes."""
        return self.directory / "container.log"

    @property
    def status(self) -> Path:
        """Where the front says that it listens."""
        return self.directory / "front.json"

    @property
    def retired(self) -> Path:
        """Appears when the start is to finish what it has, and end."""
        return self.directory / "retire"

    @property
    def asked(self) -> Path:
        """Touched when somebody is about to ask, so that the front does not end now."""
        return self.directory / "asked"

    @property
    def is_alive(self) -> bool:
        """Whether its supervisor runs."""
        return self.process() is not None

    def port(self) -> int | None:
        """Return the port that it accepts connections on, while it does."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return int(json.loads(self.status.read_bytes())["port"])
        return None

    def hold(self) -> bool:
        """Keep it from ending for want of requests; False if it does not answer any more."""
        with contextlib.suppress(OSError):
            self.asked.touch()
        # One that was about to end takes its status back, and gives it again when it sees that it was asked.
        end = time.monotonic() + _DECISION_SECONDS
        while (port := self.port()) is None and self.is_alive and time.monotonic() < end:
            time.sleep(_LOOK_AGAIN)
        return port is not None and self.is_alive

    def create(self) -> None:
        """Make the directories."""
        for path in (self.directory, self.home):
            path.mkdir(parents=True, exist_ok=True)
        self.log.touch()


def service_directory(service: Service, name: str) -> Path:
    """Return where a service's files are."""
    return service.state.webservices / name


def start_of(service: Service, name: str, deployment: Deployment) -> Start:
    """Return a deployment's processes."""
    return Start(service_directory(service, name), deployment.number, deployment.attempt)


def starts(directory: Path) -> Iterator[Start]:
    """Yield every start that has left a directory."""
    for content in _numbered(directory):
        for attempt in _numbered(content):
            yield Start(directory, int(content.name), int(attempt.name))


def contents(directory: Path) -> Iterator[Path]:
    """Yield the directory of every content."""
    yield from _numbered(directory)


def kill_all(directory: Path) -> None:
    """Kill whatever runs of a service."""
    for start in starts(directory):
        start.void()
        start.kill()


def write_auth(service: Service, record: Webservice) -> None:
    """Tell a service's front who may ask; it takes note at once."""
    accepted: list[tuple[str, float | None]] = []
    if record.wants_key:
        accepted += [(record.primary_key, None), (record.secondary_key, None)]
    if record.wants_token:
        accepted += list(record.tokens.items())
    content = {"needed": record.wants_key or record.wants_token, "accepted": accepted}
    write_atomically(service_directory(service, record.name) / "auth.json", json.dumps(content))


# The content


def artifact_of(service: Service, url: str) -> StoredArtifact | None:
    """Return the artifact that an asset's URL is of, if there is one."""
    origin, _, rest = url.removeprefix("aml://artifact/").partition("/")
    container, _, path = rest.partition("/")
    if not url.startswith("aml://artifact/") or not path:
        return None
    try:
        return service.artifacts.get(origin, container, path)
    except ServiceError:
        return None


def lay_out(service: Service, image: dict[str, Any], app: Path) -> None:
    """Make what the score script finds in Azure's container, whole or not at all.

    Raises:
        ServiceError: A model or an asset is gone, or can't be unpacked.
        OSError: It can't be written.
    """
    if app.exists():
        return
    partial = app.with_name("app.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / MODELS_DIR).mkdir(parents=True)
    for asset in image.get("assets") or []:
        stored = artifact_of(service, str(asset["url"]))
        if stored is None:
            raise bad_request(f"Asset {asset['id']} is gone.")
        source = service.artifacts.blob(stored).path
        if asset.get("unpack"):
            _unpack(source, partial)
        else:
            name = "main.py" if asset["id"] == image.get("driverProgram") else normalise(asset["id"])
            _copy(source, partial / name)
    if image.get("snapshot"):
        # A deployment of SDK v2: the code's folder keeps its name.
        service.snapshots.extract(image["snapshot"], partial / normalise(image["folder"]))
    for model_id in image.get("modelIds") or []:
        model = service.models.get(model_id)
        _place_model(service, model.url, partial / MODELS_DIR / model.name / str(model.version))
    tighten_all(partial)
    partial.rename(app)


def _place_model(service: Service, url: str, target: Path) -> None:
    asset = service.models.asset(url.removeprefix("aml://asset/"))
    for artifact in asset.artifacts:
        origin, _, rest = (artifact.id or artifact.prefix).partition("/")
        container, _, path = rest.partition("/")
        # As Model.download has it: the last segment of what was registered is kept, be it a file or a folder.
        parent = Path(path.rstrip("/")).parent
        for stored in service.artifacts.list(origin, container, path):
            _copy(service.artifacts.blob(stored).path, target / Path(stored.path).relative_to(parent))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _unpack(archive: Path, target: Path) -> None:
    try:
        with tarfile.open(archive) as opened:
            size = files = 0
            for member in opened:
                size, files = size + member.size, files + 1
                if size > MAX_BYTES or files > MAX_FILES:
                    raise bad_request(f"A source directory may have {MAX_BYTES:,} bytes in {MAX_FILES:,} files.")
                opened.extract(member, target, filter="data")
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise bad_request(f"The source directory can't be unpacked: {error}") from None


# The processes


def scoring_command(settings: Settings, socket: str) -> list[str]:
    """Return the command that serves a score script.

    Raises:
        ServiceError: 400, none is set and Azure's server is not installed.
    """
    python = os.environ.get(PYTHON_VARIABLE) or settings.scoring_python
    if python is None and settings.scoring_server is not None:
        return [word.replace("{socket}", socket) for word in settings.scoring_server]
    if python is None and importlib.util.find_spec(_AZURE_PACKAGE) is None:
        raise ServiceError(
            400,
            "NoScoringServer",
            "The emulator has nothing to serve a score script with. Start it with Settings(scoring_python=) or with "
            f"{PYTHON_VARIABLE} naming a Python that has azureml-inference-server-http, or with "
            "Settings(scoring_server=).",
        )
    return [str(python or sys.executable), "-c", _AZURE_SERVER, socket]


def prepare(service: Service, record: Webservice, deployment: Deployment, faults: Faults) -> Start:
    """Make everything ready for a start.

    Raises:
        ServiceError: The content can't be made.
        OSError: It can't be written.
    """
    start = start_of(service, record.name, deployment)
    start.create()
    lay_out(service, deployment.image, start.work)
    with service.database.transaction():
        write_auth(service, service.webservices.get(record.name))
    # Relative, because the path of a Unix socket has little room; the working directory is AML_APP_ROOT.
    socket = f"../{start.directory.name}/socket"
    front = {
        "socket": socket,
        "auth": str(service_directory(service, record.name) / "auth.json"),
        "retire": str(start.retired),
        "asked": str(start.asked),
        "status": str(start.status),
        "log": str(start.log),
        "port": record.port,
        "handover": f"../{start.directory.name}/handover",
        "predecessor": _predecessor(service, record, deployment, start),
        "listen": f"../../{names.SOCKET}" if record.compute_type == names.MANAGED else None,
        "idle": service.settings.service_idle,
        "delay": 0.0,
        "never": False,
    }
    if record.compute_type == names.ENDPOINT:
        front["routes"] = str(routes_of(service, record.name))
    else:
        front |= {"delay": faults.slow_services, "never": bool(faults.unhealthy_services)}
        crash = faults.crashing_services
        front["command"] = ["/bin/sh", "-c", _CRASH] if crash else scoring_command(service.settings, socket)
    spec = start.directory / "front_spec.json"
    write_atomically(spec, json.dumps(front))
    start.prepare(
        [[sys.executable, "-I", "-m", ROUTER if "routes" in front else FRONT, str(spec)]],
        service_environment(service, record, deployment, start),
        log=start.log,
        deadline=None,
        grace=service.settings.cancel_grace,
    )
    return start


def routes_of(service: Service, name: str) -> Path:
    """Return the file that says where an endpoint's requests go."""
    return service_directory(service, name) / "routes.json"


def _predecessor(service: Service, record: Webservice, deployment: Deployment, start: Start) -> str | None:
    if record.serving is None or not deployment.takes_over:
        return None
    before = start_of(service, record.name, record.serving)
    return os.path.relpath(before.directory / "handover", start.work)


def service_environment(service: Service, record: Webservice, deployment: Deployment, start: Start) -> dict[str, str]:
    """Return the variables that a score script's server starts with: a job's, and those of Azure's container."""
    kept = kept_environment(os.environ)
    image = deployment.image
    requested = (image.get("environment") or {}).get("environmentVariables") or {}
    models = start.work / MODELS_DIR
    if len(image.get("modelIds") or []) == 1:
        name, _, version = str(image["modelIds"][0]).rpartition(":")
        models = models / name / version
    environment = kept | {
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), kept.get("PATH", os.defpath))),
        "HOME": str(start.home),
        "NO_PROXY": _LOOPBACK,
        "no_proxy": _LOOPBACK,
        "PYTHONUNBUFFERED": "1",
        "HBI_WORKSPACE_JOB": "true",
        "AZUREML_ENTRY_SCRIPT": "main.py",
        **requested,
        "REQUESTS_CA_BUNDLE": str(service.ca_bundle),
        "AML_APP_ROOT": str(start.work),
        "AZUREML_MODEL_DIR": str(models),
        "SERVICE_NAME": names.deployment_of(record.name) if record.compute_type == names.MANAGED else record.name,
        "SERVICE_PATH_PREFIX": "",
        "SERVICE_VERSION": str(deployment.number),
        "WORKSPACE_NAME": service.settings.workspace_name,
    }
    if deployment.timeout_ms is not None:
        environment["SCORING_TIMEOUT_MS"] = str(deployment.timeout_ms)
    if service.settings.job_site is not None:
        paths = (environment.get("PYTHONPATH"), str(service.settings.job_site))
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return environment


def read_log(start: Start, lines: int) -> str:
    """Return the end of what a container has written."""
    try:
        with start.log.open("rb") as stream:
            stream.seek(max(0, start.log.stat().st_size - MAX_LOG))
            text = stream.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return "".join(text.splitlines(keepends=True)[-lines:])


MAX_LOG = 4 << 20
"""Bytes of a log that are given back."""


def retire(start: Start) -> None:
    """Have a start finish what it has, and end."""
    start.retired.touch()


def retired_for(start: Start) -> float:
    """Return for how many seconds a start has been retired."""
    try:
        return time.time() - start.retired.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _numbered(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.name.isdecimal())
    except FileNotFoundError:
        return []
