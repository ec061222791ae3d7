"""The AmlCompute cluster that a job runs on: the one with the name, or a new one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from backends.azure import vm_sizes
from backends.azure.errors import explained, first_line, retry
from trainer.errors import RefusedError

if TYPE_CHECKING:
    from backends.azure.options import ClusterOptions
    from backends.azure.sdk import Cluster
    from backends.azure.vm_sizes import Choice

DEDICATED, LOW_PRIORITY = "dedicated", "lowpriority"
_KINDS = {DEDICATED: "dedicated", LOW_PRIORITY: "low-priority"}
_POLL_SECONDS = 2.0
# Without nodes to start (we ask for none), Azure makes a cluster within a minute or two.
_TIMEOUT_SECONDS = 15 * 60.0


class Computes(Protocol):
    """The compute targets of a workspace, through one of the SDKs."""

    def find(self, name: str) -> Cluster | None:
        """Look up a cluster; None if there is no compute of the name.

        Raises:
            RefusedError: There is one that is no cluster.
        """

    def sizes(self) -> Sequence[tuple[str, int]]:
        """Return the VM sizes that the workspace offers, each with its number of GPUs."""

    def create(self, options: ClusterOptions, size: str) -> Cluster:
        """Ask for the cluster of the options, without waiting for it."""


def check(computes: Computes, options: ClusterOptions, nodes: int = 1) -> None:
    """Check that the cluster could be reused or made; change nothing.

    Args:
        computes: Where it is.
        options: Its name, and what a new one is made of.
        nodes: How many a job needs.

    Raises:
        RefusedError: It could not: VM size, a wrong kind of compute, too few nodes.
    """
    found = computes.find(options.compute)
    if found is None:
        most = options.max_nodes
    else:
        most = nodes if found.scale_settings is None else found.scale_settings.maximum_node_count
    if nodes > most:
        which = f"The cluster {options.compute} has" if found is not None else "A new cluster has"
        raise RefusedError(
            f"{which} {most} node{'' if most == 1 else 's'} at most, and the job needs {nodes}.",
            f"Ask for fewer --nodes, or another cluster: --compute NAME --max-nodes {nodes}",
        )
    if found is None:
        _chosen(computes, options)
    else:
        _reused(found, options)


def get_or_create(
    computes: Computes, options: ClusterOptions, notify: Callable[[str], None], poll_seconds: float = _POLL_SECONDS
) -> Choice:
    """Reuse the cluster, or create it and wait until it can take jobs.

    Args:
        computes: Where it is.
        options: Its name, and what a new one is made of.
        notify: Called with a line at every step.
        poll_seconds: Between looks while it is being created.

    Returns:
        The VM size that it has, and why it isn't the default if a new one could not have that.

    Raises:
        RefusedError: It can't be used or made: VM size, quota, a wrong kind of compute.
    """
    found = computes.find(options.compute)
    if found is not None:
        choice = _reused(found, options)
        notify(f"Using the cluster {found.name}: {choice.size}.")
        _wait_until_ready(found, notify, poll_seconds)
        return choice
    choice = _chosen(computes, options)
    if choice.note:
        notify(choice.note)
    notify(f"Creating {options.compute}: {choice.size}, 0 to {options.max_nodes} nodes.")
    _wait_until_ready(_create(computes, options, choice.size.name), notify, poll_seconds)
    return replace(choice, low_priority=options.vm_priority == LOW_PRIORITY)


def _reused(cluster: Cluster, options: ClusterOptions) -> Choice:
    size = vm_sizes.look_up(cluster.vm_size or vm_sizes.DEFAULT_VM_SIZE)
    if options.vm_size is not None and options.vm_size.lower() != size.name.lower():
        raise RefusedError(
            f"The cluster {cluster.name} has the VM size {size.name}, not {options.vm_size}, and can't change it.",
            f"Leave out --vm-size, or have another made: --compute {cluster.name[:18]}-2 --vm-size {options.vm_size}",
        )
    priority = "".join(filter(str.isalpha, str(cluster.vm_priority or DEDICATED).lower()))
    if options.vm_priority not in (None, priority):
        raise RefusedError(
            f"The cluster {cluster.name} has {_KINDS.get(priority, priority)} nodes, which can't be changed.",
            f"Leave out --vm-priority, or have another made: --compute {cluster.name[:18]}-2 --vm-priority "
            f"{options.vm_priority}",
        )
    return vm_sizes.Choice(size, low_priority=priority == LOW_PRIORITY)


def _chosen(computes: Computes, options: ClusterOptions) -> Choice:
    with explained("list the VM sizes that this workspace offers"):
        offered = retry(computes.sizes)
    return vm_sizes.choose(options.vm_size, list(offered))


def _create(computes: Computes, options: ClusterOptions, size: str) -> Cluster:
    with explained(f"create the cluster {options.compute}"):
        try:
            # Not retried by us: the SDK does, and what it then meets is its own cluster.
            return computes.create(options, size)
        except Exception:
            # Another client may have been first, or the answer was lost on its way.
            existing = computes.find(options.compute)
            if existing is None:
                raise
            return existing


def _wait_until_ready(cluster: Cluster, notify: Callable[[str], None], poll_seconds: float) -> None:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    reported = ""
    while (state := str(cluster.provisioning_state).capitalize()) not in ("Succeeded", "Failed", "Canceled"):
        if state != reported:
            reported = state
            notify(f"The cluster {cluster.name} is {state.lower()} ...")
        if time.monotonic() > deadline:
            raise RefusedError(
                f"The cluster {cluster.name} is still {state.lower()} after {_TIMEOUT_SECONDS / 60:.0f} minutes.",
                "See it in the portal (Compute, Compute clusters), or choose another --compute.",
            )
        time.sleep(poll_seconds)
        with explained(f"look at the cluster {cluster.name}"):
            retry(cluster.refresh_state)
    if state != "Succeeded":
        reason = first_line(Exception(str(cluster.provisioning_errors or "Azure gives no reason")))
        raise RefusedError(
            f"The cluster {cluster.name} could not be made: {reason}",
            "Quota is counted by VM family and region, that of low-priority nodes in one number. "
            "Ask for more in the portal, or choose another --vm-size; "
            "then delete the failed cluster there.",
        )
