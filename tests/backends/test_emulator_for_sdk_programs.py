"""``trainer emulator`` for programs that know nothing of this project: plain SDK scripts, plain Chainer jobs."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from azureml_emulator import find

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "tests" / "emulator" / "programs" / "tutorial.py"
# What the tutorial's script does, on ten images: a Chainer of 2019 and its Trainer, and the SDK's run.
TRAIN = """\
import argparse, os
import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from azureml.core.run import Run
from chainer import training
from chainer.training import extensions

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int)
parser.add_argument("--batchsize", type=int)
parser.add_argument("--output_dir")
arguments = parser.parse_args()
run = Run.get_context(allow_offline=False)
run.log("Batch size", np.int(arguments.batchsize))
images = np.random.rand(10, 784).astype(np.float32)
data = chainer.datasets.TupleDataset(images, np.arange(10, dtype=np.int32))
model = L.Classifier(L.Linear(784, 10))
optimizer = chainer.optimizers.Adam()
optimizer.setup(model)
updater = training.StandardUpdater(chainer.iterators.SerialIterator(data, 5), optimizer)
trainer = training.Trainer(updater, (2, "epoch"), out=arguments.output_dir)
trainer.extend(extensions.LogReport())
trainer.run()
for epoch in range(arguments.epochs):
    run.log("Accuracy", 0.5)
    print("epoch", epoch + 1, flush=True)
chainer.serializers.save_npz(os.path.join(arguments.output_dir, "model.npz"), model)
"""


def command(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trainer", "emulator", *arguments],
        env=os.environ | {"TRAINER_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home whose emulator is stopped at the end."""
    yield tmp_path / "home"
    endpoint = find(tmp_path / "home" / "emulator")
    if endpoint is not None:
        endpoint.stop()


def environment(exports: str) -> dict[str, str]:
    lines = [shlex.split(line) for line in exports.splitlines()]
    return dict(words[1].split("=", 1) for words in lines)


@pytest.mark.slow
def test_the_tutorial_as_it_stands(home: Path, tmp_path: Path) -> None:
    started = command("--print-env", "--offer-retired-sizes", home=home)
    assert started.returncode == 0, started.stderr
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "train.py").write_text(TRAIN)
    endpoint = find(home / "emulator")
    assert endpoint is not None
    endpoint.write_config(tmp_path)
    ran = subprocess.run(
        [sys.executable, str(TUTORIAL), str(tmp_path / "job"), "STANDARD_NC6"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], **environment(started.stdout)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "epoch 10" in ran.stdout
    assert "chainer-dnn-mnist:1" in ran.stdout
    # The layer is for Chainer: what the run has is what its script has made.
    assert "environment.json" not in ran.stdout


@pytest.mark.slow
def test_the_refusal_of_the_tutorial_s_size_names_the_switch_that_the_command_has(home: Path, tmp_path: Path) -> None:
    started = command("--print-env", home=home)
    program = (
        "import sys; from azureml.core import Workspace; from azureml.core.compute import AmlCompute, ComputeTarget;"
        "size = AmlCompute.provisioning_configuration(vm_size=sys.argv[1], max_nodes=1);"
        "ComputeTarget.create(Workspace.from_config(), 'c', size).wait_for_completion()"
    )
    endpoint = find(home / "emulator")
    assert endpoint is not None
    endpoint.write_config(tmp_path)
    variables = {"PATH": os.environ["PATH"], **environment(started.stdout)}
    results = {
        size: subprocess.run(
            [sys.executable, "-c", program, size],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            timeout=600,
        )
        for size in ("STANDARD_NC6", "STANDARD_D2_V2")
    }
    assert results["STANDARD_NC6"].returncode == 1
    assert "--offer-retired-sizes" in results["STANDARD_NC6"].stderr
    assert results["STANDARD_D2_V2"].returncode == 0, results["STANDARD_D2_V2"].stderr
    assert "--offer-retired-sizes" in command("--help", home=home).stdout
    # The one that runs was started without it.
    again = command("--print-env", "--offer-retired-sizes", home=home)
    assert again.returncode == 4, again.stderr
    assert again.stdout == ""
    assert "was started with another offer_retired_sizes" in again.stderr
    assert command("--print-env", home=home).stdout == started.stdout
