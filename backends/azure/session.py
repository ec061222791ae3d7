"""The SDK, imported once and without its deprecation warnings, and the workspace to work in.

A process talks to one Azure: the SDK reads which cloud there is from its environment, once, at import.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import msgspec

from backends.azure import signin
from backends.azure.deadline import Deadline
from backends.azure.emulator import running_emulator
from backends.azure.errors import explained, retry
from trainer.console.output import warn
from trainer.errors import ConfigError, MissingExtraError
from trainer.home import expanded
from trainer.redaction import redact
from trainer.runtime.layout import NO_TELEMETRY_VARIABLE

if TYPE_CHECKING:
    from backends.azure.options import ClusterOptions
    from backends.azure.sdk import Auth, Workspace
    from trainer.home import Home

# Where Workspace.from_config() looks, in this order, in a directory and then in each above it.
_CONFIG_DIRS = (".azureml", "aml_config", "")
_CONFIG_FILES = ("config.json", "project.json")
# Messages on every use: about the estimator, which is deprecated, about parameters that are used as documented, and
# what this backend reports itself.
_NOISE = re.compile(
    r"estimator is deprecated|will not install any framework related packages|framework_version is not specified"
    r"|has been provided here|requests session is not set|user_name does not exist|is deprecated\. Please use"
    r"|Retrying \(Retry\(|Falling back to use azure cli login|ModelNotFound: "
    r"|WebserviceNotFound: |reached non-successful terminal state"
)
_SDK_SETTINGS = {
    # A first wait of half a minute after a 429 looks like a hang; these start at a few seconds and still double.
    "AZUREML_DEFAULT_BACKOFF": "4",
    "AZUREML_DEFAULT_500_BACKOFF": "1",
    "AZUREML_DEFAULT_503_BACKOFF": "2",
    # Run.cancel() starts a thread that looks every second for metrics to send. A client has none.
    "AZUREML_METRICS_POLLING_INTERVAL": "86400",
    # Model.deploy() says it in ten lines; this backend says it in one.
    "AZUREML_LOG_DEPRECATION_WARNING_ENABLED": "False",
}
_LONGEST_WARNING = 500
_EMULATOR = "emulator"
# On this machine only a busy one takes long.
_EMULATOR_SECONDS = 120.0

_lock = threading.RLock()
_service_in_use: list[str] = []
_workspaces: dict[tuple[str, ...], Workspace] = {}


class WorkspaceRef(msgspec.Struct, frozen=True, kw_only=True):
    """Which workspace a run is in; kept in the run's record.

    Attributes:
        subscription_id: Its subscription.
        resource_group: Its resource group.
        workspace_name: Its name.
        emulator: State directory of the emulator that serves it, or None for Azure.
    """

    subscription_id: str
    resource_group: str
    workspace_name: str
    emulator: str | None = None

    @property
    def is_emulated(self) -> bool:
        """Whether nothing of it is on Azure."""
        return self.emulator is not None


def find_workspace(options: ClusterOptions, home: Home) -> WorkspaceRef:
    """Find the workspace that new runs go to. Read a file; start the emulator if it is asked for and doesn't run.

    Raises:
        ConfigError: There is no ``config.json``, or it is damaged.
    """
    if options.emulator:
        state = (home.path / _EMULATOR).resolve()
        endpoint = running_emulator(state)
        return WorkspaceRef(
            subscription_id=endpoint.subscription_id,
            resource_group=endpoint.resource_group,
            workspace_name=endpoint.workspace_name,
            emulator=str(state),
        )
    path = find_config(options.workspace_config or Path.cwd())
    if path is None:
        where = options.workspace_config or f"{Path.cwd()} or above"
        raise ConfigError(
            f"There is no workspace: no config.json in {where}.",
            "Download it from https://ml.azure.com (your workspace's name, top right) to .azureml/, "
            "or try everything without an account: --emulator",
        )
    return read_config(path)


def find_config(start: Path) -> Path | None:
    """Find the ``config.json`` that ``Workspace.from_config(start)`` would use; None if there is none."""
    start = expanded(start).resolve()
    if start.is_file():
        return start
    for directory in _CONFIG_DIRS:
        for name in _CONFIG_FILES:
            for folder in (start, *start.parents):
                if (path := folder / directory / name).is_file():
                    return path
    return None


def read_config(path: Path) -> WorkspaceRef:
    """Read a workspace's ``config.json``.

    Raises:
        ConfigError: It isn't one.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        scope = found.get("Scope", "").split("/") if isinstance(found, dict) else []
        if len(scope) >= 9:  # the form of old SDKs: one ARM id
            found = {"subscription_id": scope[2], "resource_group": scope[4], "workspace_name": scope[8]}
        return msgspec.convert(found, WorkspaceRef)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{path} is not a workspace's config.json: {error}.",
            "It holds subscription_id, resource_group and workspace_name; download it again from https://ml.azure.com.",
        ) from error


