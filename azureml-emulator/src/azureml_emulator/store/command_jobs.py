"""The jobs of SDK v2, as they were submitted: the document beside a run."""

from __future__ import annotations

import json
from typing import Any

from azureml_emulator.store.database import Database


class CommandJobStore:
    """Documents by the name of the job, which is its run's id. They are ARM's ``properties``, in camelCase."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, name: str, document: dict[str, Any]) -> None:
        """Store a new one."""
        self._db.execute("INSERT INTO command_jobs VALUES (?, ?)", name, json.dumps(document))

    def find(self, name: str) -> dict[str, Any] | None:
        """Return a job's document, if the job came from SDK v2."""
        row = self._db.one("SELECT doc FROM command_jobs WHERE name = ?", name)
        found: dict[str, Any] | None = json.loads(row["doc"]) if row else None
        return found
