"""Public samples for SDK v2 as plain programs: nothing but environment variables, and no network but loopback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from azureml_emulator import Emulator, Endpoint, Settings
from tests.emulator.clients import PROGRAMS, client_environment
from tests.emulator.test_tutorial import ONLY_LOOPBACK
from trainer.serving.settings import SCORING_SERVER

V2 = PROGRAMS / "v2"
Run = Callable[[str], str]


@pytest.fixture(scope="module")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ends every Python that looks further than loopback: the programs' and their jobs'."""
    directory = tmp_path_factory.mktemp("hooks")
    (directory / "sitecustomize.py").write_text(ONLY_LOOPBACK)
    return directory


@pytest.fixture(scope="module")
def emulator(hooks: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """An emulator whose jobs are watched."""
    settings = Settings(phase_duration=0.0, job_site=hooks, scoring_server=SCORING_SERVER)
    with Emulator(tmp_path_factory.mktemp("state"), settings=settings) as endpoint:
        yield endpoint
        assert endpoint.unknown_requests() == []


@pytest.fixture
def run_program(emulator: Endpoint, hooks: Path, tmp_path: Path) -> Run:
    """Run a program with what a user has: the emulator's variables and its config.json."""

    def run(name: str) -> str:
        emulator.write_config(tmp_path)
        ran = subprocess.run(
            [sys.executable, str(V2 / name)],
            cwd=tmp_path,
            env=client_environment(emulator) | {"PYTHONPATH": str(hooks)},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    return run


@pytest.mark.slow
def test_a_command_job(run_program: Run) -> None:
    output = run_program("command_job.py")
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
def test_a_sweep(run_program: Run) -> None:
    output = run_program("sweep_job.py")
    # The SDK streams nothing of a sweep that ends before it has begun to look, so its log is not asked for.
    for line in (
        "submitted JobStatus.RUNNING sweep",
        "ended JobStatus.COMPLETED {} ['epochs', 'lr'] 3",
        "children ['_0', '_1', '_2'] True",
        "best JobStatus.COMPLETED True",
        "file True",
    ):
        assert line in output


@pytest.mark.slow
def test_an_online_endpoint(run_program: Run) -> None:
    output = run_program("online_endpoint.py")
    for line in (
        "endpoint digits-endpoint EndpointProvisioningState.SUCCEEDED key {'kind': 'sample'}",
        "blue DeploymentProvisioningState.SUCCEEDED Standard_DS3_v2 1 digits-model/versions/1",
        'answer {"model": "first", "sum": 6, "greeting": "hello"}',
        'plain {"model": "first", "sum": 4, "greeting": "hello"}',
        "log True",
        "both 2",
        'green {"model": "second", "sum": 6, "greeting": null}',
        "refused True",
        "deployments ['green']",
        "traffic {'green': 100}",
        "failed True True",
        "why True",
        "state DeploymentProvisioningState.FAILED",
        "keys True True",
        "listed ['digits-endpoint']",
        "deleted",
    ):
        assert line in output
