"""The time cap of a job on this machine: it counts the time of all attempts together, and not the time between them."""

from __future__ import annotations

import time
from contextlib import suppress

from trainer.records import RunInfo, RunStatus
from trainer.runfolder import RunFolder
from trainer.runtime.layout import METRICS_FILE, PROGRESS_FILE

SPENT = "spent_seconds"
"""In RunInfo.detail: how long the attempts before the present one took."""


class Cap:
    """A cap that is being used up.

    Args:
        folder: The run. Where an attempt's supervisor has died, the attempt lasted until it last wrote something.
        minute: Seconds in a minute of the cap.
    """

    def __init__(self, folder: RunFolder, minute: float) -> None:
        info, minutes = folder.info(), folder.job().max_minutes
        self._seconds = None if minutes is None else minutes * minute
        self._spent = _number(info.detail.get(SPENT)) + _lasted(folder, info)
        self._began: float | None = None

    @property
    def detail(self) -> dict[str, float]:
        """What of it is kept in the run's record."""
        return {} if self._seconds is None else {SPENT: round(self._spent, 3)}

    def begin(self) -> None:
        """Note that an attempt begins; the one before, if there was one, has ended at about this time."""
        now = time.monotonic()
        if self._began is not None:
            self._spent += now - self._began
        self._began = now

    def is_over(self) -> bool:
        """Return whether the attempts have taken all of it."""
        began = self._began
        return (
            self._seconds is not None
            and self._spent + (0.0 if began is None else time.monotonic() - began) > self._seconds
        )


def _lasted(folder: RunFolder, info: RunInfo) -> float:
    began = info.restarts[-1].time if info.restarts else info.started
    if info.status is not RunStatus.RUNNING or began is None:
        return 0.0
    last = began
    for path in (folder.log_path, folder.path / METRICS_FILE, folder.path / PROGRESS_FILE):
        with suppress(OSError):
            last = max(last, path.stat().st_mtime)
    return last - began


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and value >= 0 else 0.0
