"""ISO 8601 durations, as far as ARM uses them."""

from __future__ import annotations

import re

_PATTERN = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")


def parse_duration(text: str | None, default: float) -> float:
    """Seconds of a duration such as ``PT1800S``; ``default`` for None.

    Raises:
        ValueError: ``text`` is no such duration.
    """
    if text is None:
        return default
    match = _PATTERN.fullmatch(text)
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is not an ISO 8601 duration.")
    days, hours, minutes, seconds = (float(group or 0) for group in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
