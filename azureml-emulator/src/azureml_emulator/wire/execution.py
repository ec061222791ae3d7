"""Submitted jobs: the parts of a RunConfiguration that the emulator acts on."""

# A body is described by its module and its fields; pydantic copies mutable defaults.
# ruff: noqa: D101, RUF012

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from azureml_emulator.bodies import Body


class PythonSection(Body):
    interpreter_path: str = "python"


class EnvironmentSection(Body):
    name: str | None = None
    environment_variables: dict[str, str] | None = None
    python: PythonSection = PythonSection()


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
