"""SIGKILL between any two file operations: of a registration, a deletion, a fetch, a submission, and a run's end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from backends.local_store import LocalStore
from tests.artifacts.local_runs import make_local_run
from tests.backends.kill_finish import SCENES
from tests.contract.store_contract import npz_bytes
from tests.drills.drill import ROOT, Drill

_REGISTRY = ("register", "delete", "fetch", "replace")


def make_template(scratch: Path) -> None:
    """Two registered models of more than one block of copying, and a run that is not registered yet."""
    import numpy as np

    template = scratch / "template"
    models = [npz_bytes(a=np.frombuffer(os.urandom(1_300_000), np.uint8)) for _ in range(3)]
    store = LocalStore(template / "models")
    for model in models[:2]:
        store.register(make_local_run(template / "runs", model), "m")
    make_local_run(template / "new", models[2])


def _harness(path: str, words: Sequence[str | Path]) -> int:
    done = subprocess.run(
        [sys.executable, ROOT / path, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def registry(scratch: Path, _: float) -> dict[str, int]:
    kills = 0
    for case in _REGISTRY:
        (scratch / case).mkdir()
        make_template(scratch / case)
        kills += _harness("tests/artifacts/kill_everywhere.py", [scratch / case, case])
    return {"kills": kills}


def runs(scratch: Path, _: float) -> dict[str, int]:
    kills = 0
    for scene in SCENES:
        (scratch / scene).mkdir()
        # Whoever takes over is killed as well.
        kills += _harness("tests/backends/kill_finish.py", [scratch / scene, scene]) * (1 if scene == "submit" else 2)
    return {"kills": kills}


DRILLS = (
    Drill(
        "kills-registry",
        "A kill during a registration, a deletion or a fetch leaves the old state or the new one; no version number is "
        "used twice.",
        registry,
    ),
    Drill(
        "kills-runs",
        "A kill while a run is submitted or its outputs are collected loses, cuts or doubles no file and no model; "
        "the run ends truthfully.",
        runs,
    ),
)
