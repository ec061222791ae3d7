"""Fault switches: what a test can make go wrong, while the emulator runs."""

from __future__ import annotations

import fnmatch
import random
import threading
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class FaultAction(StrEnum):
    """What a rule does to a request it hits."""

    STATUS = "status"
    """Answer an error status without processing the request."""
    DROP = "drop"
    """Close the connection without processing the request."""
    DROP_ANSWER = "drop_answer"
    """Process the request, then close the connection without answering."""
    DELAY = "delay"
    """Wait, then process the request."""


class FaultRule(BaseModel):
    """One fault on some routes.

    Attributes:
        route: Shell-style pattern matched against ``METHOD /path``, such as ``POST */snapshotrun``.
        action: What to do.
        status: HTTP status of ``STATUS``.
        retry_after: Value of the Retry-After header of ``STATUS``, in seconds.
        delay: Seconds that ``DELAY`` waits.
        rate: Probability that a matching request is hit.
        times: How often the rule fires before it is spent. None: for ever.
    """

    model_config = ConfigDict(extra="forbid")

    route: str = "*"
    action: FaultAction = FaultAction.STATUS
    status: int = Field(default=500, ge=400, le=599)
    retry_after: int | None = Field(default=None, ge=0)
    delay: float = Field(default=1.0, ge=0)
    rate: float = Field(default=1.0, ge=0, le=1)
    times: int | None = Field(default=None, ge=0)


class Faults(BaseModel):
    """All switches. The default is a service without faults.

    Attributes:
        latency: Seconds added to every request of the service.
        rules: Faults by route; the first that fires wins.
        expired_sas: Signed blob URLs that are handed out have already expired.
        expired_tokens: Bearer tokens that are handed out have already expired, those of jobs included.
        late_logs: Seconds after a run's end before its user log can be seen. 0: logs stream while the run is active.
        refused_quota: New clusters fail to provision for want of cores.
        sizes_not_offered: VM sizes taken off the list that the workspace offers.
        slow_services: Seconds by which web services start late.
        crashing_services: Web services crash at their start, as if ``init()`` had failed.
        unhealthy_services: Seconds after which the deployment of a web service times out, never having become healthy.
            0: it becomes healthy.
        evicted_runs_fail: A run that is evicted from a low-priority cluster fails, instead of being queued again.
        seed: Seed of the random choices that ``rate`` asks for.
    """

    model_config = ConfigDict(extra="forbid")

    latency: float = Field(default=0.0, ge=0)
    rules: list[FaultRule] = Field(default_factory=list)
    expired_sas: bool = False
    expired_tokens: bool = False
    late_logs: float = Field(default=0.0, ge=0)
    refused_quota: bool = False
    sizes_not_offered: list[str] = Field(default_factory=list)
    slow_services: float = Field(default=0.0, ge=0)
    crashing_services: bool = False
    unhealthy_services: float = Field(default=0.0, ge=0)
    evicted_runs_fail: bool = False
    seed: int = 0


class FaultSwitchboard:
    """The switches' current positions; safe to use from any thread."""

    def __init__(self, faults: Faults | None = None) -> None:
        self._lock = threading.Lock()
        self.set(faults or Faults())

    def set(self, faults: Faults) -> None:
        """Put every switch into position, and start the random choices anew."""
        with self._lock:
            self._faults = faults.model_copy(deep=True)
            self._random = random.Random(faults.seed)  # noqa: S311 - repeatable, not secret

    @property
    def current(self) -> Faults:
        """A copy of the positions; ``times`` shows what is left of each rule."""
        with self._lock:
            return self._faults.model_copy(deep=True)

    def next_rule(self, method: str, path: str) -> FaultRule | None:
        """Return the rule that fires for this request, if one does, and count it."""
        subject = f"{method} {path}"
        with self._lock:
            for rule in self._faults.rules:
                if rule.times == 0 or not fnmatch.fnmatchcase(subject, rule.route):
                    continue
                if rule.rate < 1.0 and self._random.random() >= rule.rate:
                    continue
                if rule.times is not None:
                    rule.times -= 1
                return rule.model_copy()
        return None
