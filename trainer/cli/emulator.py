"""``trainer emulator``: the one place that starts the loopback Azure ML service."""

from __future__ import annotations

from pathlib import Path

from trainer.cli.parsing import Parser
from trainer.errors import MissingExtraError, RefusedError, UsageError
from trainer.home import find_home


def add_emulator(parser: Parser) -> None:
    """Declare ``trainer emulator``."""
    parser.add_argument(
        "--port",
        metavar="N",
        type=int,
        default=0,
        help="Listen on this port (default: the one used last, or a free one).",
    )
    parser.add_argument(
        "--state", metavar="DIR", type=Path, help="Keep everything in this directory (default: .trainer/emulator)."
    )
    parser.add_argument(
        "--print-env",
        action="store_true",
        help="Print the variables with which an SDK v1 program can use it, and start it in the background if need be.",
    )


def emulator_command(*, port: int, state: Path | None, print_env: bool) -> None:
    """Serve until Ctrl-C, or print the variables of one that serves."""
    if not 0 <= port <= 65535:
        raise UsageError(f"--port must be from 0 to 65535 (got {port}).", "Leave it out for a free one.")
    try:
        from azureml_emulator import EmulatorError, serve
    except ImportError as error:
        raise MissingExtraError(f"The emulator ({error.name})", "emulator") from error
    try:
        serve((state or find_home().path / "emulator").resolve(), port, print_env)
    except EmulatorError as error:
        raise RefusedError(error.message, error.hint) from error
