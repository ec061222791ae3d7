"""Experiments, runs and their events."""

# A body is described by its module and its fields; pydantic copies mutable defaults.
# ruff: noqa: D101, RUF012

from __future__ import annotations

from enum import StrEnum
from typing import Any

from azureml_emulator.bodies import Body, UserInfo


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
