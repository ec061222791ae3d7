"""Clients and an emulator killed with SIGKILL at every step of a run's life: nothing is lost, nothing done twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from azureml_emulator import FaultAction
from backends.azureml import AzureMLBackend
from tests.backends import sdk_warnings
from tests.contract.azure_contract import SECONDS, TINY, AzureKillContract

pytestmark = [sdk_warnings.IGNORED, pytest.mark.slow, pytest.mark.timeout(1800)]


class TestKills(AzureKillContract):
    kind = AzureMLBackend
    unsent = "GET *-ws/experiments/train"
    # The service has the run, and the client that sent it has not heard of it.
    sent = ("PATCH */runs/*", FaultAction.DELAY)
    # Before it registers the model, and when the service has it and nobody knows.
    later = ("GET */contentinfo/*/outputs/model.npz", "POST */models", "GET *-ws/experiments/train")


INSIDE = """
set -e
ip link set lo up
cd "$1"
run=$("$2" -m trainer run --backend azureml --emulator --script "$3" --dataset none --model-name killed \
  --detach --json -- "$1/diary" 3 | "$2" -c 'import json, sys; print(json.load(sys.stdin)["run_id"])')
pid () { sed -n 's/.*"pid": *\\([0-9]*\\).*/\\1/p' .trainer/emulator/endpoint.json; }
kill -9 "$(pid)"
"$2" -m trainer attach "$run" >&2
"$2" -m trainer show "$run" --json
"$2" -m trainer models killed --backend azureml --emulator --json >models.json
kill "$(pid)"
"""


def test_an_emulator_killed_and_no_byte_leaves_the_machine(tmp_path: Path) -> None:
    """The whole of it, emulator included, in a network namespace that has loopback and nothing else."""
    unshare = shutil.which("unshare")
    probe = [unshare or "unshare", "-rn", "ip", "link", "set", "lo", "up"]
    if unshare is None or subprocess.run(probe, check=False, capture_output=True).returncode:
        pytest.skip("this machine lets us make no network namespace (unshare -rn)")
    (tmp_path / "pyproject.toml").touch()
    words = [unshare, "-rn", "bash", "-c", INSIDE, "inside", str(tmp_path), sys.executable, str(TINY)]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=SECONDS * 2, check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("AZUREML_")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    shown = json.loads(done.stdout)
    assert shown["status"] == "Completed", shown
    assert len((tmp_path / "diary").read_text().splitlines()) == 1
    models = json.loads((tmp_path / "models.json").read_text())
    assert [model["version"] for model in models] == [1]
