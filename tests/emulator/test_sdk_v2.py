"""Public samples for SDK v2 as plain programs: nothing but environment variables, and no network but loopback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from azureml_emulator import Endpoint
from tests.emulator.clients import PROGRAMS, client_environment
from tests.emulator.test_tutorial import ONLY_LOOPBACK

V2 = PROGRAMS / "v2"


def run_program(emulator: Endpoint, directory: Path, name: str) -> str:
    """Run a program with what a user has: the emulator's variables and its config.json."""
    emulator.write_config(directory)
    (directory / "hooks").mkdir()
    (directory / "hooks" / "sitecustomize.py").write_text(ONLY_LOOPBACK)
    ran = subprocess.run(
        [sys.executable, str(V2 / name)],
        cwd=directory,
        env=client_environment(emulator) | {"PYTHONPATH": str(directory / "hooks")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_a_command_job(emulator: Endpoint, tmp_path: Path) -> None:
    output = run_program(emulator, tmp_path, "command_job.py")
    for line in (
        "Workspace name: emulator-ws",
        "Creating a new cpu compute target...",
        "Streaming user_logs/std_log.txt",
        "greeting hello\nepoch 1\nepoch 2",
        "ended JobStatus.COMPLETED first {'kind': 'sample'}",
        "listed True",
        "file artifacts/outputs/model.txt",
        "file artifacts/user_logs/std_log.txt",
        "file named-outputs/result/result é.txt",
        "content lr=0.25",
        "history [(0, 0.75), (1, 0.875)]",
        "artifacts ['outputs/model.txt']",
        "text lr=0.25",
    ):
        assert line in output
    assert "metrics {'Accuracy': 0.875, 'Number': 3.0, 'Twice': 6.0} {'lr': '0.25'} FINISHED" in output


@pytest.mark.slow
def test_a_sweep(emulator: Endpoint, tmp_path: Path) -> None:
    output = run_program(emulator, tmp_path, "sweep_job.py")
    for line in (
        "submitted JobStatus.RUNNING sweep",
        "Streaming azureml-logs/hyperdrive.txt",
        "The sweep is Completed.",
        "ended JobStatus.COMPLETED {} ['epochs', 'lr'] 3",
        "children ['_0', '_1', '_2'] True",
        "best JobStatus.COMPLETED True",
        "file True",
    ):
        assert line in output
