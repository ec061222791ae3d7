"""The SDK's telemetry stays off, even where its file in site-packages says that it is on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).parent / "programs" / "flipped_telemetry.py"
JOB = """
from azureml.telemetry import get_diagnostics_collection_info, get_telemetry_log_handler
print(*get_diagnostics_collection_info(), type(get_telemetry_log_handler()).__name__)
"""


def run(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRAINER_", "AZUREML_", "HBI_"))}
    return subprocess.run(
        [sys.executable, str(PROGRAM), *words],
        cwd=folder,
        env=kept | {"HOME": str(folder), "PYTHONPATH": str(ROOT)} | more,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_file_that_was_flipped_switches_it_on_without_us(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text("import os\ndel os.environ['HBI_WORKSPACE_JOB']\n" + JOB)
    ran = run(tmp_path, "--script", "job.py")
    assert ran.stdout == "True DEBUG AppInsightsLoggingHandler\n", ran.stderr


def test_in_a_job_it_is_off(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    ran = run(tmp_path, "--script", "job.py")
    assert ran.stdout == "False NOTSET NullHandler\n", ran.stderr
    assert "asked:\n" in ran.stderr


@pytest.mark.slow
def test_a_client_and_its_emulator_and_its_job_ask_for_nothing_but_loopback(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(f"import os\nprint('set:', os.environ['HBI_WORKSPACE_JOB'])\n{JOB}")
    words = ("run", "--backend", "azureml", "--emulator", "--script", "job.py", "--logs", "--dataset", "none")
    try:
        ran = run(tmp_path, *words, TRAINER_HOME=str(tmp_path / "home"))
    finally:
        stop(tmp_path / "home" / "emulator")
    assert "exit: 0\n" in ran.stderr, ran.stderr
    assert "asked: 127.0.0.1\n" in ran.stderr
    log = next((tmp_path / "home" / "runs").glob("*/logs/std_log.txt")).read_text()
    assert "set: true\n" in log
    assert "NullHandler" in log


def stop(state: Path) -> None:
    from azureml_emulator import find

    endpoint = find(state)
    if endpoint is not None:
        endpoint.stop()
