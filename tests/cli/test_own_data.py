"""Data and networks of the user's own with the bundled script, through the command line."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Project
from trainer.request import JobRequest
from trainer.snapshot import default_script

NETWORKS = """\
import chainer
import chainer.functions as F
import chainer.links as L


def make(shape, n_out):
    return chainer.Sequential(L.Convolution2D(None, 4, 3), F.relu, L.Linear(None, n_out))


def too_many(shape, n_out):
    return chainer.Sequential(L.Linear(None, n_out + 1))


def raises(shape, n_out):
    raise ValueError("no such layer")
"""


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with pictures in three classes, and a model of them: ``colours:1``."""
    top = tmp_path_factory.mktemp("colours")
    project = Project(top / "project", top, top)
    random = np.random.default_rng(0)
    for number, name in enumerate(("blue", "green", "red")):
        folder = project.path / "colours" / name
        folder.mkdir(parents=True)
        for picture in range(10):
            values = random.integers(0, 60, (6, 6, 3), np.uint8)
            values[..., 2 - number] += 180
            Image.fromarray(values).save(folder / f"{picture}.png")
    (project.path / "net.py").write_text(NETWORKS)
    ran = project.trainer("run", "--dataset", "colours", "--epochs", "30", "--batchsize", "8", "--json")
    assert ran.returncode == 0, ran.stderr
    (project.path / "run.json").write_text(ran.stdout)
    return project


def test_experiment_and_model_are_named_after_the_data(colours: Project) -> None:
    run = json.loads((colours.path / "run.json").read_text())
    assert run["experiment"] == "colours"
    assert run["model"]["name"] == "colours"
    request = JobRequest(dataset=str(colours.path / "colours"), experiment="e", model_name=None)
    assert request.named(default_script()) == request


def test_a_batch_larger_than_the_data_is_refused_before_there_is_a_run(colours: Project) -> None:
    runs = sorted(colours.runs.iterdir())
    refused = colours.trainer("run", "--dataset", "colours")
    assert refused.returncode == 2
    assert "--batchsize 128 is more than the 24 training examples of colours." in refused.stderr
    assert "--batchsize 6" in refused.stderr
    assert sorted(colours.runs.iterdir()) == runs


def test_next_is_what_works(colours: Project) -> None:
    shown = colours.trainer("show", "latest").stdout
    assert "trainer evaluate colours:1" in shown
    assert "trainer predict colours:1" in shown
    found = colours.trainer("evaluate", "colours:1", "--json")
    assert json.loads(found.stdout)["accuracy"] == 1
    said = colours.trainer("predict", "colours:1", "colours/red/3.png", "colours/blue/7.png")
    assert [line.split()[1] for line in said.stdout.splitlines()[1:]] == ["red", "blue"]


def test_a_network_of_ones_own_is_trained_used_and_resumed(colours: Project) -> None:
    ran = colours.trainer(
        "run", "--dataset", "colours", "--network", "net.py:make", "--epochs", "30", "--batchsize", "8", "--json",
        "--model-name", "cnn",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    run = json.loads(ran.stdout)
    assert json.loads(colours.trainer("evaluate", "cnn", "--json").stdout)["accuracy"] == 1
    assert colours.trainer("predict", "cnn", "colours/green/1.png").stdout.splitlines()[1].split()[1] == "green"
    resumed = colours.trainer("resume", run["run_id"], "--json", "--", "--epochs", "31")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["metrics"]["Epochs"] == 31


def test_a_missing_function_is_seen_before_there_is_a_run(colours: Project) -> None:
    runs = sorted(colours.runs.iterdir())
    refused = colours.trainer("run", "--dataset", "colours", "--network", "net.py:mak")
    assert refused.returncode == 2
    assert "net.py has no function 'mak'." in refused.stderr
    assert "Did you mean net.py:make?" in refused.stderr
    (colours.path / "faulty.py").write_text("import chainer\ndef make(shape, n_out) return None\n")
    refused = colours.trainer("run", "--dataset", "colours", "--network", "faulty.py:make")
    assert "faulty.py, line 2, is not Python: " in refused.stderr
    assert sorted(colours.runs.iterdir()) == runs


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("too_many", "gives shape (2, 4) for two examples; it must give scores of shape (2, 3)"),
        ("raises", "fails for examples of shape (3, 6, 6) and 3 classes (line 15): ValueError: no such layer"),
    ],
)
def test_a_faulty_network_ends_with_a_line_before_training(colours: Project, name: str, complaint: str) -> None:
    ran = colours.trainer("run", "--dataset", "colours", "--network", f"net.py:{name}", "--batchsize", "8")
    assert ran.returncode == 1, ran.stderr
    assert complaint in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "epoch 1" not in ran.stderr


