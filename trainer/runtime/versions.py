"""Which version of a distribution is installed."""

from __future__ import annotations


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, such as ``"2.4.6"``, or None if it is not installed."""
    # Here and not above: start-up modules import this one, and importlib.metadata brings the email package.
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
