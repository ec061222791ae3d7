"""Experiments, runs and their events."""

# A body is described by its fields; pydantic copies mutable defaults.
# ruff: noqa: D101, RUF012

from __future__ import annotations

import uuid
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from azureml_emulator.bodies import Body, UserInfo
from azureml_emulator.errors import ServiceError, not_found
from azureml_emulator.store.database import Database
from azureml_emulator.times import utc_now


class RunStatus(StrEnum):
    """Azure's run statuses."""

    NOT_STARTED = "NotStarted"
    PREPARING = "Preparing"
    QUEUED = "Queued"
    STARTING = "Starting"
    RUNNING = "Running"
    CANCEL_REQUESTED = "CancelRequested"
    FINALIZING = "Finalizing"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELED = "Canceled"

    @property
    def is_final(self) -> bool:
        """Whether a run in this status will not change any more."""
        return self in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELED)


class Experiment(Body):
    experiment_id: str
    name: str
    description: str | None = None
    created_utc: str
    archived_time: str | None = None
    tags: dict[str, str] = {}


class ErrorDetail(Body):
    code: str | None = None
    message: str | None = None
    details_uri: str | None = None


class ErrorResponse(Body):
    error: ErrorDetail


class Warn(Body):
    source: str | None = None
    message: str


class RunTypeV2(Body):
    orchestrator: str
    traits: list[str] = []


class Run(Body):
    """RunDto. The SDK raises KeyError or loses features when one of the required fields is missing."""

    run_id: str
    run_number: int
    root_run_id: str
    parent_run_id: str | None = None
    experiment_id: str
    data_container_id: str
    status: RunStatus
    created_utc: str
    start_time_utc: str | None = None
    end_time_utc: str | None = None
    heartbeat_enabled: bool = False
    user_id: str = "emulator"
    name: str | None = None
    display_name: str | None = None
    description: str | None = None
    hidden: bool = False
    run_type: str | None = None
    run_type_v2: RunTypeV2 | None = None
    properties: dict[str, str] = {}
    tags: dict[str, str] = {}
    script_name: str | None = None
    target: str | None = None
    run_definition: dict[str, Any] | None = None
    created_by: UserInfo = UserInfo()
    cancel_uri: str | None = None
    diagnostics_uri: str | None = None
    error: ErrorResponse | None = None
    warnings: list[Warn] = []


class RunPatch(Body):
    """CreateRunDto: creates a run that its client drives itself, or changes an existing one. Mappings merge."""

    run_id: str | None = None
    parent_run_id: str | None = None
    status: RunStatus | None = None
    start_time_utc: str | None = None
    end_time_utc: str | None = None
    name: str | None = None
    display_name: str | None = None
    description: str | None = None
    hidden: bool | None = None
    run_type: str | None = None
    target: str | None = None
    script_name: str | None = None
    properties: dict[str, Any] | None = None
    tags: dict[str, Any] | None = None


class RunDetails(Body):
    run_id: str
    target: str | None
    status: RunStatus
    start_time_utc: str | None
    end_time_utc: str | None
    error: ErrorResponse | None
    warnings: list[Warn]
    properties: dict[str, str]
    run_definition: dict[str, Any] | None
    log_files: dict[str, str]
    """Name to readable URL. Must be an object, even when empty."""
    services: dict[str, Any] = {}
    input_datasets: list[Any] = []
    output_datasets: list[Any] = []
    submitted_by: str = "Emulator User"


class RunEvent(Body):
    timestamp: str | None = None
    name: str
    data: dict[str, Any] = {}


class RunQuery(Body):
    filter: str | None = None
    orderby: str | list[str] | None = None
    top: int | None = None
    continuation_token: str | None = None


class ExperimentQuery(Body):
    filter: str | None = None
    top: int | None = None
    continuation_token: str | None = None


class RunToken(Body):
    token: str
    expiry_time_utc: str


