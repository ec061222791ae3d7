"""The model registry."""

# A body is described by its fields; pydantic copies mutable defaults.
# ruff: noqa: D101, RUF012

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from azureml_emulator.bodies import Body, UserInfo
from azureml_emulator.errors import ServiceError, not_found
from azureml_emulator.store.database import Database
from azureml_emulator.times import utc_now


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
    # What only SDK v2 knows.
    archived: bool = False
    model_type: str = "custom_model"
    flavors: dict[str, Any] = {}
    stage: str | None = None


class PatchOperation(Body):
    """One operation of a JSON Patch (RFC 6902); only the ones the SDK sends are accepted."""

    op: Literal["add", "replace", "remove"]
    path: str
    value: Any = None


class ModelStore:
    """Assets and model versions. Numbers rise by one and are not given out again after a deletion."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add_asset(self, request: AssetRequest) -> Asset:
        """Store an asset under a new id."""
        asset = Asset(**request.model_dump(), id=uuid.uuid4().hex, created_time=utc_now())
        self._db.execute("INSERT INTO assets VALUES (?, ?)", asset.id, asset.model_dump_json())
        return asset

    def asset(self, asset_id: str) -> Asset:
        """Return the asset.

        Raises:
            ServiceError: 404.
        """
        row = self._db.one("SELECT doc FROM assets WHERE id = ?", asset_id)
        if row is None:
            raise not_found("Asset", asset_id)
        return Asset.model_validate_json(row["doc"])

    def register(self, request: ModelRequest, version: int | None = None) -> Model:
        """Store a model as the next version of its name, or as one that its client has chosen and that is free."""
        with self._db.transaction():
            last = self.last_version(request.name)
            version = last + 1 if version is None else version
            self._db.execute("INSERT OR REPLACE INTO model_versions VALUES (?, ?)", request.name, max(last, version))
            now = utc_now()
            given = {key: value for key, value in request.model_dump().items() if value is not None}
            model = Model(**given, id=f"{request.name}:{version}", version=version, created_time=now, modified_time=now)
            self._db.execute(
                "INSERT INTO models (name, version, doc) VALUES (?, ?, ?)",
                model.name,
                version,
                model.model_dump_json(),
            )
            return model

    def get(self, model_id: str) -> Model:
        """Return the model version ``name:version``.

        Raises:
            ServiceError: 404.
        """
        name, version = _split(model_id)
        row = self._db.one("SELECT doc FROM models WHERE name = ? AND version = ?", name, version)
        if row is None:
            raise not_found("Model", model_id)
        return Model.model_validate_json(row["doc"])

    def find(self, name: str, version: int) -> Model | None:
        """Return a model version, if there is such a one."""
        row = self._db.one("SELECT doc FROM models WHERE name = ? AND version = ?", name, version)
        return Model.model_validate_json(row["doc"]) if row else None

    def last_version(self, name: str) -> int:
        """Return the highest number that a name's versions have had; 0 if it has had none."""
        row = self._db.one("SELECT last FROM model_versions WHERE name = ?", name)
        return int(row["last"]) if row else 0

    def archive(self, name: str, *, archived: bool) -> None:
        """Archive every version of a name, or restore it.

        Raises:
            ServiceError: 404.
        """
        with self._db.transaction():
            versions = [model for model in self.all() if model.name == name]
            if not versions:
                raise not_found("Model", name)
            for model in versions:
                self.update(model.id, lambda model: setattr(model, "archived", archived))

    def update(self, model_id: str, change: Callable[[Model], None]) -> Model:
        """Change a model version in place.

        Raises:
            ServiceError: 404.
        """
        with self._db.transaction():
            model = self.get(model_id)
            change(model)
            model.modified_time = utc_now()
            self._db.execute(
                "UPDATE models SET doc = ? WHERE name = ? AND version = ?",
                model.model_dump_json(),
                model.name,
                model.version,
            )
            return model

    def delete(self, model_id: str) -> None:
        """Remove a model version.

        Raises:
            ServiceError: 404.
        """
        with self._db.transaction():
            model = self.get(model_id)
            self._db.execute("DELETE FROM models WHERE name = ? AND version = ?", model.name, model.version)

    def all(self) -> list[Model]:
        """Return every model version, newest first."""
        rows = self._db.all("SELECT doc FROM models ORDER BY seq DESC")
        return [Model.model_validate_json(row["doc"]) for row in rows]


def _split(model_id: str) -> tuple[str, int]:
    name, colon, version = model_id.rpartition(":")
    if not (colon and version.isascii() and version.isdigit()):
        raise ServiceError(404, "ModelNotFound", f"Model {model_id} not found.")
    return name, int(version)
