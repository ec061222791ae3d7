"""Times as the service writes them."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> str:
    """Now, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat()


def from_epoch(seconds: float) -> str:
    """A POSIX time as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def to_epoch(text: str) -> float:
    """POSIX time of an ISO 8601 text; a time without a zone is taken as UTC."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
