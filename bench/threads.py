"""BLAS threads on an idle and on a busy machine: one epoch of this program's training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.measuring import Command, Samples, always, interleaved_commands

ROOT = Path(__file__).parents[1]
BUSY = "while True: pass"


def measure(data: Path, repeats: int, folder: Path, cores: int) -> dict[str, Samples]:
    """Time ``chainer_mnist.py`` for one epoch with 1 and with ``cores`` threads.

    Args:
        data: Folder of the four IDX files.
        repeats: Runs of each.
        folder: For the runs' working directories.
        cores: How many threads to compare with one, and how many processes keep a busy machine busy.
    """
    environment = {"PYTHONPATH": str(ROOT), "TRAINER_DATA_DIR": str(data)}
    samples: dict[str, Samples] = {}
    for state in ("idle", "busy"):
        others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(cores if state == "busy" else 0)]
        try:
            subjects = {}
            for units in (100, 1000):
                for count in (1, cores):
                    words = (
                        *(sys.executable, str(ROOT / "chainer_mnist.py"), "--dataset", str(data), "--device", "cpu"),
                        *("--epochs", "1", "--units", str(units), "--threads", str(count)),
                    )
                    subjects[f"{units} units, {state} machine, {count} thread{'s' * (count > 1)}"] = always(
                        Command(words, environment)
                    )
            samples |= interleaved_commands(subjects, repeats, folder / state)
        finally:
            for process in others:
                process.kill()
                process.wait()
    return samples
