"""Jobs: the scheduler's side of runs that the emulator executes."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel

from azureml_emulator.errors import not_found
from azureml_emulator.store.database import Database


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
        """The job of a run, if the emulator executes that run."""
        row = self._db.one("SELECT doc FROM jobs WHERE run_id = ?", run_id)
        return Job.model_validate_json(row["doc"]) if row else None

    def active(self) -> list[Job]:
        """Jobs that have not ended, oldest first."""
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
