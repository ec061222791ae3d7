"""What is recorded of a script that reports nothing itself: under which names, and how much of it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from trainer.runtime import reporting
from trainer.runtime.faults import RuntimeFault

NAMES = {
    "main/loss": "Loss",
    "main/accuracy": "Training accuracy",
    "validation/main/loss": "Validation loss",
    "validation/main/accuracy": "Accuracy",
}
"""Metric of the run by Chainer's key: the names that the bundled script uses. Other keys are names as they are."""

# What LogReport adds to each entry: a step, not measurements.
NOT_METRICS = ("epoch", "iteration", "elapsed_time")
_WHOLE = 1000


class Thinned:
    """Record values of each name at a bounded rate that depends on nothing but their number.

    The first 1,000 values of a name are recorded, of the next 1,000 every second, of the next 2,000 every fourth, and
    so on: about 500 more each time their number doubles. The last one is always recorded, by :meth:`close`.

    Args:
        report: Takes the values.
    """

    def __init__(self, report: reporting.Report) -> None:
        self._report = report
        self._counts: dict[str, int] = {}
        self._held: dict[str, tuple[object, float | None, int | None]] = {}

    def log(self, name: str, value: object, step: float | None, iteration: int | None = None) -> None:
        """Record a value, or hold it back."""
        count = self._counts[name] = self._counts.get(name, 0) + 1
        if count % (1 << max(0, ((count - 1) // _WHOLE).bit_length())):
            self._held[name] = (value, step, iteration)
            return
        self._held.pop(name, None)
        self._report.log(name, value, step, iteration)

    def close(self) -> None:
        """Record the last value of each name, if it was held back."""
        for name, (value, step, iteration) in self._held.items():
            self._report.log(name, value, step, iteration)
        self._held.clear()


def guarded(function: Callable[..., None]) -> Callable[..., None]:
    """Return a method that gives up for good, with one warning, where it would raise.

    No training should end because what it measures can't be recorded.
    """

    @functools.wraps(function)
    def call(self: Any, *arguments: Any, **named: Any) -> None:  # noqa: ANN401
        if getattr(self, "gave_up", False):
            return
        try:
            function(self, *arguments, **named)
        except Exception as error:
            self.gave_up = True
            reason = error.message if isinstance(error, RuntimeFault) else f"{type(error).__name__}: {error}"
            sys.stderr.write(f"warning: metrics are no longer recorded: {reason}\n")

    return call
