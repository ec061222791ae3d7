"""The one place that shows errors.

A :class:`~trainer.errors.TrainerError` is ``error: ...`` and ``hint: ...`` on standard error; with ``--json``,
standard output gets ``{"error": {"type", "message", "hint", "exit_code"}}`` too, so that whoever
reads it always finds one JSON value. Anything else is a fault of ours: one line, and a file with
the traceback. TRAINER_DEBUG=1 shows tracebacks.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

from trainer.errors import ConfigError, InterruptedRunError, TrainerError
from trainer.runtime.faults import RuntimeFault

# What the machine, not the program, is at fault for.
_SURROUNDINGS = {
    errno.ENOSPC: "Free some space, or set TRAINER_HOME to a directory with more.",
    errno.EDQUOT: "Free some space, or set TRAINER_HOME to a directory with more.",
    errno.EACCES: "Change its permissions, or choose another place.",
    errno.EPERM: "Change its permissions, or choose another place.",
    errno.EROFS: "Choose a place that can be written.",
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
        traceback.print_exception(error)
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
            f"This is a bug in trainer: {what}.", "Run it again with TRAINER_DEBUG=1 and report what that prints."
        )
    return TrainerError(f"This is a bug in trainer: {what}.", f"Please report it to the project with this file: {path}")


def _save(error: BaseException, words: list[str]) -> Path:
    import platform

    from trainer import __version__

    # Script arguments may be private, and say nothing of our fault.
    typed = " ".join(["trainer", *_own(words)])
    head = f"{typed}\ntrainer {__version__}, Python {platform.python_version()}, {platform.platform()}\n\n"
    name = f"trainer-error-{time.strftime('%Y%m%d-%H%M%S')}-"
    descriptor, path = tempfile.mkstemp(prefix=name, suffix=".txt")
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(head)
        stream.writelines(traceback.format_exception(error))
    return Path(path)


def _print(error: TrainerError, as_json: bool) -> None:
    try:
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)  # noqa: T201
        if as_json:
            from trainer.console.output import print_json

            shown = {"type": type(error).__name__, "message": error.message, "hint": error.hint}
            print_json({"error": {**shown, "exit_code": error.exit_code}})
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _own(words: list[str]) -> list[str]:
    return words[: words.index("--")] if "--" in words else words
