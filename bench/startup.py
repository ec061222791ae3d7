"""Short commands from start to end, beside Python doing nothing; and lists of many runs and many versions."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.measuring import Command, Samples, always, interleaved_commands

ROOT = Path(__file__).parents[1]
NOTHING = "python -c pass"
FEW, SOME, MANY = 10, 1000, 10_000


def measure(repeats: int, folder: Path) -> dict[str, Samples]:
    """Time ``--help``, ``runs`` and ``models``, compiled modules at hand as after any first start.

    Args:
        repeats: Starts of each.
        folder: For the runs and models that are listed.
    """
    homes = {count: _home(folder / str(count), count) for count in (FEW, SOME, MANY)}

    def trainer(*words: str, count: int = FEW) -> Command:
        environment = {
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(folder / "compiled"),
            "TRAINER_HOME": str(homes[count]),
        }
        return Command((sys.executable, "-m", "trainer", *words), environment)

    subjects = {
        NOTHING: Command((sys.executable, "-c", "pass")),
        "trainer --help": trainer("--help"),
        "trainer runs": trainer("runs"),
        "trainer models": trainer("models"),
    }
    for count in (SOME, MANY):
        subjects |= {
            f"trainer runs, the latest of {count:,}": trainer("runs", count=count),
            f"trainer runs --limit 0, all {count:,}": trainer("runs", "--limit", "0", count=count),
            f"trainer models m, all {count:,}": trainer("models", "m", count=count),
        }
    makers = {name: always(command) for name, command in subjects.items()}
    interleaved_commands(makers, 1, folder / "first")
    samples = interleaved_commands(makers, repeats, folder / "again")
    for each in samples.values():
        each.peak.clear()  # smaller than this process, whose peak a child starts with
    return samples


def _home(path: Path, count: int) -> Path:
    """A folder of so many finished runs and so many versions of the model ``m``."""
    import msgspec
    import numpy as np

    from backends.local_store import VERSION_FILE, LocalStore
    from trainer.job import TrainingJob
    from trainer.records import RunStatus
    from trainer.runfolder import RunFolder

    runs, models = path / "runs", path / "models"
    for _ in range(count):
        run = RunFolder.create(runs, TrainingJob(script="train.py"), backend="local", snapshot="0" * 64)
        run.update(status=RunStatus.COMPLETED)
    np.savez(run.outputs / "model.npz", w=np.ones(100, np.float32))
    version = LocalStore(models).register(run, "m")
    for number in range(2, count + 1):
        directory = models / "m" / str(number)
        directory.mkdir()
        (directory / "model.npz").hardlink_to(models / "m" / "1" / "model.npz")
        (directory / VERSION_FILE).write_bytes(msgspec.json.encode(msgspec.structs.replace(version, version=number)))
    return path
