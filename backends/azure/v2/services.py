"""Services on Azure ML by SDK v2: managed online endpoints.

    an endpoint            the service: its address, its keys
    a deployment of it     one version of a model with a score script, under a name of its own

An update is another deployment, beside the one that answers. It gets the traffic when it is healthy, and then the other
one is removed; if it never is, it is removed itself. The endpoint's tags name the deployment that was asked for last:
whoever looks next goes on for a client that was killed, and of two clients that deploy at once the later one wins.

The SDK sends what has to be uploaded and waits for it; everything else is asked by plain HTTPS.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.azure import sending
from backends.azure.deploying import Order, WorkspaceServices, failed, tags_of, tell_log
from backends.azure.emulator import SERVICE_DOES_NOT_PROVE
from backends.azure.errors import first_line, is_transient, translate
from backends.azure.scoring_image import PORT, scoring_environment
from backends.azure.service_info import ID_TAG, MODEL_TAG, NETWORK_TAG, SCRIPT_TAG, Detail
from backends.azure.v2 import endpoints
from backends.azure.v2.client import ml_client, quietly, sdk
from backends.azure.v2.connection import open_connection
from backends.azure.v2.endpoint_info import BACKEND, ENDED, KIND, Endpoint, info_of
from trainer.deploy.preparing import stage
from trainer.deploy.service import Deployment, KeyName, ServiceInfo, Tell
from trainer.errors import RefusedError, TrainerError

if TYPE_CHECKING:
    from backends.azure.image import Environment
    from backends.azure.options import ManagedOptions
    from backends.azure.session import WorkspaceRef
    from backends.azure.v2.connection import Connection
    from trainer.artifacts import ArtifactStore
    from trainer.home import Home
    from trainer.snapshot import Snapshot

# As long as AKS has it by SDK v1; the SDK's default is 5 seconds.
_REQUEST_MS = 60_000
_LOOK_SECONDS = 0.1
_TELL_SECONDS = 30.0
_LOG_LINES = 1000
_SOURCE = "source"


class ManagedServices(WorkspaceServices["Connection", Endpoint]):
    """The services of a workspace; see :class:`backends.azure.deploying.WorkspaceServices`."""

    backend = BACKEND
    emulated = SERVICE_DOES_NOT_PROVE

    def __init__(
        self, options: ManagedOptions, home: Home, store: Callable[[], ArtifactStore], where: Callable[[], str]
    ) -> None:
        super().__init__(options, home, store, where)
        self._options = options

    def kind(self) -> str:
        """See :meth:`WorkspaceServices.kind`."""
        return KIND

    def details(self) -> dict[str, Any]:
        """See :meth:`WorkspaceServices.details`."""
        return {"instances": f"{self._options.instances} of {self._options.instance_type}"}

    def image(self, deployment: Deployment, snapshot: Snapshot) -> Environment:
        """See :meth:`WorkspaceServices.image`."""
        return scoring_environment(deployment, snapshot, starts_server=True)

    def open(self, ref: WorkspaceRef) -> Connection:
        """See :meth:`WorkspaceServices.open`."""
        return open_connection(ref)

    def look_up(self, place: Connection, name: str) -> Endpoint | None:
        """See :meth:`WorkspaceServices.look_up`."""
        return endpoints.find_endpoint(place, name)

    def all_of(self, place: Connection) -> list[Endpoint]:
        """See :meth:`WorkspaceServices.all_of`."""
        return endpoints.all_endpoints(place)

    def describe(self, found: Endpoint, ref: WorkspaceRef, detail: Detail | None = None) -> ServiceInfo:
        """See :meth:`WorkspaceServices.describe`."""
        return info_of(found, ref, detail)

    def bring(self, place: Connection, order: Order, before: Endpoint | None, tell: Tell) -> Callable[[], Endpoint]:
        """See :meth:`WorkspaceServices.bring`."""
        tell("Loading the SDK; this takes ten seconds ...")
        client = ml_client(place)
        # The SDK's own waiting prints dots from a thread of its own, from here on.
        silence = contextlib.ExitStack()
        silence.enter_context(contextlib.redirect_stdout(io.StringIO()))
        try:
            if before is None:
                self._make_endpoint(client, place, order)
            else:
                self._claim(place, order, before)
            name = _deployment_name(order)
            tell(f"Deploying {order.version.reference} as {name}, {self.details()['instances']}.")
            poller = self._send(client, place, order, name)
        except BaseException as error:
            silence.close()
            if before is None and isinstance(error, TrainerError) and not is_transient(error):
                self._clear_up(place, order.name)
            raise

        def healthy() -> Endpoint:
            with silence:
                self._wait(place, order, name, poller, tell)
            return _take_over(place, order.name, name, order.detail.deployment, tell)

        return healthy

    def catch_up(self, place: Connection, found: Endpoint, detail: Detail) -> Endpoint:
        """See :meth:`WorkspaceServices.catch_up`: give a deployment the traffic whose client has not."""
        wanted = found.newest
        if (
            not detail.deployment
            or found.tags.get(ID_TAG) != detail.deployment
            or wanted is None
            or wanted.tags.get(ID_TAG) != detail.deployment
            or wanted.state != "Succeeded"
            or (wanted.name in found.traffic and not _left_over(found, wanted.name))
        ):
            return found
        return _take_over(place, found.name, wanted.name, detail.deployment, lambda _: None)

    def remove(self, place: Connection, name: str) -> None:
        """See :meth:`WorkspaceServices.remove`."""
        endpoints.remove_endpoint(place, name)

    def keys(self, service: ServiceInfo) -> tuple[str, ...]:
        """See :meth:`trainer.deploy.service.Services.keys`. Of an endpoint with tokens, one that holds for hours."""
        return endpoints.keys_of(*self.there(service))

    def renew_key(self, service: ServiceInfo, which: KeyName) -> None:
        """See :meth:`trainer.deploy.service.Services.renew_key`."""
        place, found = self.there(service)
        if not endpoints.has_keys(found):
            super().renew_key(service, which)
        endpoints.renew_key(place, found, which)

    def logs(self, service: ServiceInfo, lines: int) -> str:
        """See :meth:`trainer.deploy.service.Services.logs`."""
        place, found = self.there(service)
        shown = found.live or found.newest
        said = [] if shown is None else endpoints.log_of(place, found.name, shown.name, lines)
        return "".join(f"{line}\n" for line in said)

    def _make_endpoint(self, client: Any, place: Connection, order: Order) -> None:  # noqa: ANN401  # the SDK's
        entity = sdk("azure.ai.ml.entities").ManagedOnlineEndpoint(
            name=order.name, auth_mode="key", tags=tags_of(order), description="Made by trainer."
        )

        def send() -> None:
            with quietly():
                client.online_endpoints.begin_create_or_update(entity).result()

        doing = f"make the endpoint {order.name}"
        try:
            sending.send_once(lambda: endpoints.find_endpoint(place, order.name), order.name, send, doing)
        except RefusedError as error:
            if is_transient(error):
                raise
            hint = "An endpoint's name must be free in the whole Azure region; another one: --name NAME"
            raise RefusedError(error.message, hint) from error
        made = endpoints.settled(place, order.name)
        if made.state != "Succeeded":
            raise RefusedError(
                f"Azure ML could not make the endpoint {order.name}: it is {made.state}.",
                f"See it in the portal. Remove it: trainer undeploy {order.name}",
            )

    def _clear_up(self, place: Connection, name: str) -> None:
        """Remove an endpoint of ours to which nothing could be deployed."""
        with contextlib.suppress(TrainerError):
            made = endpoints.find_endpoint(place, name)
            if made is not None and not made.deployments and ID_TAG in made.tags:
                endpoints.remove_endpoint(place, name)

    def _claim(self, place: Connection, order: Order, before: Endpoint) -> None:
        """Say on the endpoint which deployment is the one that is asked for last."""
        endpoints.settled(place, order.name)
        endpoints.change_endpoint(place, before, tags={ID_TAG: order.detail.deployment})
        if before.live is None:
            for one in before.deployments.values():
                if one.is_ours and one.state == "Failed":
                    endpoints.remove_deployment(place, order.name, one.name)

    def _send(self, client: Any, place: Connection, order: Order, name: str) -> Any:  # noqa: ANN401  # the SDK's
        """Send a deployment; returns the SDK's poller, or None where the answer was lost."""
        pollers: list[Any] = []
        with tempfile.TemporaryDirectory(prefix="trainer-deploy-") as scratch:
            source, context = Path(scratch, _SOURCE), Path(scratch, "image")
            stage(order.deployment, order.snapshot, source)
            context.mkdir()
            (context / "Dockerfile").write_text(order.image.dockerfile)
            entity = self._deployment(order, name, source, context)

            def send() -> None:
                with quietly():
                    pollers.append(client.online_deployments.begin_create_or_update(entity))

            sending.send_once(
                lambda: endpoints.state_of(place, order.name, name), order.name, send, f"deploy {order.name}"
            )
        return pollers[-1] if pollers else None

    def _deployment(self, order: Order, name: str, source: Path, context: Path) -> Any:  # noqa: ANN401  # the SDK's
        entities = sdk("azure.ai.ml.entities")
        route = {"port": PORT, "path": "/"}
        return entities.ManagedOnlineDeployment(
            name=name,
            endpoint_name=order.name,
            tags=tags_of(order),
            model=f"azureml:{order.version.reference}",
            code_configuration=entities.CodeConfiguration(code=str(source), scoring_script=order.entry),
            environment=entities.Environment(
                build=entities.BuildContext(path=str(context), dockerfile_path="Dockerfile"),
                inference_config={
                    "liveness_route": route,
                    "readiness_route": route,
                    "scoring_route": {"port": PORT, "path": "/score"},
                },
                tags={"trainer.name": order.image.name},
            ),
            request_settings=entities.OnlineRequestSettings(request_timeout_ms=_REQUEST_MS),
            instance_type=self._options.instance_type,
            instance_count=self._options.instances,
        )

    def _wait(self, place: Connection, order: Order, name: str, poller: Any, tell: Tell) -> None:  # noqa: ANN401
        """Wait until a deployment is healthy.

        Raises:
            RunFailedError: It is not, and won't be.
            ServiceUnavailableError: Azure ML doesn't answer any more.
        """
        reason = _why_not(place, order.name, name, poller, tell)
        if reason is None:
            return
        lines: list[str] = []
        with contextlib.suppress(TrainerError):  # it may have no container to ask
            lines = endpoints.log_of(place, order.name, name, _LOG_LINES)
        tell_log(lines, tell)
        now = endpoints.find_endpoint(place, order.name)
        if now is None or now.live is None:
            raise failed(order.name, "did not become healthy", reason)
        tell(f"Removing {name}, which would go on costing; {now.live.name} answers as before.")
        endpoints.remove_deployment(place, order.name, name)
        raise failed(order.name, "could not be updated, and goes on as it was", reason, has_log=False)


