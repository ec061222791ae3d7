"""What the workspace says of a service, in this project's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from backends.azure.errors import explained, retry
from backends.azure.session import WorkspaceRef, sdk
from trainer.deploy.service import ServiceInfo
from trainer.errors import ConfigError

if TYPE_CHECKING:
    from backends.azure.sdk import Webservice, Workspace

BACKEND = "azureml"
MODEL_TAG, ID_TAG = "trainer.model", "trainer.deployment"
SCRIPT_TAG, NETWORK_TAG = "trainer.script", "trainer.network"


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    """What the record keeps.

    Attributes:
        workspace: Where the service is.
        deployment: The last deployment's id; empty for a service that was not deployed from here.
        sent: When it was asked for, in seconds since the epoch.
    """

    workspace: WorkspaceRef
    deployment: str = ""
    sent: float = 0.0


def find(workspace: Workspace, name: str) -> Webservice | None:
    """Look up a service; None if the workspace has none of that name."""
    webservice = sdk("azureml.core.webservice").Webservice
    with explained(f"look up the service {name}"):
        try:
            found: Webservice = retry(lambda: webservice(workspace, name))
        except Exception as error:
            if "WebserviceNotFound" in str(error):
                return None
            raise
    return found


def info_of(service: Webservice, ref: WorkspaceRef, detail: Detail | None = None) -> ServiceInfo:
    """Return what is known of a service.

    Args:
        service: As the SDK has it.
        ref: The workspace.
        detail: What its record keeps, or None where it has none.
    """
    created = service.created_time.timestamp()
    tags = service.tags or {}
    return ServiceInfo(
        name=service.name,
        backend=BACKEND,
        kind=str(service.compute_type),
        state=str(service.state),
        model=model_of(service),
        script=tags.get(SCRIPT_TAG),
        network=tags.get(NETWORK_TAG),
        url=service.scoring_uri or None,
        created=created,
        updated=created if service.updated_time is None else service.updated_time.timestamp(),
        error=_error(service.error),
        detail=msgspec.to_builtins(Detail(workspace=ref) if detail is None else detail),
    )


def model_of(service: Webservice) -> str:
    """``name:version`` of its model or models; empty if not known."""
    models = getattr(service, "models", None) or ()
    known = ", ".join(f"{model.name}:{model.version}" for model in models)
    return known or (service.tags or {}).get(MODEL_TAG, "")


def _error(error: object) -> str:
    """What is wrong with a service, in one line."""
    if isinstance(error, dict):
        return " ".join(str(error.get("message") or error.get("code") or error).split())[:300]
    return " ".join(str(error).split())[:300] if error else ""


def detail_of(service: ServiceInfo) -> Detail:
    """Return what a record keeps.

    Raises:
        ConfigError: It is damaged.
    """
    try:
        return msgspec.convert(service.detail, Detail)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"The record of the service {service.name} is damaged: {error}.",
            f"Name its backend: --backend {service.backend}",
        ) from error
