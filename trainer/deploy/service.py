"""What is asked for with a deployment, what is known of a service, and what a backend that has services must do."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from trainer.errors import RefusedError, UsageError
from trainer.modeluse.building import NOTHING_SAID, NetworkChoice
from trainer.records import Time
from trainer.redaction import redact

if TYPE_CHECKING:
    from trainer.artifacts import ModelVersion

# Azure ML's own words, on every backend. Those that it may say beside them are shown as they are.
TRANSITIONING, HEALTHY, UNHEALTHY, FAILED = "Transitioning", "Healthy", "Unhealthy", "Failed"

Tell = Callable[[str], None]
KeyName = Literal["primary", "secondary"]
KEY_NAMES: tuple[KeyName, ...] = ("primary", "secondary")

_NAME_MIN, _NAME_MAX = 3, 32
# Azure ML's rule for the name of a web service, so that a name that works here works there.
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


class ServiceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a service; also its record on this machine.

    Attributes:
        name: Its name.
        backend: The backend that it is on.
        kind: What it runs as, in the backend's words: ``process``, ``ACI``, ``AKS``, ``managed endpoint``.
        state: ``Transitioning``, ``Healthy``, ``Unhealthy``, ``Failed``, or another word of the backend's.
        model: ``name:version`` of the model that it answers with; empty where that is not known.
        script: Name of the user's score script; None for ours.
        network: ``FILE.py:NAME`` of the user's own network that ours builds; None for the one we know.
        url: Where to POST what is to be scored, or None while there is no such place.
        created: When it was deployed first.
        updated: When it was deployed last.
        error: What is wrong with it, in one line, or an empty text.
        detail: What its backend keeps of it. No secret.
    """

    name: str
    backend: str
    kind: str
    state: str
    model: str = ""
    script: str | None = None
    network: str | None = None
    url: str | None = None
    created: Time
    updated: Time
    error: str = ""
    detail: dict[str, Any] = {}

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "error", redact(self.error))


@dataclass(frozen=True)
class Deployment:
    """What to deploy, checked as far as that can be done without asking anybody.

    Attributes:
        model: The registered model, as :func:`trainer.artifacts.find_model` takes it.
        name: Of the service; None for the model's own, made to fit.
        script: The user's score script, or None for ours.
        network: How ours builds the network.
        record: What is recorded of the model, when it has been looked up.
        exclude: Directories that never travel with it.
        overwrite: Replace a service of the same name.
    """

    model: str
    name: str | None = None
    script: Path | None = None
    network: NetworkChoice = NOTHING_SAID
    record: ModelVersion | None = None
    exclude: tuple[Path, ...] = ()
    overwrite: bool = False


class ServicePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployment would do, found without starting anything or touching a network.

    Attributes:
        backend: The backend's name.
        name: The service's name.
        model: The model, as it was given, or its version where that is known.
        script: The score script.
        details: The backend's own lines, label to value.
        warnings: What the user should know before.
    """

    backend: str
    name: str
    model: str
    script: str
    details: dict[str, Any] = {}
    warnings: tuple[str, ...] = ()


class Services(ABC):
    """The services of a backend: where :meth:`trainer.backend.Backend.services` has some.

    A deployment writes a record of itself before it asks for anything, so that another client finds the service
    where this one dies. Every method may raise :class:`~trainer.errors.TrainerError`.
    """

    @abstractmethod
    def plan(self, deployment: Deployment) -> ServicePlan:
        """Say what ``deploy`` would do. No network is touched and nothing is written."""

    @abstractmethod
    def deploy(self, deployment: Deployment, tell: Tell) -> ServiceInfo:
        """Deploy, and return when the service is healthy.

        Where a service is replaced, it goes on answering with the old model until the new one can, and if that fails.

        Args:
            deployment: What.
            tell: Is told how it goes on, a line at a time.

        Raises:
            RefusedError: There is such a service, and it is not to be overwritten; or the backend won't take it.
            NotFoundError: There is no such model.
            RunFailedError: The service did not become healthy. What its log ends with has been told.
        """

    @abstractmethod
    def every(self) -> list[ServiceInfo]:
        """Return all services of the backend, asked for now, by name."""

    @abstractmethod
    def get(self, name: str) -> ServiceInfo:
        """Return a service, asked for now.

        Raises:
            NotFoundError: There is none of that name.
        """

    def refresh(self, service: ServiceInfo) -> ServiceInfo:
        """Return what is known now of a service that has a record; by default what :meth:`get` gives.

        One that is gone from its backend is returned as ``Failed``, with that for its error.
        """
        return self.get(service.name)

    @abstractmethod
    def keys(self, service: ServiceInfo) -> tuple[str, ...]:
        """Return the keys that it accepts, the primary one first; none if it asks for none."""

    def renew_key(self, service: ServiceInfo, which: KeyName) -> None:  # noqa: ARG002  # for those that have keys
        """Replace one of its two keys by a new one; the old one opens nothing any more. The other one stays.

        Raises:
            RefusedError: It has no keys of its own, or the backend can't; the default.
        """
        raise RefusedError(f"The keys of {service.name} can't be renewed.", "Deploy it again under another name.")

    @abstractmethod
    def logs(self, service: ServiceInfo, lines: int) -> str:
        """Return the last ``lines`` lines of its log."""

    @abstractmethod
    def delete(self, service: ServiceInfo, tell: Tell) -> bool:
        """End a service and remove it with its record. Idempotent.

        Returns:
            Whether there was such a service.
        """


def check_service_name(name: str) -> str:
    """Return ``name`` if it can name a service everywhere.

    Raises:
        UsageError: It can't.
    """
    if not _NAME.fullmatch(name) or not _NAME_MIN <= len(name) <= _NAME_MAX:
        raise UsageError(
            f"{name[:60]!r} is not a valid name of a service.",
            f"Use {_NAME_MIN} to {_NAME_MAX} lower-case letters, digits and '-', beginning with a letter "
            "and not ending with '-'.",
        )
    return name


def service_name(model_name: str) -> str:
    """Return the name that a model's service gets if none is given: the model's, made to fit.

    Raises:
        UsageError: Nothing that would do is left of it.
    """
    made = re.sub(r"[^a-z0-9]+", "-", model_name.lower()).strip("-")[:_NAME_MAX].rstrip("-")
    if not _NAME.fullmatch(made) or len(made) < _NAME_MIN:
        raise UsageError(f"The model's name {model_name!r} can't name a service.", "Give the service a name: --name")
    return made
