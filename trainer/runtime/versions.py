"""Which version of a distribution is installed."""

from __future__ import annotations

import os
import re
import sys

# https://packaging.python.org/en/latest/specifications/name-normalization/
_SEPARATORS = re.compile(r"[-_.]+")
_VERSION = re.compile(rb"^Version:[ \t]*(\S+)", re.MULTILINE | re.IGNORECASE)
_METADATA = {".dist-info": "METADATA", ".egg-info": "PKG-INFO"}


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, such as ``"2.4.6"``, or None if it is not installed.

    What ``importlib.metadata`` says, which is asked only where it may know more: it takes longer to import, and to
    read one distribution's description, than this takes for all that a job records.
    """
    wanted = _SEPARATORS.sub("-", distribution).lower()
    if not wanted:
        return None
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_distributions")]
    if [getattr(finder, "__name__", "") for finder in finders] != ["PathFinder"]:
        return _asked(distribution)
    for entry in sys.path:
        try:
            names = os.listdir(entry or ".")  # noqa: PTH208  # a Path would be imported for this
        except NotADirectoryError:  # an archive, most often
            return _asked(distribution)
        except OSError:
            continue
        for name in names:
            if name.endswith(".egg"):
                return _asked(distribution)
            stem, suffix = os.path.splitext(name)  # noqa: PTH122
            if suffix in _METADATA and _SEPARATORS.sub("-", stem.partition("-")[0]).lower() == wanted:
                return _read(f"{entry or '.'}/{name}/{_METADATA[suffix]}") or _asked(distribution)
    return None


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
