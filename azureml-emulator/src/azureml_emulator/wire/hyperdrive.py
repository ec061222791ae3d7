"""HyperDrive sweeps. Keys are snake_case on the wire, but for ``platform_config``."""

# A body is described by its module and its fields; pydantic copies mutable defaults.
# ruff: noqa: D101

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from azureml_emulator.bodies import Body


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
