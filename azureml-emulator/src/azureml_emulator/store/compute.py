"""Clusters and the operations that make and unmake them."""

from __future__ import annotations

import uuid

from pydantic import BaseModel

from azureml_emulator.errors import not_found
from azureml_emulator.store.database import Database
from azureml_emulator.wire.compute import AmlComputeSpec, ErrorBody, Operation


class Cluster(BaseModel):
    """A cluster as it was asked for. Times are POSIX; what its nodes do is in the scheduler."""

    name: str
    spec: AmlComputeSpec
    location: str
    description: str | None = None
    tags: dict[str, str] | None = None
    created: float
    modified: float
    ready_at: float
    failure: ErrorBody | None = None


class PendingOperation(BaseModel):
    """An ARM operation that is over at ``done_at``."""

    done_at: float
    failure: ErrorBody | None = None


class ComputeStore:
    """Clusters and operations."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def find(self, name: str) -> Cluster | None:
        """The cluster of that name, if there is one."""
        row = self._db.one("SELECT doc FROM computes WHERE name = ?", name)
        return Cluster.model_validate_json(row["doc"]) if row else None

    def get(self, name: str) -> Cluster:
        """The cluster.

        Raises:
            ServiceError: 404.
        """
        found = self.find(name)
        if found is None:
            raise not_found("Compute", name)
        return found

    def list(self) -> list[Cluster]:
        """Every cluster, by name."""
        rows = self._db.all("SELECT doc FROM computes ORDER BY name")
        return [Cluster.model_validate_json(row["doc"]) for row in rows]

    def save(self, cluster: Cluster) -> None:
        """Store a cluster."""
        self._db.execute("INSERT OR REPLACE INTO computes VALUES (?, ?)", cluster.name, cluster.model_dump_json())

    def delete(self, name: str) -> None:
        """Remove a cluster."""
        self._db.execute("DELETE FROM computes WHERE name = ?", name)

    def start_operation(self, operation: PendingOperation) -> str:
        """Store an operation.

        Returns:
            Its id.
        """
        operation_id = str(uuid.uuid4())
        self._db.execute("INSERT INTO operations VALUES (?, ?)", operation_id, operation.model_dump_json())
        return operation_id

    def operation(self, operation_id: str, now: float) -> Operation:
        """The state of an operation.

        Raises:
            ServiceError: 404.
        """
        row = self._db.one("SELECT doc FROM operations WHERE id = ?", operation_id)
        if row is None:
            raise not_found("Operation", operation_id)
        pending = PendingOperation.model_validate_json(row["doc"])
        if now < pending.done_at:
            return Operation(status="InProgress")
        if pending.failure:
            return Operation(status="Failed", error=pending.failure)
        return Operation(status="Succeeded")
