"""get_mnist() and get_fashion_mnist() of user scripts: which bytes they return."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

import trainer
from trainer.runtime import compat, datasets
from trainer.runtime.compat import datasets as layer
from trainer.runtime.faults import RuntimeFault

compat.apply()

import chainer  # noqa: E402

SHOW = """
import chainer
train, test = chainer.datasets.{function}(ndim=3)
image, label = train[1]
print(len(train), len(test), image.shape, image.dtype, label.dtype, int(label), float(image.max()) <= 1)
"""


def job(folder: Path, script: str, data: Path | None, name: str = "mnist") -> subprocess.CompletedProcess[str]:
    """Runs a script in a folder laid out as a snapshot is."""
    runtime = folder / "_trainer_job" / "trainer"
    runtime.mkdir(parents=True)
    source = Path(trainer.__file__).parent
    shutil.copy(source / "__init__.py", runtime)
    shutil.copytree(source / "runtime", runtime / "runtime", ignore=shutil.ignore_patterns("__pycache__"))
    if data is not None:
        shutil.copytree(data, folder / "_trainer_job" / "data" / name)
    (folder / "script.py").write_text(script)
    return subprocess.run(
        [sys.executable, "_trainer_job/trainer/runtime/launch.py", "script.py"],
        cwd=folder,
        env={**os.environ, "CHAINER_DATASET_ROOT": str(folder / "chainer")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_job_gets_the_data_set_that_travelled(tmp_path: Path, tiny_data: Path) -> None:
    done = job(tmp_path, SHOW.format(function="get_mnist"), tiny_data)
    assert done.stdout == "512 128 (1, 28, 28) float32 int32 1 True\n", done.stderr
    assert "warning" not in done.stderr.lower()
    assert not (tmp_path / "chainer").exists()


def test_a_job_with_other_images_says_so(tmp_path: Path, tiny_data: Path) -> None:
    done = job(tmp_path, SHOW.format(function="get_mnist"), tiny_data, name="mnist-5k")
    assert done.stdout.startswith("512 128 "), done.stderr
    assert "script.py:3: UserWarning: get_mnist() returns the data set 'mnist-5k' (512 training images)" in done.stderr
    assert done.stderr.count("UserWarning") == 1


def test_a_job_gets_fashion_mnist_if_that_travelled(tmp_path: Path, tiny_data: Path) -> None:
    done = job(tmp_path, SHOW.format(function="get_fashion_mnist"), tiny_data, name="fashion-mnist")
    assert done.stdout == "512 128 (1, 28, 28) float32 int32 1 True\n", done.stderr


@pytest.mark.parametrize(
    ("function", "travelled", "asks"),
    [("get_mnist", "fashion-mnist", "mnist"), ("get_fashion_mnist", "mnist", "fashion-mnist")],
)
def test_digits_do_not_pass_for_clothes(
    function: str, travelled: str, asks: str, tmp_path: Path, tiny_data: Path
) -> None:
    done = job(tmp_path, SHOW.format(function=function), tiny_data, name=travelled)
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        f"error: The script asks for the data set {asks!r}, and this job carries {travelled!r}.",
        f"hint: Submit it with --dataset {asks}, or let the script take --dataset auto.",
    ]


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    layer._load.cache_clear()


def some_data(name: str, rows: int = 28) -> datasets.Dataset:
    images = numpy.arange(4 * rows * rows, dtype=numpy.int64).reshape(4, rows, rows).astype(numpy.uint8)
    labels = numpy.arange(4, dtype=numpy.uint8)
    return datasets.Dataset(name, images, labels, images[:2], labels[:2], 10)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_outside_a_job_the_cache_is_asked(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chainer.dataset.download, "_dataset_root", str(tmp_path))
    asked = []

    def load(where: str) -> datasets.Dataset:
        asked.append(where)
        return some_data(name)

    monkeypatch.setattr(datasets, "load", load)
    function = chainer.datasets.get_mnist if name == "mnist" else chainer.datasets.get_fashion_mnist
    train, test = function(withlabel=False, scale=255.0)
    assert asked == ["auto" if name == "mnist" else name]  # once for both parts
    assert train.shape == (4, 784)
    assert test.shape == (2, 784)
    numpy.testing.assert_array_equal(train, some_data(name).train_images.reshape(4, 784))


def test_outside_a_job_a_sample_is_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chainer.dataset.download, "_dataset_root", str(tmp_path))
    monkeypatch.setattr(datasets, "load", lambda where: some_data("mnist-5k"))
    with pytest.warns(UserWarning, match="'mnist-5k' .*not the full MNIST"):
        chainer.datasets.get_mnist()


def test_what_chainer_has_cached_before_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chainer.dataset.download, "_dataset_root", str(tmp_path))
    monkeypatch.setattr(datasets, "load", lambda where: pytest.fail("not needed"))
    cache = tmp_path / "pfnet" / "chainer" / "mnist"
    cache.mkdir(parents=True)
    for part, count in (("train", 3), ("test", 2)):
        x = numpy.full((count, 784), 255, numpy.uint8)
        numpy.savez_compressed(cache / f"{part}.npz", x=x, y=numpy.zeros(count, numpy.uint8))
    train, test = chainer.datasets.get_mnist()
    assert (len(train), len(test)) == (3, 2)
    assert (train[0][0] == 1).all()


def test_images_of_another_size_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chainer.dataset.download, "_dataset_root", str(tmp_path))
    monkeypatch.setattr(datasets, "load", lambda where: some_data("digits", rows=8))
    with pytest.raises(RuntimeFault, match=r"28x28, and 'digits' has images of 8x8"):
        chainer.datasets.get_mnist()
