"""Services on Azure ML by SDK v1: Azure Container Instances, or a Kubernetes cluster that is attached.

Microsoft calls deployment by SDK v1 to both deprecated; the score script's contract is that of today's endpoints too.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.azure.deploying import Order, WorkspaceServices, failed, tags_of, tell_log
from backends.azure.emulator import SERVICE_DOES_NOT_PROVE
from backends.azure.errors import explained, first_line, is_transient, retry, translate
from backends.azure.service_info import (
    BACKEND,
    ID_TAG,
    Detail,
    find,
    info_of,
)
from backends.azure.session import WorkspaceRef, open_workspace, sdk
from backends.azure.submit import exclusive_upload
from backends.azure.waiting import wait
from trainer.deploy.preparing import stage
from trainer.deploy.service import HEALTHY, TRANSITIONING, KeyName, ServiceInfo, Tell
from trainer.errors import UsageError

if TYPE_CHECKING:
    from backends.azure.options import AzureOptions
    from backends.azure.sdk import Webservice, Workspace
    from trainer.artifacts import ArtifactStore
    from trainer.home import Home

DEPRECATED = (
    "Microsoft calls deployment by SDK v1 to ACI and AKS deprecated: services that run go on, and new ones should be "
    "managed online endpoints: --backend azureml-v2. The same score script runs there."
)
_LOG_LINES = 1000


class AzureServices(WorkspaceServices["Workspace", "Webservice"]):
    """The services of a workspace; see :class:`backends.azure.deploying.WorkspaceServices`."""

    backend = BACKEND
    notice = DEPRECATED
    emulated = f"{SERVICE_DOES_NOT_PROVE} On Azure, Microsoft calls this way to deploy deprecated."

    def __init__(
        self, options: AzureOptions, home: Home, store: Callable[[], ArtifactStore], where: Callable[[], str]
    ) -> None:
        super().__init__(options, home, store, where)
        self._options = options

    def kind(self) -> str:
        """See :meth:`WorkspaceServices.kind`. It is the SDK's word."""
        if self._options.kind == "aks" and self._options.aks_cluster is None:
            raise UsageError("--kind aks needs the name of a cluster.", "Give the attached one: --aks-cluster NAME")
        if self._options.kind != "aks" and self._options.aks_cluster is not None:
            raise UsageError("--aks-cluster is for --kind aks.", "Leave it out, or give --kind aks.")
        return self._options.kind.upper()

    def details(self) -> dict[str, Any]:
        """See :meth:`WorkspaceServices.details`."""
        resources = f"{self._options.cpu_cores:g} cores, {self._options.memory_gb:g} GB"
        cluster = self._options.aks_cluster
        return {"resources": resources, **({} if cluster is None else {"AKS cluster": cluster})}

    def open(self, ref: WorkspaceRef) -> Workspace:
        """See :meth:`WorkspaceServices.open`."""
        return open_workspace(ref)

    def look_up(self, place: Workspace, name: str) -> Webservice | None:
        """See :meth:`WorkspaceServices.look_up`."""
        return find(place, name)

    def all_of(self, place: Workspace) -> list[Webservice]:
        """See :meth:`WorkspaceServices.all_of`."""
        webservice = sdk("azureml.core.webservice").Webservice
        with explained("list the services"):
            found: list[Webservice] = retry(lambda: webservice.list(place))
        return found

    def describe(self, found: Webservice, ref: WorkspaceRef, detail: Detail | None = None) -> ServiceInfo:
        """See :meth:`WorkspaceServices.describe`."""
        return info_of(found, ref, detail)

    def bring(
        self,
        place: Workspace,
        order: Order,
        before: Webservice | None,  # noqa: ARG002  # the SDK replaces it
        tell: Tell,
    ) -> Callable[[], Webservice]:
        """See :meth:`WorkspaceServices.bring`."""
        service = self._send(place, order)

        def healthy() -> Webservice:
            self._wait(service, order.name, tell)
            return service

        return healthy

    def remove(self, place: Workspace, name: str) -> None:
        """See :meth:`WorkspaceServices.remove`."""
        found = find(place, name)
        if found is not None:
            with explained(f"remove {name}"), exclusive_upload():
                retry(found.delete)

    def keys(self, service: ServiceInfo) -> tuple[str, ...]:
        """See :meth:`trainer.deploy.service.Services.keys`. Of a service with tokens, one that holds for some hours."""
        _, found = self.there(service)
        with explained(f"get the keys of {service.name}"):
            if found.token_auth_enabled:
                token: Any = retry(found.get_access_token)  # type: ignore[attr-defined]  # AKS alone
                return (str(token.access_token),)
            return tuple(retry(found.get_keys)) if found.auth_enabled else ()

    def renew_key(self, service: ServiceInfo, which: KeyName) -> None:
        """See :meth:`trainer.deploy.service.Services.renew_key`."""
        _, found = self.there(service)
        if found.token_auth_enabled or not found.auth_enabled:
            super().renew_key(service, which)
        with explained(f"renew a key of {service.name}"):
            found.regen_key(which.capitalize())

    def logs(self, service: ServiceInfo, lines: int) -> str:
        """See :meth:`trainer.deploy.service.Services.logs`."""
        _, found = self.there(service)
        with explained(f"get the log of {service.name}"):
            said = retry(lambda: found.get_logs(num_lines=max(lines, _LOG_LINES))) or ""
        return "".join(f"{line}\n" for line in said.splitlines()[-lines:])

    def _send(self, workspace: Workspace, order: Order) -> Webservice:
        """Ask for the service; returns when Azure ML has taken it."""
        deployment, image, version = order.deployment, order.image, order.version
        core, model = sdk("azureml.core"), sdk("azureml.core.model")
        environment = core.Environment.from_dockerfile(image.name, image.dockerfile)
        environment.python.user_managed_dependencies = True
        # What Azure adds to an image to run a server in it: nginx and its supervisor.
        environment.inferencing_stack_version = "latest"
        with tempfile.TemporaryDirectory(prefix="trainer-deploy-") as scratch:
            source = Path(scratch) / "source"
            stage(deployment, order.snapshot, source)
            with explained(f"deploy {order.name}"), exclusive_upload(), warnings.catch_warnings():
                # The SDK says so itself where something else imported it before its settings were made.
                warnings.filterwarnings("ignore", "azureml.core.model:", FutureWarning)
                config = model.InferenceConfig(
                    entry_script=order.entry, source_directory=str(source), environment=environment
                )
                registered = retry(lambda: core.Model(workspace, name=version.name, version=version.version))
                try:
                    found: Webservice = core.Model.deploy(
                        workspace,
                        order.name,
                        [registered],
                        config,
                        self._configuration(tags_of(order)),
                        overwrite=deployment.overwrite,
                    )
                except Exception as error:
                    taken = find(workspace, order.name) if is_transient(error) else None
                    if taken is None or (taken.tags or {}).get(ID_TAG) != order.detail.deployment:
                        raise
                    return taken
        return found

    def _configuration(self, tags: dict[str, str]) -> Any:  # noqa: ANN401  # the SDK's
        webservice = sdk("azureml.core.webservice")
        common = {
            "cpu_cores": self._options.cpu_cores,
            "memory_gb": self._options.memory_gb,
            "tags": tags,
            "auth_enabled": True,
        }
        if self._options.kind == "aks":
            return webservice.AksWebservice.deploy_configuration(
                **common, compute_target_name=self._options.aks_cluster
            )
        return webservice.AciWebservice.deploy_configuration(**common)

    def _wait(self, service: Webservice, name: str, tell: Tell) -> None:
        """Wait until the service is healthy.

        Raises:
            RunFailedError: It is not, and won't be.
            ServiceUnavailableError: Azure ML doesn't answer any more.
        """
        why = wait(service, tell)
        if why is None and service.state == HEALTHY:
            return
        if why is not None and is_transient(why) and service.state == TRANSITIONING:
            raise translate(why, f"wait for {name}, which goes on") from why
        try:
            lines = (service.get_logs(num_lines=_LOG_LINES) or "").splitlines()
        except Exception:  # it may have no container to ask
            lines = []
        tell_log(lines, tell)
        reason = first_line(why) if why is not None else f"it is {service.state}."
        what = "could not be updated, and goes on as it was" if service.state == HEALTHY else "did not become healthy"
        raise failed(name, what, reason)
