"""What a user may set for the Azure ML backends."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from trainer.errors import UsageError
from trainer.options import Options, option

# Azure's rule for the name of a compute target.
_COMPUTE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,22}[A-Za-z0-9]")


class ClusterOptions(Options, frozen=True, kw_only=True):
    """What the Azure ML backends have in common.

    Attributes:
        compute: Name of the AmlCompute cluster.
        vm_size: Its VM size where it has to be created; None lets us choose.
        max_nodes: The most nodes that a new cluster may grow to.
        vm_priority: What a new cluster is made of; None for dedicated nodes. One that exists must be of that kind.
        idle_minutes: A new cluster gives a node back after it was idle this long. The SDK's default is 30.
        checkpoint_seconds: Seconds between two uploads of a job's checkpoint, at least.
        workspace_config: A workspace's ``config.json``, or a directory to look for one from, as the SDK does.
        emulator: Use the loopback emulator of this project, and start it if it doesn't run.

    Raises:
        UsageError: One is unusable.
    """

    compute: Annotated[str, option("The compute cluster.", metavar="NAME", kept_with="compute")] = "gpu-cluster"
    vm_size: Annotated[
        str | None,
        option("The VM size of its nodes.", metavar="SIZE", default_text="STANDARD_NC6, or its successor"),
    ] = None
    max_nodes: Annotated[int, option("The most nodes that it may have.", ge=1, le=100_000)] = 4
    vm_priority: Annotated[
        Literal["dedicated", "lowpriority"] | None,
        option(
            "What new nodes are: dedicated, or lowpriority for cheap ones that Azure may take away.",
            metavar="KIND",
            default_text="dedicated",
            kept_with="compute",
        ),
    ] = None
    idle_minutes: Annotated[int, option("Minutes until an idle node is given back.", ge=1, le=100_000)] = 5
    checkpoint_seconds: Annotated[
        int, option("Seconds between two uploads of a job's checkpoint, at least.", ge=1, le=86_400)
    ] = 60
    workspace_config: Annotated[Path | None, option("The workspace's config.json.", for_registry=True)] = None
    emulator: Annotated[
        bool,
        option("Use the loopback service, starting it if need be.", for_registry=True, excludes="workspace_config"),
    ] = False

    def __post_init__(self) -> None:
        if self.emulator and self.workspace_config is not None:
            raise UsageError("--emulator and --workspace-config exclude each other.", "Leave one of them out.")
        if not _COMPUTE_NAME.fullmatch(self.compute):
            raise UsageError(
                f"{self.compute[:40]!r} can't name a compute cluster.",
                "Use 2 to 24 letters, digits and hyphens for --compute, beginning with a letter.",
            )
        if self.vm_size is not None and not re.fullmatch(r"[A-Za-z0-9_-]{3,64}", self.vm_size):
            raise UsageError(f"{self.vm_size[:40]!r} is not a VM size.", "Write it as --vm-size Standard_NC4as_T4_v3.")


class ManagedOptions(ClusterOptions, frozen=True, kw_only=True):
    """The options of the backend of SDK v2.

    Attributes:
        instance_type: VM size of a deployed service.
        instances: Number of its VMs.
    """

    instance_type: Annotated[str, option("The VM size of a deployed service.", metavar="SIZE", for_services=True)] = (
        "Standard_DS3_v2"
    )
    instances: Annotated[int, option("Number of VMs of a deployed service.", ge=1, le=100, for_services=True)] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"[A-Za-z0-9_-]{3,64}", self.instance_type):
            raise UsageError(
                f"{self.instance_type[:40]!r} is not a VM size.", "Write it as --instance-type Standard_DS3_v2."
            )


class AzureOptions(ClusterOptions, frozen=True, kw_only=True):
    """The options of the backend of SDK v1.

    Attributes:
        kind: What a deployed service runs on: Azure Container Instances or a Kubernetes cluster.
        aks_cluster: Name of the cluster, as it is attached to the workspace.
        cpu_cores: Of a service.
        memory_gb: Of a service.
    """

    kind: Annotated[
        Literal["aci", "aks"], option("What a deployed service runs on.", metavar="aci/aks", for_services=True)
    ] = "aci"
    aks_cluster: Annotated[
        str | None, option("The attached AKS cluster of --kind aks.", metavar="NAME", for_services=True)
    ] = None
    cpu_cores: Annotated[float, option("Processor cores of a service.", gt=0, le=64, for_services=True)] = 1.0
    memory_gb: Annotated[float, option("Memory of a service, in GB.", gt=0, le=512, for_services=True)] = 1.0
