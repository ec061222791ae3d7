"""Whole commands, from the start of the process to its end: imports, data, training, saving, registering."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from bench.measuring import Command, Samples, always, interleaved_commands

PEERS = Path(__file__).parent / "peers"
ROOT = Path(__file__).parents[1]
OURS = "trainer run --backend local"


def measure_training(data: Path, epochs: int, repeats: int, folder: Path) -> tuple[dict[str, Samples], list[str]]:
    """The tutorial's job: 100 units, batch 128, one thread.

    Args:
        data: Folder of the four IDX files.
        epochs: Epochs of each run.
        repeats: Runs of each.
        folder: For the runs' working directories.

    Returns:
        Samples by name, and a line for each subject that had to be left out.
    """
    environment = {
        "PYTHONPATH": str(ROOT),
        "TRAINER_DATA_DIR": str(data),
        "OMP_NUM_THREADS": "1",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    python = sys.executable

    def ours(cwd: Path) -> Command:
        words = (
            *(python, "-m", "trainer", "run", "--backend", "local", "--dataset", "mnist", "--device", "cpu"),
            *("--epochs", str(epochs)),
        )
        return Command(words, environment | {"TRAINER_HOME": str(cwd / ".trainer")})

    chainer = (python, str(PEERS / "plain.py"), str(PEERS / "chainer_mnist_trainer.py"), "--epochs", str(epochs))
    torch = (python, str(PEERS / "torch_mnist.py"), "--epochs", str(epochs), "--data", str(data))
    subjects = {OURS: ours, "Chainer, train_mnist style": always(Command(chainer, environment))}
    notes = []
    if importlib.util.find_spec("torch") is None:
        notes.append("PyTorch is not installed: its row is left out (pip install torch).")
    else:
        subjects["PyTorch script"] = always(Command(torch, environment))
    return interleaved_commands(subjects, repeats, folder), notes


SCRIPTS = {
    "MNIST, Trainer": ("chainer_mnist_trainer.py", "--epochs", "5"),
    "MNIST, loop by hand": ("chainer_mnist_loop.py", "--epochs", "5"),
    "CIFAR-like ConvNet": ("chainer_cifar.py", "--epochs", "2"),
}


def measure_scripts(data: Path, repeats: int, folder: Path) -> dict[str, dict[str, Samples]]:
    """Unmodified Chainer scripts: plain, through the launcher, and through the launcher less one means at a time.

    Args:
        data: Folder of the four IDX files.
        repeats: Runs of each.
        folder: For the runs' working directories.

    Returns:
        Samples by script and way.
    """
    from trainer.runtime import fast

    environment = {"PYTHONPATH": str(ROOT), "TRAINER_DATA_DIR": str(data), "OMP_NUM_THREADS": "1"}
    environment["XDG_CACHE_HOME"] = str(folder / "cache")
    results = {}
    for title, (script, *arguments) in SCRIPTS.items():
        words = (str(PEERS / script), *arguments)
        plain = Command((sys.executable, str(PEERS / "plain.py"), *words), environment)
        subjects = {"plain Chainer": always(plain)}
        for choice in ("", *(f"-{name}" for name in fast.MEANS)):
            command = Command(
                (sys.executable, "-m", "trainer.runtime.launch", *words), environment | {fast.VARIABLE: choice}
            )
            subjects[f"without {choice[1:]}" if choice else "through the launcher"] = always(command)
        results[title] = interleaved_commands(subjects, repeats, folder / script)
    return results
