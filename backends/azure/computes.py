"""The compute targets of a workspace through SDK v1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.azure.cluster import DEDICATED
from backends.azure.errors import explained, retry
from backends.azure.session import sdk
from trainer.errors import RefusedError

if TYPE_CHECKING:
    from backends.azure.options import ClusterOptions
    from backends.azure.sdk import Cluster, Workspace


class SdkComputes:
    """See :class:`backends.azure.cluster.Computes`.

    Args:
        workspace: Where they are.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def find(self, name: str) -> Cluster | None:
        """See :meth:`backends.azure.cluster.Computes.find`."""
        compute = sdk("azureml.core.compute")
        with explained(f"look up the compute {name}"):
            try:
                found = retry(lambda: compute.ComputeTarget(self._workspace, name))
            except Exception as error:
                if "ComputeTargetNotFound" in str(error):
                    return None
                raise
        if not isinstance(found, compute.AmlCompute):
            raise RefusedError(
                f"The compute {name} is a {type(found).__name__}, not an AmlCompute cluster.",
                "Choose another --compute.",
            )
        cluster: Cluster = found
        return cluster

    def sizes(self) -> list[tuple[str, int]]:
        """See :meth:`backends.azure.cluster.Computes.sizes`."""
        offered = sdk("azureml.core.compute").AmlCompute.supported_vmsizes(self._workspace)
        return [(size["name"], int(size["gpus"])) for size in offered]

    def create(self, options: ClusterOptions, size: str) -> Cluster:
        """See :meth:`backends.azure.cluster.Computes.create`."""
        compute = sdk("azureml.core.compute")
        wanted = compute.AmlCompute.provisioning_configuration(
            vm_size=size,
            vm_priority=options.vm_priority or DEDICATED,
            min_nodes=0,
            max_nodes=options.max_nodes,
            idle_seconds_before_scaledown=options.idle_minutes * 60,
            description="Made by trainer.",
        )
        cluster: Cluster = compute.ComputeTarget.create(self._workspace, options.compute, wanted)
        return cluster
