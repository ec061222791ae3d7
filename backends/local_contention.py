"""Threads of a job that keep one another from a core: BLAS's, most often, which wait for work by spinning.

OpenBLAS starts a thread per core unless it is told otherwise. On a machine that has other work, each of a product's
threads waits for the others that are waiting for a core, and small products become ten or twenty times slower. Linux
counts for each thread how long it ran and how long it waited for a core (Documentation/scheduler/sched-stats.rst).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from trainer.runtime.layout import BLAS_VARIABLES, THREADS_VARIABLE

LOOK_SECONDS = 20.0
ADVICE = (
    "{count} threads of the script were never idle and waited for a core longer than they ran, because this machine "
    "has other work. If they are BLAS's, which takes a thread per core unless told otherwise, the script is several "
    "times faster with OPENBLAS_NUM_THREADS=1."
)
_PROC = Path("/proc")
# Of the time between two looks, what a thread must have been on a core or waiting for one.
_NEVER_IDLE = 0.9

Times = Mapping[str, tuple[float, float]]
"""By thread, the seconds that it ran and that it waited for a core."""


def thread_times(pid: int) -> dict[str, tuple[float, float]]:
    """Return how long each thread of a process has run and waited; empty where the system does not say."""
    found = {}
    with suppress(OSError):
        for task in (_PROC / str(pid) / "task").iterdir():
            with suppress(OSError, ValueError):
                ran, waited, *_ = (int(word) / 1e9 for word in (task / "schedstat").read_text().split())
                found[task.name] = (ran, waited)
    return found


def contending(before: Times, after: Times, seconds: float) -> int:
    """Return how many threads were never idle between two looks and waited longer than they ran.

    Args:
        before: At the first look.
        after: At the second.
        seconds: Between them.
    """
    count = 0
    for thread, (ran, waited) in after.items():
        if thread in before:
            on, off = ran - before[thread][0], waited - before[thread][1]
            count += on + off > _NEVER_IDLE * seconds and off > on > 0
    return count


class Watch:
    """Looks now and then at the threads of a job.

    Args:
        environment: The job's: where it says how many threads BLAS has, nothing is looked at.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._done = any(environment.get(name) for name in (THREADS_VARIABLE, *BLAS_VARIABLES))
        self._before: Times = {}
        self._at = time.monotonic()

    def advice(self, pid: int) -> str:
        """Return what the user should know, once; else an empty text."""
        now = time.monotonic()
        if self._done or now - self._at < LOOK_SECONDS:
            return ""
        after = thread_times(pid)
        count = contending(self._before, after, now - self._at)
        self._before, self._at = after, now
        if count < 2:
            return ""
        self._done = True
        return ADVICE.format(count=count)
