"""Why a run failed, in one line: from the script's exit status and the end of its log, or from an error."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from trainer.errors import TrainerError
from trainer.records import RunFailure

_TRACEBACK = "Traceback (most recent call last):"
# "ValueError: text", "package.module.Error: text", "KeyboardInterrupt"
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(: .*)?")
_LONGEST = 500
_KEPT_LINES = 20
# How far back a traceback may begin.
LINES = 200


def failure(exit_code: int | None, log: Sequence[str]) -> RunFailure:
    """Describe a script that did not end well.

    Args:
        exit_code: Its exit status; negative for a signal, None if unknown.
        log: The last lines of what it printed; :data:`LINES` of them are enough.
    """
    return RunFailure(message=_script_reason(exit_code, log), log_tail=tuple(log[-_KEPT_LINES:]), exit_code=exit_code)


def reason(error: OSError | TrainerError) -> str:
    """Describe an error in one sentence."""
    if isinstance(error, TrainerError):
        return error.message
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}."


def _script_reason(exit_code: int | None, log: Sequence[str]) -> str:
    if exit_code is not None and exit_code < 0:
        # A traceback above is of something that the script survived.
        return f"The script was ended by {_signal_name(-exit_code)}."
    line = _last_exception(log) or _last_error(log)
    if line:
        return line[:_LONGEST]
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
    """What argparse, the launcher and a syntax error leave: ``prog: error: text``, ``error: text``."""
    return next((line for line in reversed(lines) if re.search(r"(?:^|\s)(?:error|\w+Error): ", line)), None)


def _signal_name(number: int) -> str:
    if number == signal.SIGKILL:
        return "SIGKILL, possibly out of memory"
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
