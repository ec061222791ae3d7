"""``kill -9`` at any point of a registration, a deletion or a fetch leaves the old state or the new one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backends.local_store import LocalStore
from tests.artifacts.local_runs import make_local_run

HARNESS = Path(__file__).with_name("kill_everywhere.py")


@pytest.mark.parametrize("case", ["register", "delete", "fetch", "replace"])
def test_killed_at_every_file_operation(tmp_path: Path, case: str) -> None:
    import numpy as np

    from tests.contract.store_contract import npz_bytes

    template = tmp_path / "template"
    # More than one block of copying, so that there are deaths in the middle of a file.
    models = [npz_bytes(a=np.frombuffer(os.urandom(1_300_000), np.uint8)) for _ in range(3)]
    store = LocalStore(template / "models")
    for model in models[:2]:
        store.register(make_local_run(template / "runs", model), "m")
    make_local_run(template / "new", models[2])
    outcome = subprocess.run([sys.executable, HARNESS, tmp_path, case], capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    # A deletion, the shortest, takes nine: the lock, the rename, the sync and what the version held.
    assert int(outcome.stdout) >= 9
