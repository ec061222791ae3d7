"""The nodes of a cluster, as far as a queue of jobs can see them."""

from __future__ import annotations

from dataclasses import dataclass, field

from azureml_emulator.store.compute import NodeStateCounts, ScaleSettings
from azureml_emulator.times import parse_duration

DEFAULT_IDLE_TIME = 1800.0


@dataclass
class NodePool:
    """Nodes of one cluster. Times are POSIX, durations in seconds.

    Attributes:
        busy: Nodes that run a job.
        idle: Since when each idle node has been idle.
        starting: When each starting node will be up.
    """

    busy: int = 0
    idle: list[float] = field(default_factory=list)
    starting: list[float] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Nodes that exist or are coming up."""
        return self.busy + len(self.idle) + len(self.starting)

    def settle(self, scale: ScaleSettings, start_duration: float, now: float) -> None:
        """Bring up nodes that are due, and scale down to the minimum those that have been idle for too long."""
        due = [moment for moment in self.starting if moment <= now]
        self.starting = [moment for moment in self.starting if moment > now]
        self.idle += due
        limit = parse_duration(scale.node_idle_time_before_scale_down, DEFAULT_IDLE_TIME)
        for since in sorted(self.idle):
            if self.size > scale.min_node_count and now - since >= limit:
                self.idle.remove(since)
        self.scale_to(scale.min_node_count, scale, start_duration, now)

    def scale_to(self, wanted: int, scale: ScaleSettings, start_duration: float, now: float) -> None:
        """Start nodes until there are ``wanted``, within the maximum."""
        missing = min(wanted, scale.max_node_count) - self.size
        if missing > 0 and start_duration == 0:
            self.idle += [now] * missing
        elif missing > 0:
            self.starting += [now + start_duration] * missing

    def take(self, nodes: int) -> bool:
        """Give idle nodes to a job; False if there are too few."""
        if len(self.idle) < nodes:
            return False
        self.idle = sorted(self.idle)[:-nodes] if nodes else self.idle
        self.busy += nodes
        return True

    def give_back(self, nodes: int, now: float) -> None:
        """Take back the nodes of a job that has ended."""
        self.busy -= nodes
        self.idle += [now] * nodes

    def lose(self, nodes: int) -> None:
        """Write off nodes that have been taken away from a job."""
        self.busy -= nodes

    def counts(self) -> NodeStateCounts:
        """Return the counts that the service reports."""
        return NodeStateCounts(
            idle_node_count=len(self.idle), preparing_node_count=len(self.starting), running_node_count=self.busy
        )
