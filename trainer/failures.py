"""Why a run failed, in one line: from the script's exit status and the end of its log, or from an error."""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Sequence

from trainer.errors import TrainerError
from trainer.records import RunFailure

_TRACEBACK = "Traceback (most recent call last):"
# "ValueError: text", "package.module.Error: text", "KeyboardInterrupt"
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(: .*)?")
# "prog: error: text", "error: text", "SyntaxError: text"; not "train error: 0.3"
_ERROR = re.compile(r"^\s*(?:\S+: )?error: |(?:^|\s)\w+Error: ")
_LONGEST = 500
FULL = "the disk is full"
_KEPT_LINES = 20
# An error and its hint, and what an exit handler may say after them.
_ERROR_LINES = 5
# "The process exited with code -9", "User process 'python' exited with status code 137."
_EXIT_STATUS = re.compile(r"exit(?:ed)?\b[ \w]{0,20}\bcode:?\s+(-?\d{1,5})\b", re.IGNORECASE)
_SIGNALS_IN_A_SHELL = 128
# How far back a traceback may begin.
LINES = 200


def failure(exit_code: int | None, log: Sequence[str], *, out_of_memory: bool = False) -> RunFailure:
    """Describe a script that did not end well.

    Args:
        exit_code: Its exit status; negative for a signal, None if unknown.
        log: The last lines of what it printed; :data:`LINES` of them are enough.
        out_of_memory: Whether the system is known to have killed a process for want of memory meanwhile.
    """
    message = _script_reason(exit_code, log, out_of_memory=out_of_memory)
    return RunFailure(message=message, log_tail=tuple(log[-_KEPT_LINES:]), exit_code=exit_code)


def signal_in(said: str) -> int | None:
    """Return the signal that ended a script, by what the service says of its exit status; None for another end.

    Python has it as a negative status, a shell as one above 128. A script that exits with such a status by itself can't
    be told from that.
    """
    told = _EXIT_STATUS.search(said)
    status = int(told[1]) if told else 0
    number = -status if status < 0 else status - _SIGNALS_IN_A_SHELL
    return number if number in {*signal.Signals} else None


def reason(error: Exception) -> str:
    """Describe an error in one sentence."""
    if isinstance(error, TrainerError):
        return error.message
    if isinstance(error, OSError):
        text = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}."
        return f"{FULL}: {text}" if error.errno in (errno.ENOSPC, errno.EDQUOT) else text
    return f"{type(error).__name__}: {error}".rstrip(": .")[:_LONGEST] + "."


def _script_reason(exit_code: int | None, log: Sequence[str], *, out_of_memory: bool) -> str:
    if exit_code is not None and exit_code < 0:
        # A traceback above is of something that the script survived.
        return f"The script was ended by {_signal_name(-exit_code, out_of_memory=out_of_memory)}."
    line = _last_exception(log) or _last_error(log)
    if line:
        return line[:_LONGEST] + (f" ({FULL})" if os.strerror(errno.ENOSPC) in line else "")
    if exit_code == 1 and (said := _last_line(log)):
        # sys.exit("no data found") prints that, and ends with 1.
        return f"{said[:_LONGEST]} (exit status 1)"
    return "The script failed." if exit_code is None else f"The script ended with exit status {exit_code}."


def _last_exception(lines: Sequence[str]) -> str | None:
    """The line below the frames of the last traceback."""
    starts = [number for number, line in enumerate(lines) if line.strip() == _TRACEBACK]
    if not starts:
        return None
    indent = len(lines[starts[-1]]) - len(lines[starts[-1]].lstrip())
    below = [line[indent:] for line in lines[starts[-1] + 1 :]]
    return next((line for line in below if line[:1].strip() and _EXCEPTION.fullmatch(line)), None)


def _last_error(lines: Sequence[str]) -> str | None:
    """What argparse, the launcher and a syntax error leave at the end: ``prog: error: text``, ``error: text``.

    The word before a bare text is left to who tells it.
    """
    last = [line for line in lines if line.strip()][-_ERROR_LINES:]
    found = next((line for line in reversed(last) if _ERROR.search(line)), None)
    return found and found.strip().removeprefix("error: ")


def _last_line(lines: Sequence[str]) -> str | None:
    # Of one that was written over by carriage returns, as progress bars do, what it ended as.
    if any(line.strip() == _TRACEBACK for line in lines):
        return None
    return next((line.rstrip("\r").rpartition("\r")[2].strip() for line in reversed(lines) if line.strip()), None)


def _signal_name(number: int, *, out_of_memory: bool) -> str:
    if number == signal.SIGKILL:
        return "SIGKILL: the system was out of memory" if out_of_memory else "SIGKILL, possibly out of memory"
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
