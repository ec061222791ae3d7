r"""Everything that a command prints goes through here: data on standard output, the rest on standard error.

What a script or a service says, and the names that it gives to files and metrics, may hold control sequences that
retitle the window, clear the screen or fill the clipboard. Nothing is printed before :func:`clean` has made them
visible, as in ``\x1b``. A log that is piped somewhere is the one exception: it is the script's data.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

# No column is made narrower than this to fit a terminal.
_NARROWEST = 8
BOLD, DIM, RED, GREEN, YELLOW = "1", "2", "31", "32", "33"
_RESET = "\x1b[0m"

# C0, DEL and C1 controls (ECMA-48) but tabs and line ends; separators, embeddings, overrides and isolates, which move
# text away from where it stands (Unicode Standard Annex 9); bytes of a file's name that are no UTF-8 (PEP 383).
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_BREAK = re.compile("[\t\n]")
# A command within a text, up to where the text goes on; its words; and what stands for a blank in it meanwhile.
_COMMAND = re.compile(
    "(?<![\\w./-])(?:trainer|curl|pip|uv|chmod|apt-get) [a-z0-9-].*?(?=[.,;)](?: |$)|  | or | and |$)"
)
_WORD = re.compile(r"""(?:-[a-zA-Z] )?(?:"(?:[^"\\]|\\.)*"|'[^']*'|\S)+""")
_APART = re.compile(r"(?<=\S) {4}(?=[A-Z])")
_GLUE = "\x00"
_COLOUR = re.compile("\x1b\\[[0-9;]*m")
# Control sequences; strings (OSC, DCS, SOS, PM, APC) with their end; escapes of two bytes and more.
_SEQUENCE = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)?"
    "|\x1b[ -/]*[0-~]"
)


def clean(text: str, *, colours: bool = False) -> str:
    r"""Return ``text`` with control characters made visible, as in ``\x1b``. Tabs and line ends stay.

    Args:
        text: What is to be shown.
        colours: Leave colours, and end them with the text.
    """
    if not _CONTROL.search(text):
        return text
    kept = _COLOUR.findall(text) if colours else []
    if not kept:
        return _CONTROL.sub(_visible, text)
    parts = (_CONTROL.sub(_visible, part) for part in _COLOUR.split(text))
    ends = [*kept, "" if kept[-1] == _RESET else _RESET]
    return "".join(part + colour for part, colour in zip(parts, ends, strict=True))


def inline(text: str) -> str:
    """Return a name or value from elsewhere as it can stand within a line: no colours, tabs and line ends visible."""
    # What str.isprintable() takes has none of these, and lists of thousands of runs have nearly nothing else.
    return text if text.isprintable() else _BREAK.sub(_visible, _CONTROL.sub(_visible, text))


def print_log(line: str, stream: TextIO) -> None:
    """Print a line of a log: cleaned on a terminal, elsewhere as the script wrote it."""
    print(log_line(line, stream) if stream.isatty() else line, file=stream, flush=stream is sys.stderr)


def log_line(line: str, stream: TextIO) -> str:
    """Return a line of a log without control sequences; colours stay where ``stream`` shows them.

    Of a line that was overwritten by carriage returns, as progress bars do, what it ended as.
    """
    colours = shows_colours(stream)
    line = line.rstrip("\r").rpartition("\r")[2]
    line = _SEQUENCE.sub(lambda found: found[0] if colours and _COLOUR.fullmatch(found[0]) else "", line)
    kept = [*_COLOUR.findall(line), ""] if colours else [""]
    parts = _COLOUR.split(line) if colours else [line]
    return "".join(_CONTROL.sub("", part) + colour for part, colour in zip(parts, kept, strict=True))


