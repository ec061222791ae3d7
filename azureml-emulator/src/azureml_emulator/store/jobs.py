"""Jobs: what is submitted, and the scheduler's side of a run that the emulator executes."""

# A body is described by its fields; pydantic copies mutable defaults.
# ruff: noqa: D101, RUF012

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from azureml_emulator.bodies import Body
from azureml_emulator.errors import not_found
from azureml_emulator.store.database import Database


class EnvironmentSection(Body):
    name: str | None = None
    environment_variables: dict[str, str] | None = None


class MpiSection(Body):
    process_count_per_node: int = Field(default=1, ge=1)
    node_count: int = Field(default=1, ge=1)


class HistorySection(Body):
    output_collection: bool = True
    directories_to_watch: list[str] = ["logs"]


class RunConfiguration(Body):
    """What to run. Everything else in it (conda section, image) is stored and given back, not acted on."""

    script: str | None = None
    command: str | list[str] | None = None
    arguments: list[Any] = []
    target: str
    framework: str = "Python"
    communicator: str | None = None
    max_run_duration_seconds: float | None = None
    node_count: int = Field(default=1, ge=1)
    environment: EnvironmentSection = EnvironmentSection()
    environment_variables: dict[str, str] | None = None
    mpi: MpiSection = MpiSection()
    history: HistorySection = HistorySection()


class SnapshotRunRequest(Body):
    """Body of ``snapshotrun``; its keys are PascalCase on the wire."""

    model_config = ConfigDict(alias_generator=None, extra="allow")

    Configuration: dict[str, Any]
    SnapshotId: str
    ParentRunId: str | None = None
    TargetDetails: dict[str, Any] | None = None
    TelemetryValues: dict[str, Any] | None = None


class SubmittedRun(Body):
    run_id: str


class JobState(StrEnum):
    """Where a job stands. A run's status is what clients see; this is what the scheduler does next."""

    PREPARING = "preparing"
    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"


class Job(BaseModel):
    """One job. Times are POSIX, durations in seconds.

    Attributes:
        run_id: The run it executes.
        compute: Name of its cluster.
        nodes: Nodes it takes.
        ready_at: Earliest time of its next phase.
        attempt: Counts executions; an evicted low-priority job has more than one.
        started_at: When the latest attempt was started.
        cancel: Whether a cancellation has been asked for.
        cancelled_at: When the supervisor was told to stop.
        evict: Whether its node is to be taken away.
        notice: How long before that its script is told.
        noticed_at: When it was told.
        resume_from: The run whose outputs are laid before it.
    """

    run_id: str
    snapshot_id: str
    compute: str
    nodes: int
    state: JobState = JobState.PREPARING
    ready_at: float = 0.0
    attempt: int = 0
    started_at: float = 0.0
    cancel: bool = False
    cancelled_at: float | None = None
    evict: bool = False
    notice: float = 0.0
    noticed_at: float | None = None
    resume_from: str | None = None


class JobStore:
    """Jobs in the order of their submission."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, job: Job) -> None:
        """Store a new job."""
        self._db.execute(
            "INSERT INTO jobs (run_id, state, doc) VALUES (?, ?, ?)", job.run_id, job.state, job.model_dump_json()
        )

    def find(self, run_id: str) -> Job | None:
        """Return the job of a run, if the emulator executes that run."""
        row = self._db.one("SELECT doc FROM jobs WHERE run_id = ?", run_id)
        return Job.model_validate_json(row["doc"]) if row else None

    def active(self) -> list[Job]:
        """Return the jobs that have not ended, oldest first."""
        rows = self._db.all("SELECT doc FROM jobs WHERE state != ? ORDER BY seq", JobState.ENDED)
        return [Job.model_validate_json(row["doc"]) for row in rows]

    def update(self, run_id: str, **changes: object) -> Job:
        """Change fields of a job.

        Raises:
            ServiceError: 404.
        """
        with self._db.transaction():
            job = self.find(run_id)
            if job is None:
                raise not_found("Job", run_id)
            job = job.model_copy(update=changes)
            self._db.execute(
                "UPDATE jobs SET state = ?, doc = ? WHERE run_id = ?", job.state, job.model_dump_json(), run_id
            )
            return job
