"""Registered environments. They are stored and given back; no image is built from them."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from azureml_emulator.errors import not_found
from azureml_emulator.store.database import Database


class EnvironmentStore:
    """Definitions by name and version."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def register(self, name: str, version: str | None, definition: dict[str, Any]) -> dict[str, Any]:
        """Store a definition.

        Args:
            name: The environment's name.
            version: Its version. None: the latest one's if that is the same, else the next number.
            definition: All but the name and the version, in camelCase.

        Returns:
            The definition, with its name and version.
        """
        content = json.dumps(definition, sort_keys=True)
        with self._db.transaction():
            rows = self._db.all("SELECT version, doc FROM environments WHERE name = ? ORDER BY seq", name)
            if version is None and rows and rows[-1]["doc"] == content:
                version = rows[-1]["version"]
            if version is None:
                numbers = [int(row["version"]) for row in rows if row["version"].isdecimal()]
                version = str(max(numbers, default=0) + 1)
            self._db.execute("DELETE FROM environments WHERE name = ? AND version = ?", name, version)
            self._db.execute("INSERT INTO environments (name, version, doc) VALUES (?, ?, ?)", name, version, content)
        return definition | {"name": name, "version": version}

    def get(self, name: str, version: str | None = None) -> dict[str, Any]:
        """Return a definition; without a version, the one that was registered last.

        Raises:
            ServiceError: 404.
        """
        row = self._db.one(
            "SELECT name, version, doc FROM environments WHERE name = ? AND (? IS NULL OR version = ?)"
            " ORDER BY seq DESC",
            name,
            version,
            version,
        )
        if row is None:
            raise not_found("Environment", name if version is None else f"{name}:{version}")
        return _definition(row)

    def by_label(self, name: str, label: str) -> dict[str, Any]:
        """Return the definition that has a label; ``latest`` is a label of its own.

        Raises:
            ServiceError: 404.
        """
        if label == "latest":
            return self.get(name)
        row = self._db.one("SELECT version FROM environment_labels WHERE name = ? AND label = ?", name, label)
        if row is None:
            raise not_found("Environment", f"{name} with the label {label}")
        return self.get(name, row["version"])

    def set_labels(self, name: str, version: str, labels: list[str]) -> None:
        """Move labels to a version.

        Raises:
            ServiceError: 404.
        """
        self.get(name, version)
        with self._db.transaction():
            for label in labels:
                self._db.execute("INSERT OR REPLACE INTO environment_labels VALUES (?, ?, ?)", name, label, version)

    def latest(self) -> list[dict[str, Any]]:
        """Return the definition of each name that was registered last, by name."""
        rows = self._db.all(
            "SELECT name, version, doc FROM environments WHERE seq IN (SELECT MAX(seq) FROM environments GROUP BY name)"
            " ORDER BY name"
        )
        return [_definition(row) for row in rows]


def _definition(row: sqlite3.Row) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(row["doc"])
    return found | {"name": row["name"], "version": row["version"]}