def shows_colours(stream: TextIO) -> bool:
    """Say whether ``stream`` is a terminal that wants colours. See https://no-color.org."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def say(text: str = "") -> None:
    """Print a line of data."""
    print(clean(text, colours=shows_colours(sys.stdout)))  # noqa: T201


def note(text: str) -> None:
    """Print a line that is not data; on a terminal, broken between words where it is longer than that is wide."""
    text = wrapped(clean(text, colours=shows_colours(sys.stderr)), width(sys.stderr))
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def width(stream: TextIO) -> int | None:
    """Return how many columns ``stream`` shows, or None where it is no terminal: lines are of any length there."""
    if not stream.isatty():
        return None
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def wrapped(text: str, columns: int | None, indent: int = 0) -> str:
    """Return ``text`` broken between words, so that no line is longer than ``columns`` unless one word is.

    Args:
        text: Its own line ends and the blanks at the start of its lines stay; colours have no width.
        columns: None for no limit.
        indent: Blanks before each line that is added.
    """
    if columns is None or all(_columns(line) <= columns for line in text.split("\n")):
        return text
    lines = []
    for line in _one_below_the_other(text, columns):
        current = ""
        for word in re.split(r"(?<=\S) ", _with_commands_whole(line, columns - indent)):
            longer = f"{current} {word}" if current else word
            if current.strip() and any(_columns(part) > columns for part in longer.split("\n")):
                lines.append(current)
                current = " " * indent + word.lstrip()
            else:
                current = longer
        lines.append(current)
    return "\n".join(lines).replace(_GLUE, " ")


def _one_below_the_other(text: str, columns: int) -> Iterator[str]:
    """Yield the lines of a text; of one that is too long, what four blanks set apart."""
    for line in text.split("\n"):
        yield from _APART.split(line) if _columns(line) > columns else (line,)


def _with_commands_whole(line: str, columns: int) -> str:
    """Return a line in which the blanks of commands are no place to break it.

    A command that is no longer than a line is copied whole. One that is longer goes on after a backslash, as a shell
    reads it.
    """

    def kept(found: re.Match[str]) -> str:
        command, before = found[0], line[: found.start()]
        if _columns(command) <= columns:
            return command.replace(" ", _GLUE)
        if before.strip() and not before.endswith((": ", "  ")):
            return command  # of a sentence that is about the program
        return _continued(command, columns, 0 if before.endswith(": ") else _columns(before))

    return _COMMAND.sub(kept, line)


def _continued(command: str, columns: int, first: int) -> str:
    """Return a command in lines that end with a backslash, broken outside quotes.

    Args:
        command: Its words are separated by one blank each.
        columns: How long a line may be.
        first: Columns of the first line that are taken.
    """
    lines = [""]
    room = columns - first
    for word in _WORD.findall(command):
        longer = f"{lines[-1]}{_GLUE}{word}" if lines[-1] else word
        if lines[-1] and _columns(longer) > room - 2:
            room = columns
            lines.append(f"{_GLUE * 2 if _columns(word) <= columns - 4 else ''}{word}")
        else:
            lines[-1] = longer
    return f"{_GLUE}\\\n".join(lines).replace(" ", _GLUE)


def _columns(text: str) -> int:
    """Return how many columns a terminal shows a text in: wide characters (Unicode Standard Annex 11) take two."""
    if text.isascii() and "\x1b" not in text:
        return len(text)
    from unicodedata import combining, east_asian_width  # seldom needed

    return sum(
        0 if combining(character) else 2 if east_asian_width(character) in "WF" else 1
        for character in _COLOUR.sub("", text)
    )


def warn(text: str) -> None:
    """Print a line that the user should read."""
    note(f"{paint('warning:', YELLOW, sys.stderr)} {text}")


def print_error(message: str, hint: str) -> None:
    """Print what went wrong in one line, and in another what to do; ``hint`` may be empty."""
    note(f"{paint('error:', RED, sys.stderr)} {inline(' '.join(message.splitlines()))}")
    if hint:
        note(f"hint: {inline(hint)}")


def print_json(value: object) -> None:
    """Print one JSON value on one line; structures of msgspec and paths are written as what they stand for."""
    import msgspec  # not for `trainer completion`, which runs whenever a shell starts

    try:
        text = msgspec.json.encode(value, enc_hook=str).decode()
    except UnicodeEncodeError:  # a file's name that is no UTF-8
        import json

        text = json.dumps(msgspec.to_builtins(value, enc_hook=str, str_keys=True))
    # The encoder leaves DEL, C1 controls and bidirectional ones as they are.
    print(_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text))  # noqa: T201


def paint(text: str, style: str, stream: TextIO | None = None) -> str:
    """Return ``text`` coloured, if ``stream`` (by default standard output) shows colours."""
    return f"\x1b[{style}m{text}{_RESET}" if shows_colours(stream or sys.stdout) else text


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Sequence[str] = (),
    drop: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> list[str]:
    """Print columns. On a terminal no line is wider than that is.

    By hand: rich takes longer to import than ``trainer runs`` takes to list.

    Args:
        head: The columns' names.
        rows: The cells.
        right: Names of the columns that are set flush right.
        drop: Columns that are left out, in this order, where the terminal is too narrow for all.
        whole: Columns whose cells are never cut: half an id names nothing.

    Returns:
        The names of the columns that were left out.
    """
    # By columns: there may be thousands of rows.
    cells = [[name, *map(inline, column)] for name, column in zip(head, _columns_of(rows, len(head)), strict=True)]
    widths = [_widest(column) for column in cells]
    room = width(sys.stdout)
    shown, left_out = list(range(len(head))), []
    for name in drop:
        if room is None or sum(widths[column] + 2 for column in shown) - 2 <= room:
            break
        if name in head and head.index(name) in shown:
            shown.remove(head.index(name))
            left_out.append(name)
    for name in reversed(left_out[:-1]):  # what fits beside what was needed more
        if room is not None and sum(widths[column] + 2 for column in (*shown, head.index(name))) - 2 <= room:
            shown = sorted((*shown, head.index(name)))
            left_out.remove(name)
    cut = [column for column in shown if head[column] not in (*right, *whole)]
    while room is not None and sum(widths[column] + 2 for column in shown) - 2 > room:
        widest = max(cut, key=lambda column: widths[column], default=None)
        if widest is None or widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1
    fitted = (_fitted(cells[column], widths[column], flush_right=head[column] in right) for column in shown)
    lines = ["  ".join(row).rstrip() for row in zip(*fitted, strict=True)]
    # Once: thousands of lines take longer to print than to make.
    say("\n".join([paint(lines[0], BOLD), *lines[1:]]))
    return left_out


def _columns_of(rows: Iterable[Sequence[str]], count: int) -> Iterable[Sequence[str]]:
    found = list(zip(*rows, strict=True))
    return found or [()] * count


def _widest(cells: Sequence[str]) -> int:
    # At once: nearly all are plain, and there may be thousands.
    return max(map(len if "".join(cells).isascii() else _columns, cells))


def _fitted(cells: Sequence[str], columns: int, *, flush_right: bool) -> list[str]:
    if "".join(cells).isascii():
        cut = (cell if len(cell) <= columns else cell[: columns - 1] + "…" for cell in cells)
        return [cell.rjust(columns) for cell in cut] if flush_right else [cell.ljust(columns) for cell in cut]
    return [_padded(cut_to(cell, columns), columns, flush_right=flush_right) for cell in cells]


def _padded(cell: str, columns: int, *, flush_right: bool) -> str:
    blanks = " " * (columns - _columns(cell))
    return blanks + cell if flush_right else cell + blanks


def cut_to(text: str, columns: int) -> str:
    """Return ``text`` with its end replaced by an ellipsis where it takes more columns."""
    if _columns(text) <= columns:
        return text
    while text and _columns(text) > columns - 1:
        text = text[:-1]
    return f"{text}…"


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Print labelled values; a value of several lines is indented under its first."""
    pairs = [(inline(label), value) for label, value in pairs]
    margin = max((len(label) for label, _ in pairs), default=0)
    room = width(sys.stdout)
    for label, value in pairs:
        first, *rest = wrapped(value, None if room is None else max(room - margin - 2, 20)).split("\n")
        say(f"{paint(label.ljust(margin), BOLD)}  {first}".rstrip())
        for line in rest:
            say(f"{'':{margin}}  {line}")


def size(count: int) -> str:
    """Return a number of bytes with a unit: ``999 B``, ``11.6 MB``."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} GB"


def duration(seconds: float) -> str:
    """Return a time span with its unit: ``8 s``, ``3:12``, ``1:02:03``."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    if minutes < 1:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def moment(stamp: float) -> str:
    """Return a time in seconds since 1970 as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stamp))


def number(value: float | None, digits: int = 4) -> str:
    """Return a measured value as text; None, which stands for a value that was not finite, is a dash."""
    return "-" if value is None else f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:,.0f}"


def measured(value: float | None) -> str:
    """Return a metric's value as text: a count without decimals."""
    return f"{value:g}" if value is not None and value > 1 and float(value).is_integer() else number(value)


def _visible(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code in (9, 10):
        return "\\t" if code == 9 else "\\n"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
