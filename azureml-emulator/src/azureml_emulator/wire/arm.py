"""Sign-in, subscriptions, workspace, discovery, datastores."""

# A body is described by its module and its fields; pydantic copies mutable defaults.
# ruff: noqa: D101, RUF012

from __future__ import annotations

from typing import Any

from azureml_emulator.bodies import Body


class MsiToken(Body):
    """Answer of the managed-identity endpoint; its keys are snake_case on the wire."""

    model_config = {"alias_generator": None}

    access_token: str
    expires_on: str
    expires_in: str
    resource: str
    token_type: str = "Bearer"  # noqa: S105 - a type of token, not a token


class Subscription(Body):
    id: str
    subscription_id: str
    display_name: str
    tenant_id: str
    state: str = "Enabled"


class WorkspaceProperties(Body):
    workspace_id: str
    discovery_url: str
    friendly_name: str
    description: str = ""
    creation_time: str
    provisioning_state: str = "Succeeded"
    storage_account: str = ""
    key_vault: str = ""
    application_insights: str = ""
    hbi_workspace: bool = False


class Workspace(Body):
    id: str
    name: str
    location: str
    type: str = "Microsoft.MachineLearningServices/workspaces"
    tags: dict[str, str] = {}
    sku: dict[str, str] = {"name": "Basic", "tier": "Basic"}
    identity: dict[str, str] = {}
    properties: WorkspaceProperties


class Discovery(Body):
    """URLs of the regional services. The SDK requires the first six."""

    api: str
    experimentation: str
    history: str
    hyperdrive: str
    modelmanagement: str
    studio: str
    execution: str
    environment: str
    pipelines: str
    notebook: str
    mlflow: str


class Datastore(Body):
    name: str
    data_store_type: str
    azure_storage_section: dict[str, Any] | None = None
