"""How often to look at a run: politely, and patiently when nobody answers."""

from __future__ import annotations

import time

_GROWTH = 1.25
_PATIENCE_SECONDS = 300.0


class Pace:
    """When to look at one run again.

    Whoever follows a run calls several times a second; the service is asked less often the longer nothing
    changes, and soon again when something has.

    Args:
        shortest: Seconds between two looks at first.
        longest: And in the end.
    """

    def __init__(self, shortest: float, longest: float) -> None:
        self._shortest, self._longest = shortest, longest
        self._interval = shortest
        self._next = 0.0
        self._answered: float | None = None

    def is_due(self) -> bool:
        """Whether it is time to look."""
        return time.monotonic() >= self._next

    def looked(self, *, changed: bool) -> None:
        """The service has answered.

        Args:
            changed: Whether with something new.
        """
        self._answered = time.monotonic()
        self._interval = self._shortest if changed else min(self._longest, self._interval * _GROWTH)
        self._next = self._answered + self._interval

    def may_ride_out(self) -> bool:
        """Whether to go on without an answer: it has answered within the last five minutes.

        The next look is put off either way.
        """
        self._interval = min(self._longest, self._interval * _GROWTH)
        self._next = time.monotonic() + self._interval
        return self._answered is not None and time.monotonic() - self._answered < _PATIENCE_SECONDS
