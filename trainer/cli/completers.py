"""Shell completion, through argcomplete, of commands, options, run ids, models and data sets.

Nothing is imported that ``trainer runs`` does not import, and only names of directories are read.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from trainer.cli.parsing import Parser, complete_with

_SHELLS = ("bash", "zsh", "fish")
_MOST_RUNS = 200


def add_completion(parser: Parser) -> None:
    """Declare ``trainer completion``."""
    shells = parser.add_argument("shell", metavar="SHELL", choices=_SHELLS, help="bash, zsh or fish.")
    complete_with(shells, lambda **_: _SHELLS)
    parser.epilog = (
        'Put this into the shell\'s start-up file: eval "$(trainer completion bash)"; '
        "for fish: trainer completion fish | source"
    )


def completion_command(*, shell: str) -> None:
    """Print the shell code."""
    from argcomplete.shell_integration import shellcode

    from trainer.console.output import say

    say(shellcode(["trainer"], shell=shell))


def complete() -> None:
    """Answer the shell's question and exit."""
    import argcomplete

    argcomplete.autocomplete(full_parser(os.environ.get("COMP_LINE", "")), always_complete_options="long")


def full_parser(line: str = "") -> argparse.ArgumentParser:
    """The whole command line as one parser; of the command that ``line`` names if it names one."""
    from trainer.cli.commands import COMMANDS

    parser = Parser(prog="trainer")
    parser.add_argument("--version", action="store_true")
    choices = parser.add_subparsers(parser_class=Parser)
    words = line.split()
    named = words[1] if len(words) > 1 else ""
    for command in COMMANDS.values():
        inner = choices.add_parser(
            command.name, summary=command.summary, prog=f"trainer {command.name}", help=command.summary
        )
        if not line or command.name == named:
            command.configure(inner)
    return parser


def run_ids(**_: Any) -> list[str]:
    """Ids of the newest runs."""
    from trainer.home import find_home
    from trainer.runfolder import run_ids as known

    return ["latest", *known(find_home().runs)[:_MOST_RUNS]]


def model_names(**_: Any) -> list[str]:
    """Names in the local registry."""
    from trainer.home import find_home

    return sorted(path.name for path in _directories(find_home().models))


def model_references(prefix: str = "", **_: Any) -> list[str]:
    """Names in the local registry; after a colon, their versions."""
    from trainer.home import find_home

    name, colon, _version = prefix.partition(":")
    if not colon:
        return ["latest", *model_names()]
    versions = (path.name for path in _directories(find_home().models / name) if path.name.isdigit())
    return [f"{name}:{version}" for version in sorted(versions, key=int)]


def model_files(prefix: str = "", **_: Any) -> list[str]:
    """Registered models, and files."""
    from argcomplete.completers import FilesCompleter

    return [*model_references(prefix), *FilesCompleter(("npz",))(prefix)]


def known_datasets(**_: Any) -> list[str]:
    """Names of the data sets that can be had."""
    from trainer.data.catalogue import CATALOGUE

    return list(CATALOGUE)


def datasets(prefix: str = "", **_: Any) -> list[str]:
    """What ``--dataset`` takes."""
    from argcomplete.completers import DirectoriesCompleter

    return ["auto", *known_datasets(), "none", *DirectoriesCompleter()(prefix)]


def backends(**_: Any) -> list[str]:
    """Names of the installed backends."""
    from trainer.backend import backend_names

    return backend_names()


def _directories(path: Path) -> list[Path]:
    try:
        return [entry for entry in path.iterdir() if not entry.name.startswith(".") and entry.is_dir()]
    except OSError:
        return []
