"""HyperDrive sweeps."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from azureml_emulator.store.database import Database
from azureml_emulator.wire.hyperdrive import SweepRequest


class Sweep(BaseModel):
    """A sweep and how far it has come. ``deadline`` is POSIX time."""

    run_id: str
    experiment: str
    request: SweepRequest
    samples: list[dict[str, Any]]
    started: int = 0
    deadline: float | None = None
    cancel: bool = False
    stopped_early: list[str] = []
    log: list[str] = []


class SweepStore:
    """Sweeps."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def save(self, sweep: Sweep, *, active: bool) -> None:
        """Store a sweep."""
        self._db.execute(
            "INSERT OR REPLACE INTO sweeps VALUES (?, ?, ?)", sweep.run_id, int(active), sweep.model_dump_json()
        )

    def find(self, run_id: str) -> Sweep | None:
        """The sweep of a parent run, if there is one."""
        row = self._db.one("SELECT doc FROM sweeps WHERE run_id = ?", run_id)
        return Sweep.model_validate_json(row["doc"]) if row else None

    def active(self) -> list[Sweep]:
        """Sweeps that have not ended."""
        rows = self._db.all("SELECT doc FROM sweeps WHERE active = 1")
        return [Sweep.model_validate_json(row["doc"]) for row in rows]