def test_idx_files_that_can_stand_in_for_mnist_keep_the_tutorials_names(tiny_data: Path, tmp_path: Path) -> None:
    table = tmp_path / "My table (2).csv"
    table.write_text("a,b,label\n1,2,x\n")
    for data, names in (
        (tiny_data, ("chainer-mnist", "chainer-dnn-mnist")),
        ("auto", ("chainer-mnist", "chainer-dnn-mnist")),
        (table, ("My-table-2", "My-table-2")),
    ):
        request = JobRequest(dataset=str(data)).named(default_script())
        assert (request.experiment, request.model_name) == names


def test_what_the_included_script_would_refuse_is_refused_before_there_is_a_run(colours: Project) -> None:
    runs = sorted(colours.runs.iterdir())
    for words, complaint in (
        (("--bogus", "3"), "chainer_mnist.py: unrecognized arguments: --bogus 3."),
        (("--epochs", "0"), "argument --epochs/-e: 0 is not a whole number of at least 1."),
    ):
        refused = colours.trainer("run", "--dataset", "colours", "--batchsize", "8", "--", *words)
        assert refused.returncode == 2
        assert complaint in refused.stderr
    assert sorted(colours.runs.iterdir()) == runs


def test_a_small_data_set_is_tuned_with_a_batch_that_fits(colours: Project) -> None:
    words = ("tune", "--dataset", "colours", "--trials", "1", "--no-register", "--json")
    for more in (("--space", "lr=0.1", "--", "--epochs", "1", "-b", "8"), ("--space", "batchsize=8", "--", "-e", "1")):
        ran = colours.trainer(*words, *more)
        assert ran.returncode == 0, ran.stderr
    for more, complaint in (
        (("--space", "batchsize=8,60"), "--batchsize 60 is more than the 24 training examples of colours."),
        (("--space", "lr=0.1,0.2", "--", "--lr=0.3"), "--lr is in the space, and among the script's arguments."),
    ):
        refused = colours.trainer(*words, *more)
        assert refused.returncode == 2
        assert complaint in refused.stderr


def test_a_file_of_another_kind_is_named(colours: Project) -> None:
    (colours.path / "t.csv").write_text("a,label\n1,x\n2,y\n")
    refused = colours.trainer("evaluate", "colours", "--dataset", "t.csv")
    assert refused.returncode == 2
    assert "t.csv is a table, and the model was trained on pictures." in refused.stderr


def test_coloured_idx_files_are_trained_on(colours: Project) -> None:
    folder = colours.path / "rgb"
    folder.mkdir()
    random = np.random.default_rng(0)
    for part, count in (("train", 40), ("t10k", 8)):
        # 32-bit big-endian sizes behind the number of dimensions, as docs/data.md writes them.
        labels = np.arange(count, dtype=np.uint8) % 2
        images = random.integers(0, 60, (count, 4, 5, 3), np.uint8)
        images[labels == 1, :, :, 0] += 180
        for name, values in ((f"{part}-images-idx4-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
            (folder / name).write_bytes(header + values.tobytes())
    ran = colours.trainer("run", "--dataset", "rgb", "--epochs", "8", "--batchsize", "8", "--lr", "0.05", "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["metrics"]["Accuracy"] == 1
    Image.new("RGB", (5, 4), (220, 20, 20)).save(colours.path / "red.png")
    said = colours.trainer("predict", "rgb", "red.png")
    assert said.returncode == 2
    assert "red.png is not an npy file." in said.stderr
