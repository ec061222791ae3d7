"""The options that say how a registered model's network is built, of all commands that build one."""

from __future__ import annotations

import argparse

from trainer.cli.parsing import Parser
from trainer.modeluse.building import input_shape


def add_network(parser: Parser) -> None:
    """Add ``--model-file``, ``--input-shape`` and ``--network``."""
    parser.add_argument(
        "--model-file", metavar="FILE:FUNCTION", help="Build the Chainer network with this function of this file."
    )
    parser.add_argument(
        "--input-shape", metavar="N,N,...", type=_shape, default=(), help="Shape of one input of that network."
    )
    own = "The function that makes its network, as for trainer run (default: as recorded with the model)."
    parser.add_argument("--network", metavar="FILE.py:NAME", help=own)


def _shape(text: str) -> tuple[int, ...]:
    try:
        return input_shape(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers such as 1,28,28, not {text!r}") from None
