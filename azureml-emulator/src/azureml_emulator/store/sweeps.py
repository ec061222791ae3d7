"""HyperDrive sweeps. Keys on the wire are snake_case, but for ``platform_config``."""

# A body is described by its fields; pydantic copies mutable defaults.
# ruff: noqa: D101

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from azureml_emulator.bodies import Body
from azureml_emulator.store.database import Database

MAX_DURATION_MINUTES = 10_080
"""A sweep that asks for more is cancelled after so long: the SDK warns of that."""


class SnakeBody(BaseModel):
    model_config = ConfigDict(extra="allow")


class StrictBody(BaseModel):
    """A body whose fields are all acted on. Null is the same as nothing."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, document: object) -> object:
        if not isinstance(document, dict):
            return document
        return {name: value for name, value in document.items() if value is not None}


class GeneratorConfig(StrictBody):
    name: str
    parameter_space: dict[str, list[Any]]


class PolicyConfig(StrictBody):
    name: str = "Default"
    properties: dict[str, Any] = {}


class PrimaryMetric(StrictBody):
    name: str
    goal: Literal["maximize", "minimize"]


class RunScope(SnakeBody):
    subscription_id: str
    resource_group: str
    workspace_name: str
    experiment_name: str


class RunKey(SnakeBody):
    """Where a run is."""

    run_scope: RunScope
    run_id: str


class SweepDefinition(SnakeBody):
    Overrides: dict[str, Any]
    SnapshotId: str


class PlatformConfig(SnakeBody):
    ExperimentName: str
    Definition: SweepDefinition
    ParentRunId: str | None = None


class SweepRequest(StrictBody):
    name: str | None = None
    user: str | None = None
    generator_config: GeneratorConfig
    platform: str = "AML"
    platform_config: PlatformConfig
    policy_config: PolicyConfig = PolicyConfig()
    primary_metric_config: PrimaryMetric
    max_total_jobs: int = Field(ge=1, le=1000)
    max_concurrent_jobs: int = Field(ge=1, le=1000)
    max_duration_minutes: int = Field(default=MAX_DURATION_MINUTES, ge=1)
    resume_from: list[RunKey] = Field(default=[], max_length=5)
    resume_child_runs: list[RunKey] = []


class SweepAnswer(SnakeBody):
    code: int = 201
    result: dict[str, Any]


class Acknowledgement(Body):
    code: int = 200
    message: str = "ok"


class Best(BaseModel):
    """The best value of the primary metric so far, and the child that has it."""

    model_config = ConfigDict(ser_json_inf_nan="strings")

    run_id: str
    value: float


class Sweep(BaseModel):
    """A sweep and how far it has come.

    Attributes:
        run_id: The parent run.
        experiment: Name of its experiment.
        request: As submitted.
        seed: Of its samples.
        samples: Parameters of its children, of those that are resumed first; Bayesian ones are drawn one by one.
        started: How many children have been started.
        deadline: POSIX time of its end.
        cancel: Whether it is to end, with its children.
        failure: Why it can't go on.
        stopped_early: Children that its policy has stopped.
        judged: The last interval at which each child was judged.
        best: The best child.
        log: Lines of its log.
        trial: A child's ``properties``, if the sweep came from SDK v2: a command with places for the parameters.
    """

    run_id: str
    experiment: str
    request: SweepRequest
    seed: str = ""
    samples: list[dict[str, Any]]
    started: int = 0
    deadline: float | None = None
    cancel: bool = False
    failure: str | None = None
    stopped_early: list[str] = []
    judged: dict[str, int] = {}
    best: Best | None = None
    log: list[str] = []
    trial: dict[str, Any] | None = None

    @property
    def minutes(self) -> int:
        """After how many minutes it is cancelled. SDK v2 warns of no limit."""
        asked = self.request.max_duration_minutes
        return asked if self.trial is not None else min(asked, MAX_DURATION_MINUTES)


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

    def sample(self, child_id: str) -> dict[str, Any] | None:
        """Return the parameters of a child, if the run is a sweep's."""
        parent, _, number = child_id.rpartition("_")
        sweep = self.find(parent)
        if sweep is None or not number.isdecimal() or int(number) >= sweep.started:
            return None
        return sweep.samples[int(number)]

    def active(self) -> list[str]:
        """Return the parent runs of the sweeps that have not ended."""
        return [row["run_id"] for row in self._db.all("SELECT run_id FROM sweeps WHERE active = 1")]
