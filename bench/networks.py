"""Training steps of a convolutional network and of a language model: plain Chainer, through the launcher, PyTorch."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.measuring import Command, Samples, interleaved_workers

PEERS = Path(__file__).parent / "peers"
ROOT = Path(__file__).parents[1]
PYTORCH = "PyTorch"
FAST = "through the launcher"
_WAYS = {
    "plain Chainer": "plain",
    FAST: "fast",
    "through the launcher, --kernels torch": "kernels",
    PYTORCH: "pytorch",
}
_NEEDS_TORCH = {"kernels", "pytorch"}
# Title: network, threads, steps that are timed at once.
_NETWORKS = {
    "CNN, one thread": ("cnn", 1, 10),
    "CNN, two threads": ("cnn", 2, 10),
    "language model, one thread": ("words", 1, 1),
}


def measure(repeats: int) -> Iterator[tuple[str, dict[str, Samples], list[str]]]:
    """Time steps, every subject in a process of its own, in turns.

    Args:
        repeats: How often each is timed.

    Yields:
        A title, samples by subject, and a line for each subject that had to be left out.
    """
    has_torch = importlib.util.find_spec("torch") is not None
    notes = [] if has_torch else ["PyTorch is not installed: the rows that need it are left out (pip install torch)."]
    for title, (network, threads, steps) in _NETWORKS.items():
        environment = {
            name: str(threads) for name in ("TRAINER_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        } | {"PYTHONPATH": str(ROOT), "TRAINER_FAST": "1"}
        subjects = {
            name: Command((sys.executable, str(PEERS / "steps.py"), network, way), environment)
            for name, way in _WAYS.items()
            if has_torch or way not in _NEEDS_TORCH
        }
        yield f"Training step: {title}", interleaved_workers(subjects, repeats, steps), notes
