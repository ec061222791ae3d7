"""Which versions of distributions are installed."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable

# https://packaging.python.org/en/latest/specifications/name-normalization/
_SEPARATORS = re.compile(r"[-_.]+")
_VERSION = re.compile(rb"^Version:[ \t]*(\S+)", re.MULTILINE | re.IGNORECASE)
_METADATA = {".dist-info": "METADATA", ".egg-info": "PKG-INFO"}


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, such as ``"2.4.6"``, or None if it is not installed."""
    return installed_versions([distribution]).get(distribution)


def installed_versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of those distributions that are installed, by the names that are given.

    What ``importlib.metadata`` says, which is asked only where it may know more: it takes longer to import, and to
    read one distribution's description, than this takes for all that a job records.
    """
    wanted = {name: normal for name in distributions if (normal := _SEPARATORS.sub("-", name).lower())}
    found = _looked_up(set(wanted.values()))
    if found is None:
        asked = ((name, _asked(name)) for name in wanted)
        return {name: version for name, version in asked if version is not None}
    return {name: found[normal] for name, normal in wanted.items() if normal in found}


def _looked_up(wanted: set[str]) -> dict[str, str] | None:
    """Return versions by normalized name; None where ``importlib.metadata`` must be asked."""
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_distributions")]
    if [getattr(finder, "__name__", "") for finder in finders] != ["PathFinder"]:
        return None
    found: dict[str, str] = {}
    for entry in sys.path:
        try:
            names = os.listdir(entry or ".")  # noqa: PTH208  # a Path would be imported for this
        except NotADirectoryError:  # an archive, most often
            return None
        except OSError:
            continue
        for name in names:
            if name.endswith(".egg"):
                return None
            stem, suffix = os.path.splitext(name)  # noqa: PTH122
            if suffix not in _METADATA:
                continue
            normal = _SEPARATORS.sub("-", stem.partition("-")[0]).lower()
            if normal in wanted and normal not in found:
                version = _read(f"{entry or '.'}/{name}/{_METADATA[suffix]}")
                if version is None:
                    return None
                found[normal] = version
        if len(found) == len(wanted):
            break
    return found


def _read(path: str) -> str | None:
    try:
        with open(path, "rb") as stream:  # noqa: PTH123
            head, _, _ = stream.read().replace(b"\r\n", b"\n").partition(b"\n\n")
    except OSError:
        return None
    found = _VERSION.search(head)
    return found[1].decode("ascii", "replace") if found else None


def _asked(distribution: str) -> str | None:
    # Here and not above: start-up modules import this one, and importlib.metadata brings the email package.
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
