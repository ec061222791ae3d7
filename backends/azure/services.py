"""Services on Azure ML by SDK v1: Azure Container Instances, or a Kubernetes cluster that is attached.

Microsoft calls deployment by SDK v1 to both deprecated; the score script's contract is that of today's endpoints too.

A deployment has an id, kept in its record and in the service's tags, so that a client whose request was never answered
can tell whether the service that is there is its own.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from backends.azure.emulator import SERVICE_DOES_NOT_PROVE
from backends.azure.errors import explained, first_line, is_transient, retry, translate
from backends.azure.scoring_image import scoring_environment
from backends.azure.service_info import (
    BACKEND,
    ID_TAG,
    MODEL_TAG,
    SCRIPT_TAG,
    Detail,
    detail_of,
    find,
    info_of,
    model_of,
)
from backends.azure.session import WorkspaceRef, find_workspace, open_workspace, sdk
from backends.azure.submit import exclusive_upload
from backends.azure.waiting import wait
from trainer.artifacts import ModelVersion
from trainer.deploy import records
from trainer.deploy.preparing import resolved, source_of, stage
from trainer.deploy.service import (
    FAILED,
    HEALTHY,
    TRANSITIONING,
    Deployment,
    ServiceInfo,
    ServicePlan,
    Services,
    Tell,
    service_name,
)
from trainer.errors import NotFoundError, RefusedError, RunFailedError, TrainerError, UsageError
from trainer.modelfile import is_path
from trainer.trees import remove_tree

if TYPE_CHECKING:
    from backends.azure.image import Environment
    from backends.azure.options import AzureOptions
    from backends.azure.sdk import Webservice, Workspace
    from trainer.artifacts import ArtifactStore
    from trainer.home import Home
    from trainer.snapshot import Snapshot

DEPRECATED = (
    "Microsoft calls deployment by SDK v1 to ACI and AKS deprecated: services that run go on, and new ones should be "
    "managed online endpoints of SDK v2. The same score script runs there."
)
# A deployment whose client was killed before the answer may still arrive.
_IN_FLIGHT_SECONDS = 60.0
_TAIL = 30
_LOG_LINES = 1000


class AzureServices(Services):
    """The services of a workspace.

    Args:
        options: What the user has set.
        home: Where records are kept, and an emulator's state.
        store: Gives the workspace's model registry.
        where: Says which workspace the options mean, without asking it.
    """

    def __init__(
        self, options: AzureOptions, home: Home, store: Callable[[], ArtifactStore], where: Callable[[], str]
    ) -> None:
        self._options = options
        self._home = home
        self._store = store
        self._where = where

    def plan(self, deployment: Deployment) -> ServicePlan:
        """See :meth:`trainer.deploy.service.Services.plan`."""
        kind = self._kind()
        snapshot, entry = source_of(deployment)
        image = scoring_environment(deployment, snapshot)
        given = None if deployment.model == "latest" else service_name(deployment.model.partition(":")[0])
        details = {
            "workspace": self._where(),
            "kind": f"{kind}, {self._options.cpu_cores:g} cores, {self._options.memory_gb:g} GB",
            **({"AKS cluster": self._options.aks_cluster} if kind == "AKS" else {}),
            "travels": f"{len(snapshot.files)} files, {snapshot.size:,} bytes; entry script {entry}",
            "image": image.image,
            "environment": image.name,
            "python": image.pins.python,
            "pins": " ".join(image.pins.requirements()),
        }
        return ServicePlan(
            backend=BACKEND,
            name=deployment.name or given or "the name of the latest model",
            model=deployment.model,
            script=_script_name(deployment) or "ours: pixels or pictures in, class and probabilities out",
            details=details,
            warnings=(DEPRECATED, *snapshot.notes, *_notes(image)),
        )

    def deploy(self, deployment: Deployment, tell: Tell) -> ServiceInfo:
        """See :meth:`trainer.deploy.service.Services.deploy`."""
        kind = self._kind()
        if is_path(deployment.model):
            raise UsageError(f"{deployment.model} is a file.", "Register it; see: trainer models --backend azureml")
        ref = find_workspace(self._options, self._home)
        tell(SERVICE_DOES_NOT_PROVE if ref.is_emulated else DEPRECATED)
        workspace = open_workspace(ref)
        deployment, version = resolved(deployment, self._store())
        name = str(deployment.name)
        before = find(workspace, name)
        if before is not None and not deployment.overwrite:
            raise RefusedError(
                f"There is a service {name} already in {ref.workspace_name}: {model_of(before) or 'model not known'}, "
                f"{before.state}.",
                "Replace it: --overwrite    Or give this one another name: --name NAME",
            )
        snapshot, entry = source_of(deployment)
        image = scoring_environment(deployment, snapshot)
        for text in _notes(image):
            tell(text)
        if before is not None:
            tell(f"Replacing {name}, which answers with {model_of(before) or 'a model that is not known'}.")
        detail = Detail(workspace=ref, deployment=uuid.uuid4().hex, sent=time.time())
        record = self._record(deployment, version, kind, detail, before)
        folder = self._folder(name, ref)
        records.write(folder, record)
        tell(f"Sending {len(snapshot.files)} files, {snapshot.size / 1e6:.1f} MB, to {ref.workspace_name}.")
        try:
            service = self._send(workspace, deployment, version, snapshot, entry, image, detail)
        except BaseException as error:
            # Interrupted, or never answered: it may have arrived all the same, and the record finds it.
            if isinstance(error, TrainerError) and before is None and not is_transient(error):
                remove_tree(folder)
            raise
        tell(f"Waiting for {name} on {kind}; on Azure this takes minutes, most of them for a new image.")
        self._wait(service, name, tell)
        info = info_of(service, ref, detail)
        records.write(folder, info)
        return info

    def every(self) -> list[ServiceInfo]:
        """See :meth:`trainer.deploy.service.Services.every`."""
        ref = find_workspace(self._options, self._home)
        workspace = open_workspace(ref)
        webservice = sdk("azureml.core.webservice").Webservice
        with explained("list the services"):
            found: list[Webservice] = retry(lambda: webservice.list(workspace))
        return sorted((info_of(service, ref) for service in found), key=lambda service: service.name)

    def get(self, name: str) -> ServiceInfo:
        """See :meth:`trainer.deploy.service.Services.get`."""
        ref = find_workspace(self._options, self._home)
        service = find(open_workspace(ref), name)
        if service is None:
            raise NotFoundError(
                f"There is no service {name!r} in the workspace {ref.workspace_name}.",
                f"See: trainer services --backend azureml{' --emulator' if ref.is_emulated else ''}",
            )
        return info_of(service, ref)

    def refresh(self, service: ServiceInfo) -> ServiceInfo:
        """See :meth:`trainer.deploy.service.Services.refresh`. The record is brought up to date."""
        detail = detail_of(service)
        found = find(open_workspace(detail.workspace), service.name)
        if found is not None:
            now = info_of(found, detail.workspace, detail)
        elif abs(time.time() - detail.sent) < _IN_FLIGHT_SECONDS and service.state == TRANSITIONING:
            return service
        else:
            error = f"The workspace {detail.workspace.workspace_name} has no such service."
            now = msgspec.structs.replace(service, state=FAILED, url=None, error=error)
        folder = self._folder(service.name, detail.workspace)
        if now != service and records.read(folder) is not None:
            records.write(folder, now)
        return now

    def keys(self, service: ServiceInfo) -> tuple[str, ...]:
        """See :meth:`trainer.deploy.service.Services.keys`. Of a service with tokens, one that holds for some hours."""
        found = self._there(service)
        with explained(f"get the keys of {service.name}"):
            if found.token_auth_enabled:
                token: Any = retry(found.get_access_token)  # type: ignore[attr-defined]  # AKS alone
                return (str(token.access_token),)
            return tuple(retry(found.get_keys)) if found.auth_enabled else ()

    def logs(self, service: ServiceInfo, lines: int) -> str:
        """See :meth:`trainer.deploy.service.Services.logs`."""
        found = self._there(service)
        with explained(f"get the log of {service.name}"):
            said = retry(lambda: found.get_logs(num_lines=max(lines, _LOG_LINES))) or ""
        return "".join(f"{line}\n" for line in said.splitlines()[-lines:])

    def delete(self, service: ServiceInfo, tell: Tell) -> bool:
        """See :meth:`trainer.deploy.service.Services.delete`."""
        ref = detail_of(service).workspace
        found = find(open_workspace(ref), service.name)
        if found is not None:
            tell(f"Removing {service.name} from {ref.workspace_name}.")
            with explained(f"remove {service.name}"), exclusive_upload():
                retry(found.delete)
        remove_tree(self._folder(service.name, ref))
        return found is not None

    def _kind(self) -> str:
        """The SDK's word for what the service runs on.

        Raises:
            UsageError: The options don't fit together.
        """
        if self._options.kind == "aks" and self._options.aks_cluster is None:
            raise UsageError("--kind aks needs the name of a cluster.", "Give the attached one: --aks-cluster NAME")
        if self._options.kind != "aks" and self._options.aks_cluster is not None:
            raise UsageError("--aks-cluster is for --kind aks.", "Leave it out, or give --kind aks.")
        return self._options.kind.upper()

    def _folder(self, name: str, ref: WorkspaceRef) -> Path:
        # One name may be in several workspaces, and in an emulator's.
        digest = hashlib.sha256(msgspec.json.encode(ref)).hexdigest()[:8]
        return self._home.services / BACKEND / f"{name}.{digest}"

    def _record(
        self, deployment: Deployment, version: ModelVersion, kind: str, detail: Detail, before: Webservice | None
    ) -> ServiceInfo:
        return ServiceInfo(
            name=str(deployment.name),
            backend=BACKEND,
            kind=kind,
            state=TRANSITIONING,
            model=version.reference,
            script=_script_name(deployment),
            created=detail.sent if before is None else before.created_time.timestamp(),
            updated=detail.sent,
            detail=msgspec.to_builtins(detail),
        )

    def _send(
        self,
        workspace: Workspace,
        deployment: Deployment,
        version: ModelVersion,
        snapshot: Snapshot,
        entry: str,
        image: Environment,
        detail: Detail,
    ) -> Webservice:
        """Ask for the service; returns when Azure ML has taken it."""
        name = str(deployment.name)
        core, model = sdk("azureml.core"), sdk("azureml.core.model")
        environment = core.Environment.from_dockerfile(image.name, image.dockerfile)
        environment.python.user_managed_dependencies = True
        # What Azure adds to an image to run a server in it: nginx and its supervisor.
        environment.inferencing_stack_version = "latest"
        tags = {MODEL_TAG: version.reference, ID_TAG: detail.deployment}
        if deployment.script is not None:
            tags[SCRIPT_TAG] = deployment.script.name
        with tempfile.TemporaryDirectory(prefix="trainer-deploy-") as scratch:
            source = Path(scratch) / "source"
            stage(deployment, snapshot, source)
            with explained(f"deploy {name}"), exclusive_upload(), warnings.catch_warnings():
                # The SDK says so itself where something else imported it before its settings were made.
                warnings.filterwarnings("ignore", "azureml.core.model:", FutureWarning)
                config = model.InferenceConfig(
                    entry_script=entry, source_directory=str(source), environment=environment
                )
                registered = retry(lambda: core.Model(workspace, name=version.name, version=version.version))
                try:
                    found: Webservice = core.Model.deploy(
                        workspace,
                        name,
                        [registered],
                        config,
                        self._configuration(tags),
                        overwrite=deployment.overwrite,
                    )
                except Exception as error:
                    taken = find(workspace, name) if is_transient(error) else None
                    if taken is None or (taken.tags or {}).get(ID_TAG) != detail.deployment:
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
            lines = (service.get_logs(num_lines=_LOG_LINES) or "").splitlines()[-_TAIL:]
        except Exception:  # it may have no container to ask
            lines = []
        if lines:
            tell("\n".join(["The container's log ends with:", *(f"  {line}" for line in lines)]))
        reason = first_line(why) if why is not None else f"it is {service.state}."
        what = "could not be updated, and goes on as it was" if service.state == HEALTHY else "did not become healthy"
        raise RunFailedError(
            f"The service {name} {what}: {reason}",
            f"Its log: trainer services {name} --log 100    Deploy again: --overwrite    "
            f"Remove it: trainer undeploy {name}",
        )

    def _there(self, service: ServiceInfo) -> Webservice:
        ref = detail_of(service).workspace
        found = find(open_workspace(ref), service.name)
        if found is None:
            raise NotFoundError(
                f"There is no service {service.name!r} in the workspace {ref.workspace_name} any more.",
                f"To forget it: trainer undeploy {service.name}",
            )
        return found


def _script_name(deployment: Deployment) -> str | None:
    return None if deployment.script is None else deployment.script.name


def _notes(image: Environment) -> list[str]:
    left = [f"{name} is imported here but is not in the image: {why}." for name, why in image.pins.left_out.items()]
    if image.pins.replaced:
        left.append(f"Azure's inference server wants {', '.join(image.pins.replaced)}.")
    return left
