"""A user's own packages called trainer and backends, wherever Python looks first, don't get in the command's way."""

import json
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Project

SCRIPT = """
from pathlib import Path
import backends, trainer
assert backends.MINE and trainer.MINE
Path("outputs").mkdir(exist_ok=True)
Path("outputs/done").touch()
"""


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A directory of packages that no command of ours may import."""
    for name in ("trainer", "backends"):
        package = tmp_path / "code" / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("MINE = True\n")
    return tmp_path / "code"


def command() -> str:
    """The console script of the environment that runs the tests."""
    return str(Path(sys.executable).with_name("trainer"))


@pytest.mark.slow
def test_on_pythonpath(project: Project, packages: Path) -> None:
    project.environment["PYTHONPATH"] = str(packages)
    ran = project.train("--json", command=[command()])
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["model"]["version"] == 1
    for words in (["runs"], ["models"], ["doctor"], ["show", "latest"], ["--help"], ["config"]):
        done = project.trainer(*words, command=[command()])
        assert done.returncode == 0, (words, done.stderr)
        assert done.stdout


def test_beside_python_m_trainer(project: Project, packages: Path) -> None:
    (packages / "backends").rename(project.path / "backends")
    ran = project.train("--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["status"] == "Completed"


def test_a_script_still_imports_its_own(project: Project, packages: Path) -> None:
    for name in ("trainer", "backends"):
        (packages / name).rename(project.path / name)
    ran = project.trainer("run", "--script", project.script(SCRIPT), "--json", command=[command()])
    assert ran.returncode == 0, ran.stderr
    assert "done" in [
        Path(name).name
        for name in json.loads(project.trainer("show", "latest", "--json", command=[command()]).stdout)["files"]
    ]
