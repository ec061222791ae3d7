"""The one place that shows errors.

A :class:`~trainer.errors.TrainerError` is ``error: ...`` and ``hint: ...`` on standard error. With ``--json``
``{"error": {"type", "message", "hint", "exit_code"}}`` also goes to standard output, which so always holds one JSON
value. Any other exception is a bug of ours: it is shown in one line, and its traceback is written to a file.
TRAINER_DEBUG=1 shows tracebacks.
"""

from __future__ import annotations

import errno
import os
import platform
import sys
import tempfile
import time
import traceback
from pathlib import Path

from trainer import __version__
from trainer.console.output import note, print_error, print_json
from trainer.errors import ConfigError, InterruptedRunError, TrainerError
from trainer.redaction import redact
from trainer.runtime.faults import RuntimeFault

# Errors of the machine, not of the program.
_SURROUNDINGS = {
    errno.ENOSPC: "Free some space, or set TRAINER_HOME to a directory with more.",
    errno.EDQUOT: "Free some space, or set TRAINER_HOME to a directory with more.",
    errno.EACCES: "Change its permissions, or choose another directory.",
    errno.EPERM: "Change its permissions, or choose another directory.",
    errno.EROFS: "Choose a writable directory.",
    errno.EMFILE: "Raise the limit on open files: ulimit -n",
}


def report(error: BaseException, words: list[str]) -> int:
    """Show an error.

    Args:
        error: What ended the command.
        words: The command line.

    Returns:
        The exit code.
    """
    debug = os.environ.get("TRAINER_DEBUG", "") not in ("", "0")
    if debug:
        note(redact("".join(traceback.format_exception(error)).rstrip()))
    known = _as_trainer_error(error)
    if known is None:
        known = _unexpected(error, words)
    _print(known, "--json" in _own(words))
    return known.exit_code


def _as_trainer_error(error: BaseException) -> TrainerError | None:
    if isinstance(error, TrainerError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return InterruptedRunError("Interrupted.")
    if isinstance(error, RuntimeFault):
        text = error.message
        return ConfigError(f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}", error.hint)
    if isinstance(error, OSError) and error.errno in _SURROUNDINGS:
        where = f": {error.filename}" if error.filename else ""
        return ConfigError(f"{error.strerror}{where}.", _SURROUNDINGS[error.errno])
    return None


def _unexpected(error: BaseException, words: list[str]) -> TrainerError:
    what = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    try:
        path = _save(error, words)
    except OSError:
        return TrainerError(
            f"This is a bug in trainer: {what}.", "Run it again with TRAINER_DEBUG=1 and report the output."
        )
    return TrainerError(f"This is a bug in trainer: {what}.", f"Please report it to the project with this file: {path}")


def _save(error: BaseException, words: list[str]) -> Path:
    # The script's arguments may be private, and have no part in a bug of ours.
    typed = " ".join(["trainer", *_own(words)])
    head = f"{typed}\ntrainer {__version__}, Python {platform.python_version()}, {platform.platform()}\n\n"
    name = f"trainer-error-{time.strftime('%Y%m%d-%H%M%S')}-"
    descriptor, path = tempfile.mkstemp(prefix=name, suffix=".txt")
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(head)
        stream.write(redact("".join(traceback.format_exception(error))))
    return Path(path)


def _print(error: TrainerError, as_json: bool) -> None:
    try:
        print_error(error.message, error.hint)
        if as_json:
            shown = {"type": type(error).__name__, "message": error.message, "hint": error.hint}
            print_json({"error": {**shown, "exit_code": error.exit_code}})
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _own(words: list[str]) -> list[str]:
    return words[: words.index("--")] if "--" in words else words
