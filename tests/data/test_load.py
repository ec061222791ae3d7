"""Which data set a script gets, in a job and outside one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trainer
from trainer.runtime.layout import JOB_DIR

Ask = Callable[..., str]
PROGRAM = """
import sys
from trainer.runtime import datasets
from trainer.runtime.faults import RuntimeFault
try:
    print(datasets.load(*sys.argv[1:]).name)
except RuntimeFault as fault:
    print(f"{fault.message} | {fault.hint}")
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job's folder as it lies on a node: the runtime and nothing else of this package."""
    root = tmp_path / "job"
    package = Path(trainer.__file__).parent
    target = root / JOB_DIR / "trainer"
    shutil.copytree(package / "runtime", target / "runtime", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(package / "__init__.py", target)
    return root


@pytest.fixture
def ask(job: Path) -> Ask:
    def run(*arguments: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(job / JOB_DIR)}
        # -S would hide NumPy; the editable install is hidden by the path's order.
        command = [sys.executable, "-c", PROGRAM, *arguments]
        return subprocess.run(
            command, cwd=job, env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    return run


@pytest.mark.parametrize("asked", ["auto", "small", "/home/somebody/data/small"])
def test_a_job_uses_what_travelled(job: Path, ask: Ask, contents: Any, write: Any, asked: str) -> None:
    write(job / JOB_DIR / "data" / "small", contents, compressed=True)
    assert ask(asked) == "small"


def test_a_job_does_not_train_on_another_set_than_asked_for(job: Path, ask: Ask, contents: Any, write: Any) -> None:
    write(job / JOB_DIR / "data" / "small", contents)
    answer = ask("mnist")
    assert "asks for the data set 'mnist', and this job carries 'small'" in answer
    assert "--dataset mnist" in answer


def test_a_directory_of_the_snapshot_is_used_as_it_is(job: Path, ask: Ask, contents: Any, write: Any) -> None:
    write(job / JOB_DIR / "data" / "small", contents)
    write(job / "mine", contents)
    assert ask("mine") == "mine"


def test_a_node_without_data_says_so(ask: Ask) -> None:
    assert "No data set travelled with this job, and 'auto' is no directory here" in ask()
    assert "no directory here" in ask("fashion-mnist")


def test_a_name_is_never_a_directory(
    tmp_path: Path, contents: Any, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.runtime import datasets
    from trainer.runtime.faults import RuntimeFault

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINER_DATA_MIRRORS", "off")
    write(tmp_path / "mnist", contents)
    with pytest.raises(RuntimeFault, match="No mirror of mnist answers"):
        datasets.load("mnist")
    assert datasets.load("./mnist").name == "mnist"
    assert datasets.load(Path("mnist")).name == "mnist"
