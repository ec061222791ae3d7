"""Text from a run's log, made fit for a terminal."""

from __future__ import annotations

import re

# CSI sequences, OSC strings, and escapes of two bytes (ECMA-48); colours (SGR) stay.
_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]|\x1b(?!\[)")


def printable(line: str) -> str:
    """A log line without what could move the cursor, retitle the window or type for the user.

    Of a line that was overwritten by carriage returns, as progress bars do, what it ended as.
    """
    line = line.rstrip("\r").rpartition("\r")[2]
    line = _SEQUENCE.sub(lambda found: found[0] if _COLOUR.fullmatch(found[0]) else "", line)
    line = _CONTROL.sub("", line)
    return line + "\x1b[0m" if "\x1b[" in line else line
