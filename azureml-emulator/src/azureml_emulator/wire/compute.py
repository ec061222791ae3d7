"""AmlCompute clusters."""

# A body is described by its module and its fields; pydantic copies mutable defaults.
# ruff: noqa: D101

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from azureml_emulator.bodies import Body


class VmSize(BaseModel):
    """One VM size; all five keys are required by the SDK."""

    model_config = ConfigDict(frozen=True)

    name: str
    vCPUs: int  # noqa: N815 - the wire's name
    gpus: int
    memoryGB: float  # noqa: N815
    maxResourceVolumeMB: int  # noqa: N815


class VmSizes(Body):
    aml_compute: list[VmSize]


class ScaleSettings(Body):
    min_node_count: int = Field(default=0, ge=0)
    max_node_count: int = Field(default=1, ge=0)
    node_idle_time_before_scale_down: str | None = None
    """ISO 8601 duration, such as PT1800S."""


class AmlComputeSpec(Body):
    vm_size: str
    vm_priority: str = "Dedicated"
    scale_settings: ScaleSettings = ScaleSettings()


class ComputeSpecProperties(Body):
    compute_type: Literal["AmlCompute"]
    properties: AmlComputeSpec
    description: str | None = None


class ComputeRequest(Body):
    """PUT: create a cluster."""

    location: str | None = None
    tags: dict[str, str] | None = None
    properties: ComputeSpecProperties


class ComputePatchInner(Body):
    scale_settings: ScaleSettings | None = None


class ComputePatchProperties(Body):
    properties: ComputePatchInner = ComputePatchInner()


class ComputePatch(Body):
    """PATCH: change a cluster's scale settings."""

    properties: ComputePatchProperties = ComputePatchProperties()


class NodeStateCounts(Body):
    idle_node_count: int = 0
    leaving_node_count: int = 0
    preempted_node_count: int = 0
    preparing_node_count: int = 0
    running_node_count: int = 0
    unusable_node_count: int = 0


class ErrorBody(Body):
    code: str
    message: str
    status_code: int | None = None


class AmlComputeState(AmlComputeSpec):
    subnet: Any = None
    allocation_state: str = "Steady"
    allocation_state_transition_time: str
    current_node_count: int = 0
    target_node_count: int = 0
    node_state_counts: NodeStateCounts = NodeStateCounts()
    errors: list[dict[str, Any]] | None = None


class ComputeProperties(Body):
    compute_type: str = "AmlCompute"
    compute_location: str
    provisioning_state: str
    provisioning_errors: list[dict[str, Any]] | None = None
    created_on: str
    modified_on: str
    description: str | None = None
    resource_id: str | None = None
    is_attached_compute: bool = False
    properties: AmlComputeState


class Compute(Body):
    id: str
    name: str
    type: str = "Microsoft.MachineLearningServices/workspaces/computes"
    location: str
    tags: dict[str, str] | None = None
    properties: ComputeProperties


class Operation(Body):
    """State of a long-running ARM operation."""

    status: Literal["InProgress", "Succeeded", "Failed"]
    error: ErrorBody | None = None
