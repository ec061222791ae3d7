"""A user id without a passwd entry and without HOME, as in containers, cron jobs and CI."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Project

# The id is faked: a real one needs root, and an interpreter that others may read.
PROGRAM = """
import os, sys
os.getuid = lambda: 3_999_999_999
from trainer.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def homeless(project: Project) -> Project:
    del project.environment["HOME"]
    project.command = [sys.executable, "-c", PROGRAM]
    return project


def words(ran: "subprocess.CompletedProcess[str]") -> str:
    assert "bug in trainer" not in ran.stderr
    return ran.stdout + ran.stderr


def test_what_needs_no_home_works(homeless: Project) -> None:
    assert "config.toml" not in words(homeless.trainer("config"))
    script = homeless.script("open('outputs/x.txt', 'w').close()")
    (homeless.path / "outputs").mkdir()
    ran = homeless.trainer("run", "--script", script, "--dataset", "none")
    assert ran.returncode == 0, ran.stderr
    assert "Completed" in words(homeless.trainer("runs"))
    ran = homeless.train("--epochs", "1")
    assert ran.returncode == 0, ran.stderr


def test_the_cache_asks_for_a_place_only_when_it_is_needed(homeless: Project, tmp_path: Path) -> None:
    for command in (("data", "list"), ("data", "download", "mnist-5k"), ("run", "--dataset", "mnist-5k")):
        ran = homeless.trainer(*command)
        assert ran.returncode == 3, command
        assert ran.stderr == (
            "error: There is no home directory to keep data sets in.\n"
            "hint: Set TRAINER_DATA_DIR to a directory that can be written.\n"
        )
    doctor = words(homeless.trainer("doctor"))
    assert "There is no home directory to keep data sets in." in doctor
    assert "fix: Set TRAINER_DATA_DIR to a directory that can be written." in doctor
    place = {"TRAINER_DATA_DIR": str(tmp_path / "data")}
    assert homeless.trainer("data", "list", env=place).returncode == 0
    assert homeless.trainer("doctor", env=place).returncode == 0
    # A directory that holds a data set itself is enough for what uses it.
    given = homeless.trainer("data", "list", env={"TRAINER_DATA_DIR": str(homeless.data)})
    assert given.returncode == 0, given.stderr


def test_a_tilde_without_a_home_is_told(homeless: Project) -> None:
    ran = homeless.trainer("runs", env={"TRAINER_HOME": "~/runs"})
    assert (ran.returncode, ran.stderr) == (
        3,
        "error: ~/runs: there is no home directory for ~.\nhint: Write the path out.\n",
    )
