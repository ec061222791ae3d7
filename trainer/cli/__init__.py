"""The ``trainer`` command: parse, one call into the core, render.

A command's module is imported when the command is named. ``trainer --help``, ``runs`` and ``models`` load no
Chainer, NumPy, CuPy, Azure ML or rich.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The words after ``trainer``; by default this process's.

    Returns:
        The exit code: 0 ok, 1 the run failed, 2 usage, 3 configuration or sign-in, 4 the backend
        refused, 5 not found, 130 interrupted.
    """
    if "_ARGCOMPLETE" in os.environ:
        _complete()
    words = list(sys.argv[1:] if argv is None else argv)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started us, as by `>&-`
            nowhere = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, open(nowhere, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without UTF-8 gets \u2588 for a character that it can't show, not an error.
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return dispatch(words)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough (`trainer runs | head`). Python would complain again at exit.
        _abandon_output()
        return 0
    except SystemExit as request:  # argparse's --help
        return request.code if isinstance(request.code, int) else 0
    except BaseException as error:  # a traceback shown to a user is a bug
        from trainer.cli.errors import report

        return report(error, words)


def dispatch(words: list[str]) -> int:
    """Find the command and run it.

    Args:
        words: The words after ``trainer``.

    Returns:
        The command's exit code.

    Raises:
        TrainerError: The command failed.
    """
    from trainer.cli.commands import COMMANDS, overview

    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())  # noqa: T201
        return 0 if words else 2
    if words[0] in ("--version", "-V"):
        from trainer import __version__

        print(f"trainer {__version__}")  # noqa: T201
        return 0
    command = COMMANDS.get(words[0])
    if command is None:
        _refuse(words[0])
    options = vars(command.parser().read(words[1:]))
    return options.pop("handler")(**options) or 0


def _refuse(word: str) -> NoReturn:
    from trainer.cli.commands import COMMANDS, OTHER_NAMES
    from trainer.cli.parsing import closest
    from trainer.errors import UsageError

    meant = OTHER_NAMES.get(word) or closest(word, COMMANDS)
    hint = f"Did you mean: trainer {meant}?" if meant else "See: trainer --help"
    if word.endswith(".py"):
        hint = f"Did you mean: trainer run --script {word}"
    raise UsageError(f"There is no command {word!r}.", hint)


def _complete() -> None:
    """Answer the shell's question and exit."""
    import argcomplete

    from trainer.cli.commands import full_parser

    argcomplete.autocomplete(full_parser(os.environ.get("COMP_LINE", "")), always_complete_options="long")


def _abandon_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
