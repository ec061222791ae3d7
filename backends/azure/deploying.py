"""What deploying comes to by either SDK: what is checked, recorded and said, and in which order.

    deploy   model -> image -> record -> sent under an id of ours -> healthy

A deployment has an id, kept in its record and in the service's tags, so that a client whose request was never answered
can tell whether the service that is there is its own. What differs between the SDKs is below, as abstract methods.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
import uuid
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

import msgspec

from backends.azure.errors import is_transient
from backends.azure.scoring_image import scoring_environment
from backends.azure.service_info import ID_TAG, MODEL_TAG, NETWORK_TAG, SCRIPT_TAG, Detail, detail_of
from backends.azure.session import WorkspaceRef, find_workspace
from trainer.artifacts import ModelVersion
from trainer.deploy import records
from trainer.deploy.preparing import resolved, source_of
from trainer.deploy.service import (
    FAILED,
    TRANSITIONING,
    Deployment,
    ServiceInfo,
    ServicePlan,
    Services,
    Tell,
    service_name,
)
from trainer.deploy.trying import try_network
from trainer.errors import NotFoundError, RefusedError, RunFailedError, TrainerError, UsageError
from trainer.modelfile import is_path
from trainer.trees import remove_tree

if TYPE_CHECKING:
    from backends.azure.image import Environment
    from backends.azure.options import ClusterOptions
    from trainer.artifacts import ArtifactStore
    from trainer.home import Home
    from trainer.snapshot import Snapshot

# A deployment whose client was killed before the answer may still arrive.
_IN_FLIGHT_SECONDS = 60.0
TAIL = 30

Place = TypeVar("Place")
Found = TypeVar("Found")


class Order(NamedTuple):
    """A deployment, checked and looked up.

    Attributes:
        name: The service's name.
        deployment: What the user asked for, with the version that is meant.
        version: The model.
        snapshot: What travels.
        entry: The entry script, as a path in it.
        image: What it runs in.
        detail: What its record keeps.
    """

    name: str
    deployment: Deployment
    version: ModelVersion
    snapshot: Snapshot
    entry: str
    image: Environment
    detail: Detail


class WorkspaceServices(Services, Generic[Place, Found]):
    """The services of a workspace.

    Args:
        options: What the user has set.
        home: Where records are kept, and an emulator's state.
        store: Gives the workspace's model registry.
        where: Says which workspace the options mean, without asking it.

    Attributes:
        backend: The backend's name.
        notice: What is said of every deployment on Azure; empty for nothing.
        emulated: What is said of every deployment in the emulator.
    """

    backend: ClassVar[str]
    notice: ClassVar[str] = ""
    emulated: ClassVar[str]

    def __init__(
        self, options: ClusterOptions, home: Home, store: Callable[[], ArtifactStore], where: Callable[[], str]
    ) -> None:
        self._home = home
        self._store = store
        self._where = where
        self._cluster_options = options

    @abstractmethod
    def kind(self) -> str:
        """Return what a service runs as.

        Raises:
            UsageError: The options don't fit together.
        """

    @abstractmethod
    def details(self) -> dict[str, Any]:
        """Return what a plan says of the place, label to value."""

    def image(self, deployment: Deployment, snapshot: Snapshot) -> Environment:
        """Return what a service runs in; errors as :func:`scoring_environment`."""
        return scoring_environment(deployment, snapshot)

    @abstractmethod
    def open(self, ref: WorkspaceRef) -> Place:
        """Sign in to a workspace."""

    @abstractmethod
    def look_up(self, place: Place, name: str) -> Found | None:
        """Return what the workspace has under a name."""

    @abstractmethod
    def all_of(self, place: Place) -> list[Found]:
        """Return all that the workspace has."""

    @abstractmethod
    def describe(self, found: Found, ref: WorkspaceRef, detail: Detail | None = None) -> ServiceInfo:
        """Return what is known of a service; ``detail`` is what its record keeps, if it has one."""

    @abstractmethod
    def bring(self, place: Place, order: Order, before: Found | None, tell: Tell) -> Callable[[], Found]:
        """Send a deployment; returns when Azure ML has taken it.

        Returns:
            Waits until it is healthy; raises RunFailedError where it is not, and won't be.
        """

    @abstractmethod
    def remove(self, place: Place, name: str) -> None:
        """End a service."""

    def catch_up(self, place: Place, found: Found, detail: Detail) -> Found:  # noqa: ARG002  # for those that need it
        """Do what is left to do of a deployment of ours whose client has ended; returns the service as it is then."""
        return found

    def plan(self, deployment: Deployment) -> ServicePlan:
        """See :meth:`trainer.deploy.service.Services.plan`."""
        kind = self.kind()
        snapshot, entry = source_of(deployment)
        image = self.image(deployment, snapshot)
        given = None if deployment.model == "latest" else service_name(deployment.model.partition(":")[0])
        details = {
            "workspace": self._where(),
            "kind": kind,
            **self.details(),
            "travels": f"{len(snapshot.files)} files, {snapshot.size:,} bytes; entry script {entry}",
            "image": image.image,
            "environment": image.name,
            "python": image.pins.python,
            "pins": " ".join(image.pins.requirements()),
        }
        if deployment.network.where is not None:
            details["network"] = deployment.network.where
        return ServicePlan(
            backend=self.backend,
            name=deployment.name or given or "the name of the latest model",
            model=deployment.model,
            script=script_name(deployment) or "ours: pixels or pictures in, class and probabilities out",
            details=details,
            warnings=(*filter(None, (self.notice,)), *snapshot.notes, *_notes(image)),
        )

    def deploy(self, deployment: Deployment, tell: Tell) -> ServiceInfo:
        """See :meth:`trainer.deploy.service.Services.deploy`."""
        self.kind()
        if is_path(deployment.model):
            hint = f"Register it; see: trainer models --backend {self.backend}"
            raise UsageError(f"{deployment.model} is a file.", hint)
        ref = find_workspace(self._cluster_options, self._home)
        if text := self.emulated if ref.is_emulated else self.notice:
            tell(text)
        place = self.open(ref)
        store = self._store()
        deployment, version = resolved(deployment, store)
        name = str(deployment.name)
        before = self.look_up(place, name)
        known = None if before is None else self.describe(before, ref)
        if known is not None and not deployment.overwrite:
            raise RefusedError(
                f"There is a service {name} already in {ref.workspace_name}: {known.model or 'model not known'}, "
                f"{known.state}.",
                "Replace it: --overwrite    Or give this one another name: --name NAME",
            )
        snapshot, entry = source_of(deployment)
        image = self.image(deployment, snapshot)
        for text in _notes(image):
            tell(text)
        try_network(deployment, store, tell)
        if known is not None:
            tell(f"Replacing {name}, which answers with {known.model or 'a model that is not known'}.")
        detail = Detail(workspace=ref, deployment=uuid.uuid4().hex, sent=time.time())
        order = Order(name, deployment, version, snapshot, entry, image, detail)
        folder = self._folder(name, ref)
        records.write(folder, self._record(order, known))
        tell(f"Sending {len(snapshot.files)} files, {snapshot.size / 1e6:.1f} MB, to {ref.workspace_name}.")
        try:
            wait = self.bring(place, order, before, tell)
        except BaseException as error:
            # Interrupted, or never answered: it may have arrived all the same, and the record finds it.
            if isinstance(error, TrainerError) and before is None and not is_transient(error):
                remove_tree(folder)
            raise
        tell(f"Waiting for {name} ({self.kind()}); on Azure this takes minutes, most of them for a new image.")
        try:
            found = wait()
        except RunFailedError as error:
            self._note_failure(place, order, error)
            raise
        info = self.describe(found, ref, detail)
        records.write(folder, info)
        return info

    def every(self) -> list[ServiceInfo]:
        """See :meth:`trainer.deploy.service.Services.every`."""
        ref = find_workspace(self._cluster_options, self._home)
        found = [self.describe(one, ref) for one in self.all_of(self.open(ref))]
        return sorted(found, key=lambda service: service.name)

    def get(self, name: str) -> ServiceInfo:
        """See :meth:`trainer.deploy.service.Services.get`."""
        ref = find_workspace(self._cluster_options, self._home)
        found = self.look_up(self.open(ref), name)
        if found is None:
            raise NotFoundError(
                f"There is no service {name!r} in the workspace {ref.workspace_name}.",
                f"See: trainer services --backend {self.backend}{' --emulator' if ref.is_emulated else ''}",
            )
        return self.describe(found, ref)

    def refresh(self, service: ServiceInfo) -> ServiceInfo:
        """See :meth:`trainer.deploy.service.Services.refresh`. The record is brought up to date."""
        detail = detail_of(service)
        place = self.open(detail.workspace)
        found = self.look_up(place, service.name)
        if found is not None:
            now = self.describe(self.catch_up(place, found, detail), detail.workspace, detail)
            if now.state == FAILED == service.state and service.error:
                now = msgspec.structs.replace(now, error=service.error)
        elif abs(time.time() - detail.sent) < _IN_FLIGHT_SECONDS and service.state == TRANSITIONING:
            return service
        else:
            error = f"The workspace {detail.workspace.workspace_name} has no such service."
            now = msgspec.structs.replace(service, state=FAILED, url=None, error=error)
        folder = self._folder(service.name, detail.workspace)
        if now != service and records.read(folder) is not None:
            records.write(folder, now)
        return now

    def delete(self, service: ServiceInfo, tell: Tell) -> bool:
        """See :meth:`trainer.deploy.service.Services.delete`."""
        ref = detail_of(service).workspace
        place = self.open(ref)
        found = self.look_up(place, service.name)
        if found is not None:
            tell(f"Removing {service.name} from {ref.workspace_name}.")
            self.remove(place, service.name)
        remove_tree(self._folder(service.name, ref))
        return found is not None

    def there(self, service: ServiceInfo) -> tuple[Place, Found]:
        """Return where a service is, and itself.

        Raises:
            NotFoundError: It is gone.
        """
        ref = detail_of(service).workspace
        place = self.open(ref)
        found = self.look_up(place, service.name)
        if found is None:
            raise NotFoundError(
                f"There is no service {service.name!r} in the workspace {ref.workspace_name} any more.",
                f"To forget it: trainer undeploy {service.name}",
            )
        return place, found

    def _note_failure(self, place: Place, order: Order, error: RunFailedError) -> None:
        """Keep in the record why a service has failed: asked for later, it may not say."""
        with contextlib.suppress(TrainerError):
            found = self.look_up(place, order.name)
            now = None if found is None else self.describe(found, order.detail.workspace, order.detail)
            if now is not None and now.state == FAILED:
                now = msgspec.structs.replace(now, error=error.message)
                records.write(self._folder(order.name, order.detail.workspace), now)

    def _folder(self, name: str, ref: WorkspaceRef) -> Path:
        # One name may be in several workspaces, and in an emulator's.
        digest = hashlib.sha256(msgspec.json.encode(ref)).hexdigest()[:8]
        return self._home.services / self.backend / f"{name}.{digest}"

    def _record(self, order: Order, before: ServiceInfo | None) -> ServiceInfo:
        return ServiceInfo(
            name=order.name,
            backend=self.backend,
            kind=self.kind(),
            state=TRANSITIONING,
            model=order.version.reference,
            script=script_name(order.deployment),
            network=order.deployment.network.name,
            created=order.detail.sent if before is None else before.created,
            updated=order.detail.sent,
            detail=msgspec.to_builtins(order.detail),
        )


def failed(name: str, what: str, reason: str, *, has_log: bool = True) -> RunFailedError:
    """Return the error of a service that has not become healthy.

    Args:
        name: The service.
        what: What came of it.
        reason: Why.
        has_log: It has its log still. One that goes on as it was has none of what failed, and is not to be removed.
    """
    hint = "Deploy again: --overwrite"
    if has_log:
        hint = f"Its log: trainer services {name} --log 100    {hint}    Remove it: trainer undeploy {name}"
    return RunFailedError(f"The service {name} {what}: {reason}", hint)


def tell_log(lines: list[str], tell: Tell) -> None:
    """Tell how a container's log ends."""
    if lines:
        tell("\n".join(["The container's log ends with:", *(f"  {line}" for line in lines[-TAIL:])]))


def tags_of(order: Order) -> dict[str, str]:
    """Return what a service's tags say of a deployment, so that a client without a record knows it."""
    tags = {MODEL_TAG: order.version.reference, ID_TAG: order.detail.deployment}
    made = {SCRIPT_TAG: script_name(order.deployment), NETWORK_TAG: order.deployment.network.name}
    return tags | {tag: value for tag, value in made.items() if value is not None}


def script_name(deployment: Deployment) -> str | None:
    """Return the name of the user's score script, or None."""
    return None if deployment.script is None else deployment.script.name


def _notes(image: Environment) -> list[str]:
    left = [f"{name} is imported here but is not in the image: {why}." for name, why in image.pins.left_out.items()]
    if image.pins.replaced:
        left.append(f"Azure's inference server wants {', '.join(image.pins.replaced)}.")
    return left
