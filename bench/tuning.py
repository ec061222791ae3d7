"""Studies: how many trials are finished in an hour, and what each costs beside its training.

Three ways to search the same space with the same seed of values, two trials at once:

- ``trainer tune``;
- Optuna in a loop that starts ``trainer run --json`` for each trial;
- Optuna in a loop that starts a fresh process of a plain Chainer function for each trial (``peers/optuna_chainer.py``).
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.measuring import Command, Samples, interleaved_commands

PEERS = Path(__file__).parent / "peers"
ROOT = Path(__file__).parents[1]
OURS = "trainer tune"
ISOLATED = "trainer tune --isolated"
RUN = "Optuna driving trainer run"
PLAIN = "Optuna driving a Chainer function in a fresh process"


def measure(epochs: int | None, trials: int, repeats: int, folder: Path) -> dict[str, Samples]:
    """Time whole studies on mnist-5k.

    Args:
        epochs: Of each trial; None for the tutorial notebook's space: batch size 128 or 256, 5, 10, 20 or 40 epochs.
        trials: How many a study has.
        repeats: How often each study is run.
        folder: For working directories.

    Returns:
        Samples by name.
    """
    from trainer.data import resolve

    data = resolve("mnist-5k").directory
    environment = {
        "PYTHONPATH": str(ROOT),
        "TRAINER_DATA_MIRRORS": "off",
        "OMP_NUM_THREADS": "1",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    space = ["batchsize=128,256"] + (["epochs=5,10,20,40"] if epochs is None else [])
    fixed = [] if epochs is None else ["--epochs", str(epochs)]
    spaces = [word for each in space for word in ("--space", each)]
    count = ("--trials", str(trials), "--parallel", "2")
    python = sys.executable

    def ours(*more: str) -> Command:
        words = (python, "-m", "trainer", "tune", *spaces, *count, "--dataset", str(data), *more, "--", *fixed)
        return Command((*words, "--device", "cpu"), environment)

    def peer(way: str) -> Command:
        words = (python, str(PEERS / "optuna_chainer.py"), way, "--data", str(data), *spaces, *count, *fixed)
        return Command(words, environment)

    subjects = {
        OURS: lambda _: ours(),
        ISOLATED: lambda _: ours("--isolated"),
        RUN: lambda _: peer("run"),
        PLAIN: lambda _: peer("function"),
    }
    return interleaved_commands(subjects, repeats, folder)


def per_hour(samples: dict[str, Samples], trials: int) -> str:
    """Say how many trials an hour each way finishes, by the medians."""
    rates = {name: trials / each.median * 3600 for name, each in samples.items()}
    return "Trials per hour: " + "; ".join(f"{name} {rate:,.0f}" for name, rate in rates.items()) + "."
