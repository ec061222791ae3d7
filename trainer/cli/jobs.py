"""Flags that every command has which submits jobs: ``run`` and ``tune``, and of the ranks ``resume`` and ``rerun``."""

from __future__ import annotations

from trainer.cli.parsing import Group, Parser


def add_how_it_runs(parser: Group) -> None:
    """Add ``--max-restarts``, ``--checkpoints`` and ``--kernels``."""
    parser.add_argument(
        "--max-restarts",
        metavar="N",
        help="Start a run anew that loses its node or is killed, up to N times (default: 0; 3 on low-priority nodes).",
    )
    parser.add_argument(
        "--checkpoints",
        metavar="PATTERN",
        help="The files below outputs/ that a script of your own then continues from, such as 'checkpoints/*'.",
    )
    parser.add_argument(
        "--kernels",
        metavar="NAME",
        help="CPU kernels of convolution, pooling and batch normalization: torch for PyTorch's, which round "
        "differently, or off (default: off, Chainer's).",
    )


def add_ranks(parser: Parser, default: str) -> None:
    """Add ``--processes-per-node`` and ``--nodes``.

    Args:
        parser: The command's.
        default: How help names the default.
    """
    group = parser.add_argument_group("several processes, by MPI")
    group.add_argument(
        "--processes-per-node",
        metavar="P",
        help=f"Run the script as P processes on each node, the ranks of MPI (default: {default}).",
    )
    group.add_argument(
        "--nodes", metavar="N", help=f"Run it on N nodes; the local backend simulates them (default: {default})."
    )
