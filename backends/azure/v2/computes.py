"""Compute clusters: looked at by plain HTTPS, made by the SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from backends.azure.cluster import LOW_PRIORITY
from backends.azure.errors import explained, retry
from backends.azure.v2.connection import API_VERSION, COMPUTES_VERSION, AnswerError, segments
from trainer.errors import RefusedError

if TYPE_CHECKING:
    from backends.azure.options import ClusterOptions
    from backends.azure.v2.connection import Connection


class Scale(NamedTuple):
    """How many nodes a cluster may have; see :class:`backends.azure.sdk.ScaleSettings`."""

    maximum_node_count: int


class RestCluster:
    """See :class:`backends.azure.sdk.Cluster`.

    Args:
        connection: The workspace.
        name: Its name.
    """

    vm_size: str | None = None
    provisioning_state = ""
    provisioning_errors: Any = None
    scale_settings: Scale | None = None

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection, self.name = connection, name

    def refresh_state(self) -> None:
        """Ask how it is.

        Raises:
            AnswerError: With the status 404, if there is none.
            RefusedError: It is no cluster.
        """
        found = self._connection.arm("GET", segments("computes", self.name), version=COMPUTES_VERSION)
        properties = _mapping(found.get("properties"))
        kind = properties.get("computeType")
        if kind != "AmlCompute":
            raise RefusedError(
                f"The compute {self.name} is a {kind}, not an AmlCompute cluster.", "Choose another --compute."
            )
        self.provisioning_state = str(properties.get("provisioningState", ""))
        self.provisioning_errors = properties.get("provisioningErrors")
        details = _mapping(properties.get("properties"))
        size, priority = details.get("vmSize"), details.get("vmPriority")
        self.vm_size = size if isinstance(size, str) else None
        self.vm_priority = priority if isinstance(priority, str) else None
        most = _mapping(details.get("scaleSettings")).get("maxNodeCount")
        self.scale_settings = Scale(most) if isinstance(most, int) else None


class RestComputes:
    """See :class:`backends.azure.cluster.Computes`.

    Args:
        connection: The workspace.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, name: str) -> RestCluster | None:
        """See :meth:`backends.azure.cluster.Computes.find`."""
        cluster = RestCluster(self._connection, name)
        with explained(f"look up the compute {name}"):
            try:
                retry(cluster.refresh_state)
            except AnswerError as error:
                if error.status_code == 404:
                    return None
                raise
        return cluster

    def sizes(self) -> list[tuple[str, int]]:
        """See :meth:`backends.azure.cluster.Computes.sizes`."""
        ref = self._connection.ref
        found = self._connection.subscription(
            f"/providers/Microsoft.MachineLearningServices/locations/{self._connection.location}/vmSizes", API_VERSION
        )
        sizes = found.get("value") or found.get("amlCompute")
        if not isinstance(sizes, list):
            raise RefusedError(f"Azure ML lists no VM sizes for {ref.workspace_name}.", "Name one: --vm-size")
        return [(str(size["name"]), int(size.get("gpus") or 0)) for size in sizes]

    def create(self, options: ClusterOptions, size: str) -> RestCluster:
        """See :meth:`backends.azure.cluster.Computes.create`."""
        from backends.azure.v2.client import ml_client, quietly, sdk

        client = ml_client(self._connection)
        wanted = sdk("azure.ai.ml.entities").AmlCompute(
            name=options.compute,
            size=size,
            tier="low_priority" if options.vm_priority == LOW_PRIORITY else "dedicated",
            min_instances=0,
            max_instances=options.max_nodes,
            idle_time_before_scale_down=options.idle_minutes * 60,
            description="Made by trainer.",
        )
        with quietly():
            client.compute.begin_create_or_update(wanted)
        cluster = RestCluster(self._connection, options.compute)
        retry(cluster.refresh_state)
        return cluster


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