class RunStore:
    """Experiments and runs. Every change of a run goes through :meth:`update`, under a lock."""

    def __init__(self, database: Database) -> None:
        self._db = database

    # Experiments

    def ensure_experiment(self, name: str) -> Experiment:
        """Return the experiment of that name, created if it is new."""
        with self._db.transaction():
            found = self.find_experiment(name)
            if found is not None:
                return found
            made = Experiment(experiment_id=str(uuid.uuid4()), name=name, created_utc=utc_now())
            self._db.execute(
                "INSERT INTO experiments VALUES (?, ?, ?)", made.experiment_id, name, made.model_dump_json()
            )
            return made

    def find_experiment(self, name: str) -> Experiment | None:
        """Return the experiment of that name, if there is one."""
        row = self._db.one("SELECT doc FROM experiments WHERE name = ?", name)
        return Experiment.model_validate_json(row["doc"]) if row else None

    def experiment(self, name: str) -> Experiment:
        """Return the experiment of that name.

        Raises:
            ServiceError: 404.
        """
        found = self.find_experiment(name)
        if found is None:
            raise not_found("Experiment", name)
        return found

    def experiment_by_id(self, experiment_id: str) -> Experiment:
        """Return the experiment with that id.

        Raises:
            ServiceError: 404.
        """
        row = self._db.one("SELECT doc FROM experiments WHERE id = ?", experiment_id)
        if row is None:
            raise not_found("Experiment", experiment_id)
        return Experiment.model_validate_json(row["doc"])

    def experiments(self) -> list[Experiment]:
        """Return every experiment, by name."""
        rows = self._db.all("SELECT doc FROM experiments ORDER BY name")
        return [Experiment.model_validate_json(row["doc"]) for row in rows]

    # Runs

    def add(self, run: Run) -> Run:
        """Store a new run and give it its number.

        Raises:
            ServiceError: 409, a run with this id exists.
        """
        with self._db.transaction():
            if self.find(run.run_id) is not None:
                raise ServiceError(409, "RunAlreadyExists", f"Run {run.run_id} already exists.")
            cursor = self._db.execute(
                "INSERT INTO runs (run_id, experiment_id, parent_run_id, doc) VALUES (?, ?, ?, '')",
                run.run_id,
                run.experiment_id,
                run.parent_run_id,
            )
            numbered = run.model_copy(update={"run_number": cursor.lastrowid})
            self._save(numbered)
            return numbered

    def find(self, run_id: str) -> Run | None:
        """Return the run, if there is one."""
        row = self._db.one("SELECT doc FROM runs WHERE run_id = ?", run_id)
        return Run.model_validate_json(row["doc"]) if row else None

    def get(self, run_id: str) -> Run:
        """Return the run.

        Raises:
            ServiceError: 404.
        """
        run = self.find(run_id)
        if run is None:
            raise not_found("Run", run_id)
        return run

    def update(self, run_id: str, change: Callable[[Run], None]) -> Run:
        """Change a run in place.

        Raises:
            ServiceError: 404.
        """
        with self._db.transaction():
            run = self.get(run_id)
            change(run)
            self._save(run)
            return run

    def set_status(self, run_id: str, status: RunStatus) -> Run:
        """Move a run on, and stamp its start and end. A run that has ended stays as it is."""

        def change(run: Run) -> None:
            if run.status.is_final:
                return
            run.status = status
            if status is RunStatus.RUNNING and run.start_time_utc is None:
                run.start_time_utc = utc_now()
            if status.is_final:
                run.end_time_utc = utc_now()

        return self.update(run_id, change)

    def start(self, run_id: str) -> None:
        """Say that a run which has not run before is running."""
        if self.get(run_id).status in (RunStatus.PREPARING, RunStatus.QUEUED, RunStatus.STARTING):
            self.set_status(run_id, RunStatus.RUNNING)

    def set_error(self, run_id: str, code: str, message: str) -> None:
        """Record why a run failed, unless the script has already said so itself."""

        def change(run: Run) -> None:
            if run.error is None:
                run.error = ErrorResponse(error=ErrorDetail(code=code, message=message))

        self.update(run_id, change)

    def add_warning(self, run_id: str, source: str, message: str) -> None:
        """Append a warning to a run."""
        self.update(run_id, lambda run: run.warnings.append(Warn(source=source, message=message)))

    def of_experiment(self, experiment_id: str) -> list[Run]:
        """Return every run of an experiment, newest first."""
        rows = self._db.all("SELECT doc FROM runs WHERE experiment_id = ? ORDER BY number DESC", experiment_id)
        return [Run.model_validate_json(row["doc"]) for row in rows]

    def children(self, run_id: str) -> list[Run]:
        """Return the run's children, newest first."""
        rows = self._db.all("SELECT doc FROM runs WHERE parent_run_id = ? ORDER BY number DESC", run_id)
        return [Run.model_validate_json(row["doc"]) for row in rows]

    def submitted(self) -> list[Run]:
        """Return every run that is a job or a sweep and no part of another, newest first."""
        rows = self._db.all("SELECT doc FROM runs WHERE parent_run_id IS NULL ORDER BY number DESC")
        found = [Run.model_validate_json(row["doc"]) for row in rows]
        return [run for run in found if run.cancel_uri is not None]

    def child_statuses(self, run_id: str) -> dict[str, RunStatus]:
        """Return the status of each child of a run, oldest first, without reading the rest of them."""
        rows = self._db.all(
            "SELECT run_id, json_extract(doc, '$.status') AS status FROM runs WHERE parent_run_id = ? ORDER BY number",
            run_id,
        )
        return {row["run_id"]: RunStatus(row["status"]) for row in rows}

    def _save(self, run: Run) -> None:
        self._db.execute("UPDATE runs SET doc = ? WHERE run_id = ?", run.model_dump_json(), run.run_id)
