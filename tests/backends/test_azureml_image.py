"""The Dockerfile's own install steps, run for real in a fresh virtual environment, and an epoch trained there.

What is not run: the base image, and conda making the interpreter; this Python stands in for it.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from backends.azure.image import Pins, find_pins, make_environment
from tests.backends.test_azureml_offline import instructions
from trainer.snapshot import Snapshot, build_snapshot, default_script

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
CONSTRAINTS = "/tmp/build-constraints.txt"


def index_answers(python: Path) -> bool:
    """Whether pip, as it is configured here, gets an answer from its index."""
    words = [str(python), "-m", "pip", "download", "--no-deps", "--quiet", "--timeout", "10", "--retries", "0"]
    done = subprocess.run([*words, "six==1.17.0"], cwd=python.parent, capture_output=True, check=False, timeout=120)
    return done.returncode == 0


def test_the_install_steps_make_an_environment_that_trains(tmp_path: Path, tiny_data: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    if not index_answers(python):
        pytest.skip("no package index can be reached")
    data = {path.name: path for path in tiny_data.iterdir()}
    snapshot = build_snapshot(default_script()).with_dataset("tiny", data)
    snapshot.stage(tmp_path / "work")
    image = make_environment(_pins(snapshot), None)
    # /tmp is the image's own; here it is everyone's.
    mine = {CONSTRAINTS: str(tmp_path / "build-constraints.txt")}
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "VIRTUAL_ENV": str(tmp_path / "venv")}
    for name in ("PYTHONPATH", "PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT"):
        variables.pop(name, None)
    steps = [line for line in instructions(image.dockerfile, "RUN") if not line.startswith("conda ")]
    assert len(steps) == 4
    for step in steps:
        for theirs, ours in mine.items():
            step = step.replace(theirs, ours)
        done = subprocess.run(
            ["sh", "-c", step], env=variables, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, f"{shlex.join(shlex.split(step)[:4])}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    launcher = "_trainer_job/trainer/runtime/launch.py"
    words = ["python", launcher, "chainer_mnist.py", "--epochs", "1", "--batchsize", "32", "--device", "cpu"]
    variables |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([str(python), *words[1:]], env=variables, cwd=tmp_path / "work", check=True, timeout=300)
    assert (tmp_path / "work" / "outputs" / "model.npz").stat().st_size > 0
    listing = "import json; from importlib.metadata import version as v; import azureml.core.run; "
    listing += f"print(json.dumps({{name: v(name) for name in {list(image.pins.packages)!r}}}))"
    found = subprocess.run([str(python), "-c", listing], env=variables, capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == image.pins.packages


def _pins(snapshot: Snapshot) -> Pins:
    sources = [file.source for file in snapshot.files if file.path.endswith(".py")]
    return find_pins(sources, {"trainer"}, None)


def test_the_file_names_this_python() -> None:
    found = find_pins([], [], None)
    (step,) = [
        line
        for line in instructions(make_environment(found, None).dockerfile, "RUN")
        if line.startswith("conda create")
    ]
    assert f"python={'.'.join(map(str, sys.version_info[:3]))}" in step.split()
