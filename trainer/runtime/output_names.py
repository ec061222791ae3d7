"""Give outputs that Azure ML can't store a name that it can.

The SDK on the node sends the names of all outputs in one request of JSON. One that is no UTF-8 spoils the request, and
nothing is uploaded; a backslash makes a folder of what was a file; control characters are not allowed in the name of a
blob (https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata).
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from trainer.runtime import environment
from trainer.runtime.layout import RENAMED_OUTPUTS

_REASON = "Azure ML takes no bytes that are no UTF-8, control characters or backslashes in a name"
# A file's name has 255 bytes at most, and a percent escape is longer than what it stands for.
_LONGEST = 240


def rename_unsendable(outputs: Path) -> None:
    """Rename what can't be sent: each byte that is in the way becomes ``%`` and two hexadecimal digits.

    Every change is printed, and written into ``environment.json`` for the client.

    Args:
        outputs: The folder that will be uploaded.
    """
    renamed: list[tuple[str, str, str]] = []
    for folder, folders, files in os.walk(outputs, topdown=False):
        for name in (*files, *folders):
            better = _sendable(name)
            if better == name:
                continue
            old, new = Path(folder, name), Path(folder, better)
            while os.path.lexists(new):
                new = new.with_name(f"{new.name}~")
            with contextlib.suppress(OSError):
                old.rename(new)
                before, after = _readable(old.relative_to(outputs)), _readable(new.relative_to(outputs))
                renamed.append((before, after, _REASON))
                sys.stderr.write(f"warning: the output {before} was renamed to {after}: {_REASON}.\n")
    if renamed:
        environment.add({RENAMED_OUTPUTS: renamed})


def _sendable(name: str) -> str:
    """Return the name with the bytes that can't be sent as ``%E9``."""
    kept = []
    for character in name:
        code = ord(character)
        if character == "\\" or code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000:
            kept.append("".join(f"%{byte:02X}" for byte in os.fsencode(character)))
        else:
            kept.append(character)
    if kept == list(name):
        return name
    return os.fsencode("".join(kept))[:_LONGEST].decode(errors="ignore")


def _readable(path: Path) -> str:
    r"""Return a name with what can't be shown as Python's escapes: ``latin-\xe9.txt``."""
    name = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in name)
