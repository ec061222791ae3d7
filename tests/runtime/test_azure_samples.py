"""Azure's own Chainer samples, verbatim: the scripts, in every version, where a folder of them is given.

    TRAINER_AZURE_SAMPLES=FOLDER pytest tests/runtime/test_azure_samples.py

FOLDER has one folder per version, with ``chainer_mnist.py`` and its neighbours in MachineLearningNotebooks.
The scripts declare ``--gpu_id`` without a type and use GPU 0 by default, so where there is no GPU a file beside them
supplies the type, and nothing else.
"""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Project

FOLDER = os.environ.get("TRAINER_AZURE_SAMPLES", "")
NAMES = ("chainer_mnist.py", "chainer_mnist_hd.py")
SCRIPTS = sorted(path for name in NAMES for path in Path(FOLDER).glob(f"*/{name}")) if FOLDER else []

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not SCRIPTS, reason="TRAINER_AZURE_SAMPLES names no folder of them")]

WITH_A_TYPE = """
import argparse
import runpy
import sys

add_argument = argparse.ArgumentParser.add_argument


def with_type(self, *names, **options):
    if "--gpu_id" in names:
        options["type"] = int
    return add_argument(self, *names, **options)


argparse.ArgumentParser.add_argument = with_type
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_script_trains(script: Path, tmp_path: Path, tiny_data: Path) -> None:
    project = Project(tmp_path / "project", tiny_data, tmp_path)
    for path in script.parent.glob("*.py"):
        shutil.copy(path, project.path)
    project.script(WITH_A_TYPE, "with_a_type.py")
    has_gpu_id = "--gpu_id" in script.read_text()
    options = ["--epochs", "2", "--output_dir", "./outputs", *(["--gpu_id", "-1"] if has_gpu_id else [])]
    name = tiny_data.parent / "mnist"
    shutil.copytree(tiny_data, name, dirs_exist_ok=True)
    ran = project.trainer(
        "run", "--script", "with_a_type.py", "--dataset", str(name), "--json", "--", script.name, *options
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["status"] == "Completed"
    assert {"Accuracy", "Batch size", "Epochs"} <= set(found["metrics"])
    saves = "save_npz" in script.read_text()
    assert (found["model"] is not None) == saves


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_remains_is_the_scripts_own_fault(script: Path, tmp_path: Path, tiny_data: Path) -> None:
    if "--gpu_id" not in script.read_text():
        pytest.skip("this version has no --gpu_id")
    project = Project(tmp_path / "project", tiny_data, tmp_path)
    for path in script.parent.glob("*.py"):
        shutil.copy(path, project.path)
    words = ["run", "--script", script.name, "--dataset", str(tiny_data), "--json", "--"]
    ran = project.trainer(*words, "--epochs", "1", "--gpu_id", "-1")
    assert ran.returncode == 1
    assert "not supported between instances of 'str' and 'int'" in json.loads(ran.stdout)["failure"]["message"]
    assert "type=int" in ran.stderr
