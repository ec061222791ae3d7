"""AmlCompute clusters, their VM sizes, and the operations that make and unmake them."""

# A body is described by its fields; pydantic copies mutable defaults.
# ruff: noqa: D101

from __future__ import annotations

import uuid
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from azureml_emulator.bodies import Body
from azureml_emulator.errors import not_found
from azureml_emulator.store.database import Database


class VmSize(BaseModel):
    """One VM size; all five keys are required by the SDK."""

    model_config = ConfigDict(frozen=True)

    name: str
    vCPUs: int  # noqa: N815 - the wire's name
    gpus: int
    memoryGB: float  # noqa: N815
    maxResourceVolumeMB: int  # noqa: N815


class VmSizes(Body):
    """The same list under the names that the two SDKs know it by."""

    aml_compute: list[VmSize]
    value: list[VmSize]


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


class ComputeNode(Body):
    """A node. It has no address of its own: all nodes are this machine."""

    node_id: str
    port: int
    public_ip_address: str | None = None
    private_ip_address: str = "127.0.0.1"
    node_state: str
    run_id: str | None = None


class NodeList(Body):
    """ARM's answer; a ``nextLink``, even null, would be taken for another page."""

    nodes: list[ComputeNode]


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


class Cluster(BaseModel):
    """A cluster as it was asked for. Times are POSIX; what its nodes do is in the scheduler."""

    name: str
    spec: AmlComputeSpec
    location: str
    description: str | None = None
    tags: dict[str, str] | None = None
    created: float
    modified: float
    ready_at: float
    failure: ErrorBody | None = None


class PendingOperation(BaseModel):
    """An ARM operation that is over at ``done_at``."""

    done_at: float
    failure: ErrorBody | None = None


class ComputeStore:
    """Clusters and operations."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def find(self, name: str) -> Cluster | None:
        """Return the cluster of that name, if there is one."""
        row = self._db.one("SELECT doc FROM computes WHERE name = ?", name)
        return Cluster.model_validate_json(row["doc"]) if row else None

    def get(self, name: str) -> Cluster:
        """Return the cluster.

        Raises:
            ServiceError: 404.
        """
        found = self.find(name)
        if found is None:
            raise not_found("Compute", name)
        return found

    def list(self) -> list[Cluster]:
        """Return every cluster, by name."""
        rows = self._db.all("SELECT doc FROM computes ORDER BY name")
        return [Cluster.model_validate_json(row["doc"]) for row in rows]

    def save(self, cluster: Cluster) -> None:
        """Store a cluster."""
        self._db.execute("INSERT OR REPLACE INTO computes VALUES (?, ?)", cluster.name, cluster.model_dump_json())

    def delete(self, name: str) -> None:
        """Remove a cluster."""
        self._db.execute("DELETE FROM computes WHERE name = ?", name)

    def start_operation(self, operation: PendingOperation) -> str:
        """Store an operation.

        Returns:
            Its id.
        """
        operation_id = str(uuid.uuid4())
        self._db.execute("INSERT INTO operations VALUES (?, ?)", operation_id, operation.model_dump_json())
        return operation_id

    def operation(self, operation_id: str, now: float) -> Operation:
        """Return the state of an operation.

        Raises:
            ServiceError: 404.
        """
        row = self._db.one("SELECT doc FROM operations WHERE id = ?", operation_id)
        if row is None:
            raise not_found("Operation", operation_id)
        pending = PendingOperation.model_validate_json(row["doc"])
        if now < pending.done_at:
            return Operation(status="InProgress")
        if pending.failure:
            return Operation(status="Failed", error=pending.failure)
        return Operation(status="Succeeded")


# A sample of Azure's list: today's common sizes, and those that samples name. The figures are those of Azure's own size
# tables. Nothing is scaled to them: a job gets the machine that the emulator runs on.


def _size(name: str, cpus: int, gpus: int, memory: float, disk_mib: int) -> VmSize:
    return VmSize(name=f"Standard_{name}", vCPUs=cpus, gpus=gpus, memoryGB=memory, maxResourceVolumeMB=disk_mib)


CURRENT = (
    _size("D1_v2", 1, 0, 3.5, 51200),
    _size("D2_v2", 2, 0, 7.0, 102400),
    _size("D3_v2", 4, 0, 14.0, 204800),
    _size("D4_v2", 8, 0, 28.0, 409600),
    _size("D11_v2", 2, 0, 14.0, 102400),
    _size("D12_v2", 4, 0, 28.0, 204800),
    _size("D13_v2", 8, 0, 56.0, 409600),
    _size("D14_v2", 16, 0, 112.0, 819200),
    _size("DS1_v2", 1, 0, 3.5, 7168),
    _size("DS2_v2", 2, 0, 7.0, 14336),
    _size("DS3_v2", 4, 0, 14.0, 28672),
    _size("DS4_v2", 8, 0, 28.0, 57344),
    _size("DS5_v2", 16, 0, 56.0, 114688),
    _size("DS11_v2", 2, 0, 14.0, 28672),
    _size("DS12_v2", 4, 0, 28.0, 57344),
    _size("DS13_v2", 8, 0, 56.0, 114688),
    _size("DS14_v2", 16, 0, 112.0, 229376),
    _size("F2s_v2", 2, 0, 4.0, 16384),
    _size("F4s_v2", 4, 0, 8.0, 32768),
    _size("F8s_v2", 8, 0, 16.0, 65536),
    _size("F16s_v2", 16, 0, 32.0, 131072),
    _size("E4s_v3", 4, 0, 32.0, 65536),
    _size("E8s_v3", 8, 0, 64.0, 131072),
    _size("NC4as_T4_v3", 4, 1, 28.0, 180224),
    _size("NC8as_T4_v3", 8, 1, 56.0, 360448),
    _size("NC16as_T4_v3", 16, 1, 110.0, 360448),
    _size("NC64as_T4_v3", 64, 4, 440.0, 2883584),
    _size("NC24ads_A100_v4", 24, 1, 220.0, 65536),
    _size("NC48ads_A100_v4", 48, 2, 440.0, 131072),
    _size("NC96ads_A100_v4", 96, 4, 880.0, 262144),
    _size("NC40ads_H100_v5", 40, 1, 320.0, 131072),
)

RETIRED = (
    _size("NC6", 6, 1, 56.0, 389120),
    _size("NC12", 12, 2, 112.0, 696320),
    _size("NC24", 24, 4, 224.0, 1474560),
    _size("NC6s_v2", 6, 1, 112.0, 753664),
    _size("NC6s_v3", 6, 1, 112.0, 753664),
    _size("NC12s_v3", 12, 2, 224.0, 1509376),
    _size("NC24s_v3", 24, 4, 448.0, 3018752),
    _size("NV6", 6, 1, 56.0, 389120),
)
"""Those that Azure has taken away (in 2023 and later), and that older samples ask for."""


def offered_sizes(*, retired: bool, without: list[str]) -> list[VmSize]:
    """Return the sizes on offer: today's, the retired ones if asked for, less ``without`` (any case)."""
    left_out = {name.lower() for name in without}
    return [size for size in CURRENT + (RETIRED if retired else ()) if size.name.lower() not in left_out]


def is_retired(name: str) -> bool:
    """Tell whether a size is one that Azure has taken away."""
    return name.lower() in {size.name.lower() for size in RETIRED}