def _why_not(place: Connection, endpoint: str, name: str, poller: Any, tell: Tell) -> str | None:  # noqa: ANN401
    """Wait until a deployment has ended; returns None if it is healthy."""
    begun = told = time.monotonic()
    while poller is not None and not poller.done():
        time.sleep(_LOOK_SECONDS)
        if time.monotonic() - told > _TELL_SECONDS:
            told = time.monotonic()
            tell(f"Still waiting, for {told - begun:.0f} s now.")
    if poller is not None:
        try:
            poller.result()
        except Exception as error:
            if not is_transient(error):
                return first_line(error)
            tell(f"{translate(error, f'wait for {endpoint}').message} Asking again.")
        else:
            return None
    state = endpoints.wait_until_ended(place, endpoint, name)
    return None if state == "Succeeded" else f"its deployment {name} is {state}."


def _take_over(place: Connection, name: str, deployment: str, our_id: str, tell: Tell) -> Endpoint:
    """Give a deployment all of the traffic, and remove those of ours that it takes the place of.

    Raises:
        RefusedError: Another client has deployed meanwhile.
    """
    found = endpoints.settled(place, name)
    if found.tags.get(ID_TAG) != our_id or deployment not in found.deployments:
        if deployment in found.deployments and deployment not in found.traffic:
            endpoints.remove_deployment(place, name, deployment)
        raise RefusedError(
            f"Another client has deployed to {name} meanwhile.", f"See what it answers with: trainer services {name}"
        )
    if dict(found.traffic) != {deployment: 100}:
        tags = found.deployments[deployment].tags
        tell(f"{deployment} is healthy, and gets the traffic.")
        wanted = {tag: tags.get(tag) for tag in (MODEL_TAG, SCRIPT_TAG, NETWORK_TAG, ID_TAG)}
        found = endpoints.change_endpoint(place, found, tags=wanted, traffic={deployment: 100})
    for one in _left_over(found, deployment):
        tell(f"Removing {one}, which was there before.")
        endpoints.remove_deployment(place, name, one)
    others = [one.name for one in found.deployments.values() if not one.is_ours]
    if others:
        tell(f"{', '.join(others)}, which others have deployed, {'is' if len(others) == 1 else 'are'} left there.")
    return endpoints.settled(place, name)


def _left_over(found: Endpoint, but: str) -> list[str]:
    return [
        one.name
        for one in found.deployments.values()
        if one.is_ours and one.name != but and one.name not in found.traffic and one.state in ENDED
    ]


def _deployment_name(order: Order) -> str:
    return f"v{order.version.version}-{order.detail.deployment[:8]}"
