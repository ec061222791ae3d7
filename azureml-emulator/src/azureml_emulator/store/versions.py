"""Versions of assets that SDK v2 keeps in ARM: code and environments. They are stored as they came."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from azureml_emulator.errors import not_found
from azureml_emulator.store.database import Database
from azureml_emulator.times import utc_now


@dataclass(frozen=True)
class AssetVersion:
    """One version. ``properties`` is what came, in camelCase; ``detail`` is the emulator's own. Times are ISO 8601."""

    kind: str
    name: str
    version: str
    properties: dict[str, Any]
    detail: dict[str, Any]
    created: str


class VersionStore:
    """Versions by kind (``codes``, ``environments``) and name."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def save(
        self, kind: str, name: str, version: str, properties: dict[str, Any], detail: dict[str, Any] | None = None
    ) -> AssetVersion:
        """Store a version, or replace its properties."""
        with self._db.transaction():
            known = self.find(kind, name, version)
            created = known.created if known else utc_now()
            kept = detail or (known.detail if known else {})
            self._db.execute(
                "INSERT INTO asset_versions (kind, name, version, properties, detail, created)"
                " VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (kind, name, version) DO UPDATE SET properties = excluded.properties",
                kind,
                name,
                version,
                json.dumps(properties),
                json.dumps(kept),
                created,
            )
        return AssetVersion(kind, name, version, properties, kept, created)

    def find(self, kind: str, name: str, version: str) -> AssetVersion | None:
        """Return a version, if there is such a one."""
        row = self._db.one(
            "SELECT * FROM asset_versions WHERE kind = ? AND name = ? AND version = ?", kind, name, version
        )
        return _version(row) if row else None

    def get(self, kind: str, name: str, version: str) -> AssetVersion:
        """Return a version.

        Raises:
            ServiceError: 404.
        """
        found = self.find(kind, name, version)
        if found is None:
            raise not_found(kind.removesuffix("s").capitalize(), f"{name}:{version}")
        return found

    def of(self, kind: str, name: str) -> list[AssetVersion]:
        """Return the versions of a name, newest first."""
        rows = self._db.all("SELECT * FROM asset_versions WHERE kind = ? AND name = ? ORDER BY seq DESC", kind, name)
        return [_version(row) for row in rows]

    def all(self, kind: str) -> list[AssetVersion]:
        """Return every version of a kind, newest first."""
        rows = self._db.all("SELECT * FROM asset_versions WHERE kind = ? ORDER BY seq DESC", kind)
        return [_version(row) for row in rows]


def _version(row: sqlite3.Row) -> AssetVersion:
    return AssetVersion(
        row["kind"],
        row["name"],
        row["version"],
        json.loads(row["properties"]),
        json.loads(row["detail"]),
        row["created"],
    )
