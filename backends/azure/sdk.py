"""What is used of the Azure ML SDK, as types. The SDK has none, and everything else of it stays unused.

See https://learn.microsoft.com/python/api/azureml-core for the meaning of each.
"""

# ruff: noqa: D102  # each method is described where the docstring points

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Protocol


class Auth(Protocol):
    """``azureml.core.authentication.AbstractAuthentication``."""

    def get_authentication_header(self) -> dict[str, str]: ...


class Workspace(Protocol):
    """``azureml.core.Workspace``."""

    name: str
    subscription_id: str
    resource_group: str
    location: str


class ScaleSettings(Protocol):
    """``azureml.core.compute.amlcompute.ScaleSettings``."""

    @property
    def maximum_node_count(self) -> int: ...


class Cluster(Protocol):
    """``azureml.core.compute.AmlCompute``."""

    name: str
    provisioning_state: str
    provisioning_errors: Any
    vm_size: str | None
    vm_priority: str | None

    @property
    def scale_settings(self) -> ScaleSettings | None: ...
    def refresh_state(self) -> None: ...


class Model(Protocol):
    """``azureml.core.Model``."""

    id: str
    name: str
    version: int
    run_id: str | None
    created_time: datetime
    tags: Mapping[str, str] | None
    properties: Mapping[str, str] | None
    unpack: bool | None

    def download(self, target_dir: str, exist_ok: bool) -> str: ...
    def delete(self) -> None: ...


class Webservice(Protocol):
    """``azureml.core.webservice.AciWebservice`` and ``AksWebservice``."""

    name: str
    compute_type: str
    state: str | None
    error: Any
    scoring_uri: str | None
    created_time: datetime
    updated_time: datetime | None
    tags: Mapping[str, str] | None
    auth_enabled: bool | None
    token_auth_enabled: bool | None

    def wait_for_deployment(self, show_output: bool) -> None: ...
    def update_deployment_state(self) -> None: ...
    def get_keys(self) -> tuple[str, str]: ...
    def regen_key(self, key: str) -> None: ...
    def get_logs(self, num_lines: int) -> str | None: ...
    def delete(self) -> None: ...


class FollowedRun(Protocol):
    """What of ``azureml.core.Run`` it takes to follow a run."""

    def get_details(self) -> dict[str, Any]: ...
    def get_status(self) -> str: ...
    def get_metrics(self) -> dict[str, Any]: ...
    def get_file_names(self) -> Iterable[str]: ...
    def download_file(self, name: str, output_file_path: str) -> None: ...
    def cancel(self) -> None: ...


class Run(FollowedRun, Protocol):
    """``azureml.core.Run``."""

    id: str

    def set_tags(self, tags: Mapping[str, str]) -> None: ...
    def register_model(
        self, model_name: str, model_path: str, tags: Mapping[str, str], properties: Mapping[str, str]
    ) -> Model: ...