def open_workspace(ref: WorkspaceRef) -> Workspace:
    """Sign in and get the workspace, once per process. Thread-safe.

    Raises:
        SignInError: We are not who the workspace wants.
        NotFoundError: There is no such workspace.
        ServiceUnavailableError: Azure or the emulator can't be reached.
        ConfigError: This process already works with another service.
    """
    key = (ref.emulator or "", ref.subscription_id, ref.resource_group, ref.workspace_name)
    with _lock:
        if key not in _workspaces:
            _workspaces[key] = _open(ref)
        return _workspaces[key]


def _open(ref: WorkspaceRef) -> Workspace:
    auth = _auth(ref)
    # The imports take seconds and wait for nobody.
    core = sdk("azureml.core")
    sdk("azureml.core.authentication")
    deadline = answer_by(ref)
    doing = f"open the workspace {ref.workspace_name}"

    def get(signed_in: Auth) -> Workspace:
        found: Workspace = core.Workspace.get(
            ref.workspace_name,
            auth=signed_in,
            subscription_id=ref.subscription_id,
            resource_group=ref.resource_group,
        )
        return found

    with explained("sign in"):
        signed_in = auth(deadline)
    with explained(doing):
        return deadline.wait(lambda: retry(lambda: get(signed_in)), doing)


def answer_by(ref: WorkspaceRef) -> Deadline:
    """Return by when a workspace must have answered the short questions before a submission."""
    return Deadline(_EMULATOR_SECONDS if ref.is_emulated else signin.ANSWER_SECONDS)


def forget_workspaces() -> None:
    """Sign in and look everything up again at the next use: a token was refused, or an emulator came back."""
    with _lock:
        _workspaces.clear()


def sdk(module: str) -> ModuleType:
    """Import a module of the SDK without its deprecation warnings.

    Raises:
        MissingExtraError: The SDK is not installed.
    """
    quieten_logging()
    os.environ[NO_TELEMETRY_VARIABLE] = "true"
    for name, value in _SDK_SETTINGS.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("azureml"):
                raise
            raise MissingExtraError("The azureml backend", "azureml") from error


def _auth(ref: WorkspaceRef) -> Callable[[Deadline], Auth]:
    if ref.emulator is None:
        use_service("Azure", {})
        return signin.sign_in
    endpoint = running_emulator(Path(ref.emulator))
    use_service(f"the emulator in {ref.emulator}", endpoint.environment)
    return lambda _: signin.token_authentication(endpoint.token)


def use_service(service: str, environment: Mapping[str, str]) -> None:
    """Set this process to a service.

    Args:
        service: What it is called in the error.
        environment: The variables by which the SDKs find it.

    Raises:
        ConfigError: The process works with another one already.
    """
    if _service_in_use and _service_in_use != [service]:
        raise ConfigError(
            f"This command already works with {_service_in_use[0]} and can't turn to {service} as well.",
            "Name one run, or run the command again for the others.",
        )
    if not _service_in_use:
        os.environ.update(environment)
        _service_in_use.append(service)


def quieten_logging() -> None:
    """Show what the SDKs log as one line each, and what every use gives not at all."""
    root = logging.getLogger()
    if not any(isinstance(one, _NoiseFilter) for one in root.filters):
        root.addFilter(_NoiseFilter())  # for the SDK's logging.warning(), which goes to the root logger itself
    # Of what the SDK is made of (msrestazure, msal, adal) some report through the root logger, and quote requests.
    for logger in (logging.getLogger("azureml"), root):
        if not any(isinstance(one, _WarningHandler) for one in logger.handlers):
            logger.addHandler(_WarningHandler())
    logging.getLogger("azureml").propagate = False


class _NoiseFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not _NOISE.search(record.getMessage())


class _WarningHandler(logging.Handler):
    """Show the SDK's warnings in one line each and once, without secrets and without those that every use gives."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.addFilter(_NoiseFilter())
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(redact(record.getMessage()).split())
        if text not in self._shown:
            self._shown.add(text)
            warn(f"Azure ML SDK: {text[:_LONGEST_WARNING]}")
