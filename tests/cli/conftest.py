"""Real ``trainer`` processes in a project of their own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "trainer"]


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """No setting of this machine, no network, one thread."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRAINER_", "AZUREML_", "XDG_"))}
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        kept.pop(name, None)
    fixed = {
        "HOME": str(home),
        "TRAINER_DATA_MIRRORS": "off",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONWARNINGS": "default",
    }
    return kept | fixed | more


class Project:
    """A directory with a pyproject.toml, and ``trainer`` run in it."""

    def __init__(self, path: Path, data: Path, home: Path) -> None:
        self.path, self.data, self.command = path, data, COMMAND
        self.environment = clean_environment(home)
        path.mkdir(exist_ok=True)
        (path / "pyproject.toml").touch()

    @property
    def runs(self) -> Path:
        return self.path / ".trainer" / "runs"

    def trainer(self, *words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        environment = self.environment | options.pop("env", {})
        return subprocess.run(
            [*options.pop("command", self.command), *words],
            cwd=self.path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            **options,
        )

    def start(self, *words: str, **options: Any) -> "subprocess.Popen[str]":
        environment = self.environment | options.pop("env", {})
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | options
        return subprocess.Popen([*self.command, *words], cwd=self.path, env=environment, text=True, **pipes)

    def train(self, *words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        return self.trainer(
            "run", "--dataset", str(self.data), "--epochs", "2", "--seed", "1", "--lr", "0.1", *words, **options
        )

    def script(self, text: str, name: str = "script.py") -> str:
        (self.path / name).write_text(text)
        return name


@pytest.fixture
def project(tmp_path: Path, tiny_data: Path) -> Project:
    return Project(tmp_path / "project", tiny_data, tmp_path)


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Project:
    """A project with one finished, registered run. Nobody changes it."""
    top = tmp_path_factory.mktemp("trained")
    project = Project(top / "project", tiny_data, top)
    ran = project.train("--json", "--tag", "colour=blue")
    assert ran.returncode == 0, ran.stderr
    (top / "run.json").write_text(ran.stdout)
    return project


@pytest.fixture
def trained(trained_once: Project, tmp_path: Path) -> Project:
    """A copy of that project, to do anything with."""
    project = Project(tmp_path / "project", trained_once.data, tmp_path)
    shutil.copytree(trained_once.path / ".trainer", project.path / ".trainer", symlinks=True)
    return project
