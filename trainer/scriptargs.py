"""The included script's command line, read before anything is sent.

A flag that the script doesn't have, or a value that it doesn't take, is then known before there is a run, and so is the
size of its minibatches.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from trainer.errors import UsageError
from trainer.runtime.flags import add_flags

# What chainer_mnist.py has beside the training flags.
_OTHER = (("--dataset",), ("--network",), ("--output_dir", "-o"), ("--resume",))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}.", f"Its flags: trainer docs cli, or python {self.prog} --help")


def read_arguments(words: Sequence[str], script: Path) -> argparse.Namespace | None:
    """Return the values of the included script's flags.

    Args:
        words: Its command line.
        script: The file. Where somebody has given it flags of their own, as in a clone, those are let through.

    Returns:
        The values by flag; None where the command line asks for help.

    Raises:
        UsageError: The script would refuse the command line.
    """
    parser = _Parser(prog=script.name, add_help=False)
    add_flags(parser)
    for names in _OTHER:
        parser.add_argument(*names)
    parser.add_argument("--help", "-h", action="store_true")
    found, unknown = parser.parse_known_args(words)
    if found.help:
        return None
    if unknown:
        text = script.read_text(encoding="utf-8", errors="replace")
        options = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        if not options or any(f'"{option}"' not in text and f"'{option}'" not in text for option in options):
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return found
