"""``trainer completion``: the shell's side of completion, through argcomplete."""

from __future__ import annotations

from argcomplete.shell_integration import shellcode

from trainer.cli.parsing import Parser, complete_with
from trainer.console.output import say

_SHELLS = ("bash", "zsh", "fish")


def add_completion(parser: Parser) -> None:
    """Declare ``trainer completion``."""
    shells = parser.add_argument("shell", metavar="SHELL", choices=_SHELLS, help="bash, zsh or fish.")
    complete_with(shells, lambda **_: _SHELLS)
    parser.epilog = (
        'Add this line to the shell\'s start-up file: eval "$(trainer completion bash)"; '
        "for fish: trainer completion fish | source"
    )


def completion_command(*, shell: str) -> None:
    """Print the shell code."""
    say(shellcode(["trainer"], shell=shell))
