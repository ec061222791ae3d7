"""The model registry."""

# A body is described by its module and its fields; pydantic copies mutable defaults.
# ruff: noqa: D101, RUF012

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from azureml_emulator.bodies import Body, UserInfo


class ArtifactPrefix(Body):
    prefix: str
    id: str | None = None


class AssetRequest(Body):
    name: str | None = None
    artifacts: list[ArtifactPrefix]
    runid: str | None = None


class Asset(AssetRequest):
    id: str
    created_time: str


class ModelRequest(Body):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,254}$")
    url: str
    mime_type: str = "application/json"
    unpack: bool = False
    run_id: str | None = None
    experiment_name: str | None = None
    description: str | None = None
    framework: str | None = None
    framework_version: str | None = None
    kv_tags: dict[str, str] | None = None
    properties: dict[str, str] | None = None
    datasets: list[Any] | None = None


class Model(ModelRequest):
    """A registered model version. ``datasets`` must be a list: the SDK iterates over it."""

    id: str
    version: int
    created_time: str
    modified_time: str
    created_by: UserInfo = UserInfo()
    kv_tags: dict[str, str] = {}
    properties: dict[str, str] = {}
    datasets: list[Any] = []
    derived_model_ids: list[str] = []
    parent_model_id: str | None = None


class PatchOperation(Body):
    """One operation of a JSON Patch (RFC 6902); only the ones the SDK sends are accepted."""

    op: Literal["add", "replace", "remove"]
    path: str
    value: Any = None
