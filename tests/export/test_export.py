"""``trainer export``: real files, run in onnxruntime and read by safetensors."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Project
from trainer.errors import RunFailedError, TrainerError, UsageError
from trainer.export.exporting import ExportSettings, check, export
from trainer.modeluse.network import Network

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
safetensors = pytest.importorskip("safetensors")

NET = """
import chainer, numpy
import chainer.functions as F
import chainer.links as L

class Net(chainer.Chain):
    def __init__(self, n_out):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(3, 4, 3)
            self.bn = L.BatchNormalization(4)
            self.scale = L.Scale(1, (4,))
            self.out = L.Linear(None, n_out)

    def forward(self, x):
        h = self.scale(F.relu(self.bn(self.conv(x))))
        return self.out(F.max_pooling_2d(h, 2))

class Resized(Net):
    def forward(self, x):
        return super().forward(F.resize_images(x, x.shape[2:]))

class Counting(Net):
    def forward(self, x):
        return super().forward(x) + numpy.arange(len(x), dtype="f")[:, None]

class Averaging(Net):
    def forward(self, x):
        return super().forward(x) * float(F.mean(x).array)

class Remembering(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.lstm = L.LSTM(4, 3)

    def forward(self, x):
        self.lstm.reset_state()
        return self.lstm(x)

def make(shape, n_out):
    return Net(n_out)

def plain():
    return Net(3)

def resized():
    return Resized(3)

def counting():
    return Counting(3)

def averaging():
    return Averaging(3)

def remembering():
    return Remembering()
"""


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])


def no_store() -> Any:
    raise AssertionError("a file needs no registry")


@pytest.fixture(scope="module")
def fruit(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the model ``fruit:1``: a network of its own, trained on pictures in three classes."""
    top = tmp_path_factory.mktemp("export")
    project = Project(top / "project", top, top)
    random = np.random.default_rng(0)
    for name, colour in {"apple": (200, 30, 30), "lime": (40, 190, 50), "plum": (90, 30, 160)}.items():
        (project.path / "fruit" / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.array(colour) * random.uniform(0.4, 1) + random.integers(0, 60, (12, 10, 3))
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            picture.save(project.path / "fruit" / name / f"{number}.png")
    project.script(NET, "net.py")
    words = ("--dataset", "fruit", "--network", "net.py:make", "--epochs", "1", "--model-name", "fruit")
    ran = project.trainer("run", *words, "--batchsize", "8", "--seed", "1")
    assert ran.returncode == 0, ran.stderr
    return project


@pytest.fixture(scope="module")
def weights(fruit: Project) -> Path:
    """The same model as a file that nothing is known of."""
    [path] = (fruit.path / ".trainer" / "models").glob("**/model.npz")
    copy = fruit.path / "bare.npz"
    copy.write_bytes(path.read_bytes())
    return copy


def test_a_recorded_model_is_exported_by_its_record_alone(fruit: Project) -> None:
    done = fruit.trainer("export", "fruit", "--format", "onnx", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["path"], said["model"], said["inputs"]) == ("fruit-1.onnx", "fruit:1", "test examples of fruit")
    assert said["compared"] == 6
    assert 0 <= said["difference"] <= 1e-4
    opened = session(fruit.path / "fruit-1.onnx")
    kept = opened.get_modelmeta().custom_metadata_map
    assert json.loads(kept["classes"]) == ["apple", "lime", "plum"]
    assert json.loads(kept["input_shape"]) == [3, 12, 10]
    assert (kept["model"], kept["version"], kept["dataset"]) == ("fruit", "1", "fruit")
    # Another batch than any that was compared; and what trainer itself says of the pictures.
    pictures = [f"fruit/{name}/{number}.png" for name in ("apple", "lime", "plum") for number in range(11)]
    pixels = np.stack([np.asarray(Image.open(fruit.path / name), np.float32) for name in pictures])
    inputs = pixels.transpose(0, 3, 1, 2) / np.float32(255)
    [scores] = opened.run(None, {"input": inputs})
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    predicted = json.loads(fruit.trainer("predict", "fruit", *pictures, "--json").stdout)
    np.testing.assert_allclose(shares, [each["probabilities"] for each in predicted], atol=1e-5)


def test_the_written_file_is_neither_replaced_nor_touched_unasked(fruit: Project) -> None:
    target = fruit.path / "kept.onnx"
    target.write_text("mine")
    refused = fruit.trainer("export", "fruit", "--format", "onnx", "-o", "kept.onnx")
    assert (refused.returncode, target.read_text()) == (2, "mine")
    assert "kept.onnx exists" in refused.stderr
    beyond = fruit.trainer("export", "fruit", "--format", "onnx", "-o", "kept.onnx", "--force", "--tolerance", "1e-30")
    assert (beyond.returncode, target.read_text()) == (1, "mine")
    assert "differ by" in beyond.stderr
    assert sorted(path.name for path in fruit.path.iterdir() if "kept" in path.name) == ["kept.onnx"]


def test_a_file_with_the_function_that_builds_its_network(fruit: Project, weights: Path) -> None:
    target = fruit.path / "built.onnx"
    words = ("--model-file", "net.py:plain", "--input-shape", "3,12,10", "-o", str(target))
    done = fruit.trainer("export", "bare.npz", "--format", "onnx", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{target}\n"
    assert "over 256 random inputs" in done.stderr
    names = {tensor.name for tensor in onnx.load(target).graph.initializer}
    assert {"conv/W", "conv/b", "bn/gamma", "bn/avg_mean", "out/W"} <= names
    without = fruit.trainer("export", "bare.npz", "--format", "onnx", "-o", "none.onnx")
    assert without.returncode == 2
    assert "--model-file FILE.py:FUNCTION --input-shape" in without.stderr


@pytest.mark.parametrize(
    ("function", "shape", "why"),
    [
        ("resized", (3, 12, 10), "F.resize_images"),
        ("counting", (3, 12, 10), "another batch"),
        ("averaging", (3, 12, 10), "another batch"),
        ("plain", (3, 4, 4), "fails on an input of shape"),
        ("absent", (3, 12, 10), "There is no absent"),
    ],
)
def test_networks_that_would_come_out_wrong_are_refused(
    fruit: Project, weights: Path, function: str, shape: tuple[int, ...], why: str, tmp_path: Path
) -> None:
    settings = ExportSettings(
        format="onnx", output=tmp_path / "f.onnx", model_file=f"{fruit.path}/net.py:{function}", input_shape=shape
    )
    with pytest.raises(UsageError, match=why):
        export(str(weights), no_store, check(settings))
    assert list(tmp_path.iterdir()) == []


def test_a_function_that_onnx_chainer_does_not_know_is_named(fruit: Project, tmp_path: Path) -> None:
    size = {"upward/W": (12, 4), "upward/b": (12,), "lateral/W": (12, 3)}
    arrays: Any = {f"lstm/{name}": np.full(shape, 0.1, np.float32) for name, shape in size.items()}
    np.savez(tmp_path / "lstm.npz", **arrays)
    settings = ExportSettings(
        format="onnx", output=tmp_path / "f.onnx", model_file=f"{fruit.path}/net.py:remembering", input_shape=(4,)
    )
    with pytest.raises(UsageError, match="can't export LSTM"):
        export(str(tmp_path / "lstm.npz"), no_store, settings)


def layers(path: Path, *sizes: int, scale: float = 0.1) -> dict[str, Any]:
    """Write random layers, as the included script does; the last without a bias."""
    random = np.random.default_rng(1)
    arrays: dict[str, Any] = {}
    for number, (given, made) in enumerate(pairwise(sizes), 1):
        arrays[f"l{number}/W"] = random.normal(0, scale, (made, given)).astype(np.float32)
        if number < len(sizes) - 1:
            arrays[f"l{number}/b"] = random.normal(0, scale, made).astype(np.float32)
    np.savez(path, **arrays)
    return arrays


def test_the_included_scripts_network_needs_no_chainer(tmp_path: Path) -> None:
    arrays = layers(tmp_path / "model.npz", 784, 30, 20, 10)
    code = (
        "import sys\nsys.modules['chainer'] = None\nfrom trainer.cli import main\n"
        "sys.exit(main(['export', 'model.npz', '--format', 'onnx', '--json']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["difference"] <= 1e-5
    opened = session(tmp_path / "model.onnx")
    inputs = np.random.default_rng(2).random((11, 784), np.float32)
    network = Network.from_arrays(arrays, "model")
    np.testing.assert_allclose(opened.run(None, {"input": inputs})[0], network.scores(inputs), atol=1e-5)
    assert opened.run(None, {"input": inputs[:1]})[0].shape == (1, 10)
    model = onnx.load(tmp_path / "model.onnx")
    assert {node.op_type for node in model.graph.node} == {"Gemm", "Relu"}
    assert [value.name for value in model.graph.input] == ["input"]


def test_scores_too_large_for_the_bound_are_explained(tmp_path: Path) -> None:
    layers(tmp_path / "model.npz", 784, 500, 500, 10, scale=4.0)
    settings = ExportSettings(format="onnx", output=tmp_path / "model.onnx")
    with pytest.raises(RunFailedError, match="scores differ by") as caught:
        export(str(tmp_path / "model.npz"), no_store, settings)
    assert "--tolerance" in caught.value.hint
    assert not (tmp_path / "model.onnx").exists()


def test_safetensors_are_the_same_bits(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "l1/W": np.asfortranarray(random.normal(size=(5, 7)).astype(np.float32)),
        "l1/b": random.normal(size=5).astype(">f4"),
        "bn/N": np.array(12),
        "half": random.normal(size=(2, 3)).astype(np.float16),
        "odd": np.array([np.nan, -0.0, np.inf]),
        "flags": np.array([True, False]),
        "none": np.zeros((0, 3), np.float32),
    }
    np.savez(tmp_path / "m.npz", **arrays)
    done = export(str(tmp_path / "m.npz"), no_store, ExportSettings(format="safetensors", output=tmp_path))
    assert done.path == tmp_path / "m.safetensors"
    with safetensors.safe_open(done.path, "np") as opened:
        assert set(opened.keys()) == set(arrays)
        assert opened.metadata()["model"] == "m"
        for name, array in arrays.items():
            found = opened.get_tensor(name)
            assert (found.shape, found.dtype) == (array.shape, array.dtype.newbyteorder("="))
            assert found.tobytes() == array.astype(found.dtype).tobytes(), name


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"input_shape": (3,)}, "--input-shape is for --model-file"),
        ({"model_file": "net.py:plain"}, "needs --input-shape"),
        ({"model_file": "net.py:plain", "network": "net.py:make", "input_shape": (3,)}, "exclude each other"),
        ({"format": "safetensors", "network": "net.py:make"}, "no network"),
        ({"tolerance": float("nan")}, "above 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    fruit: Project, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], why: str
) -> None:
    monkeypatch.chdir(fruit.path)
    with pytest.raises(TrainerError, match=why):
        check(ExportSettings(**({"format": "onnx"} | options)))
