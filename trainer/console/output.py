"""Data on standard output: JSON, or columns of text."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TextIO

BOLD, DIM, RED, GREEN, YELLOW = "1", "2", "31", "32", "33"


def say(text: str = "") -> None:
    """Print a line of data."""
    print(text)  # noqa: T201


def note(text: str) -> None:
    """Tell the user something that is no data."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def warn(text: str) -> None:
    """Tell the user something that they should know."""
    note(f"{paint('warning:', YELLOW, sys.stderr)} {text}")


def print_json(value: object) -> None:
    """Print one JSON value on one line; structures of msgspec and paths are written as what they stand for."""
    import msgspec

    say(msgspec.json.encode(value, enc_hook=str).decode())


def paint(text: str, style: str, stream: TextIO | None = None) -> str:
    """Colour ``text`` if ``stream`` (standard output) is a terminal that wants it. See https://no-color.org."""
    stream = stream or sys.stdout
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return text if plain else f"\033[{style}m{text}\033[0m"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print columns.

    Args:
        head: The columns' names.
        rows: The cells.
        right: Names of columns that are set flush right.
    """
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for number, row in enumerate(cells):
        fitted = (
            cell.rjust(width) if name in right else cell.ljust(width)
            for cell, width, name in zip(row, widths, head, strict=True)
        )
        line = "  ".join(fitted).rstrip()
        say(paint(line, BOLD) if number == 0 else line)


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Print labelled values; a value of several lines is indented under its first."""
    pairs = list(pairs)
    width = max((len(label) for label, _ in pairs), default=0)
    for label, value in pairs:
        first, *rest = value.splitlines() or [""]
        say(f"{paint(label.ljust(width), BOLD)}  {first}".rstrip())
        for line in rest:
            say(f"{'':{width}}  {line}")


def size(count: int) -> str:
    """A number of bytes, for people."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} GB"


def duration(seconds: float) -> str:
    """A time span, for people: ``8 s``, ``3:12``, ``1:02:03``."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    if minutes < 1:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def moment(stamp: float) -> str:
    """A point in time, in local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stamp))


def number(value: float | None, digits: int = 4) -> str:
    """A measured value; None is what was no finite number."""
    return "-" if value is None else f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:,.0f}"
