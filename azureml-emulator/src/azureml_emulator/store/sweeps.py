"""HyperDrive sweeps. Keys on the wire are snake_case, but for ``platform_config``."""

# A body is described by its fields; pydantic copies mutable defaults.
# ruff: noqa: D101

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from azureml_emulator.bodies import Body
from azureml_emulator.store.database import Database


class SnakeBody(BaseModel):
    model_config = ConfigDict(extra="allow")


class GeneratorConfig(SnakeBody):
    name: str
    parameter_space: dict[str, list[Any]]
    properties: dict[str, Any] | None = None


class PolicyConfig(SnakeBody):
    name: str = "Default"
    properties: dict[str, Any] = {}


class PrimaryMetric(SnakeBody):
    name: str
    goal: Literal["maximize", "minimize"]


class SweepDefinition(SnakeBody):
    Overrides: dict[str, Any]
    SnapshotId: str


class PlatformConfig(SnakeBody):
    ExperimentName: str
    Definition: SweepDefinition
    ParentRunId: str | None = None


class SweepRequest(SnakeBody):
    generator_config: GeneratorConfig
    platform: str = "AML"
    platform_config: PlatformConfig
    policy_config: PolicyConfig = PolicyConfig()
    primary_metric_config: PrimaryMetric
    max_total_jobs: int = Field(ge=1)
    max_concurrent_jobs: int = Field(ge=1)
    max_duration_minutes: int | None = Field(default=None, ge=1)


class SweepAnswer(SnakeBody):
    code: int = 201
    result: dict[str, Any]


class Acknowledgement(Body):
    code: int = 200
    message: str = "ok"


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
        """Return the sweep of a parent run, if there is one."""
        row = self._db.one("SELECT doc FROM sweeps WHERE run_id = ?", run_id)
        return Sweep.model_validate_json(row["doc"]) if row else None

    def active(self) -> list[Sweep]:
        """Return the sweeps that have not ended."""
        rows = self._db.all("SELECT doc FROM sweeps WHERE active = 1")
        return [Sweep.model_validate_json(row["doc"]) for row in rows]
