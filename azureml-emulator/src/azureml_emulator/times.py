"""Times and durations as the service writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

# ISO 8601, as far as ARM uses it.
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")


def utc_now() -> str:
    """Return the time now, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat()


def from_epoch(seconds: float) -> str:
    """Return a POSIX time as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def to_epoch(text: str) -> float:
    """Return the POSIX time of an ISO 8601 text; a time without a zone is taken as UTC."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def parse_duration(text: str | None, default: float) -> float:
    """Return the seconds of a duration such as ``PT1800S``; ``default`` for None.

    Raises:
        ValueError: ``text`` is no such duration.
    """
    if text is None:
        return default
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is not an ISO 8601 duration.")
    days, hours, minutes, seconds = (float(group or 0) for group in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
