"""Chainer made importable, and what these tests share: a classifier, its data, two ways to train it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.runtime import compat

compat.apply()

import chainer  # noqa: E402
import chainer.functions as F  # noqa: E402, N812
import chainer.links as L  # noqa: E402, N812
import numpy as np  # noqa: E402
from chainer import training  # noqa: E402
from chainer.training import extensions, updaters  # noqa: E402

from trainer.runtime.datasets import Dataset, read_directory  # noqa: E402
from trainer.runtime.training.compiled import compiled  # noqa: E402
from trainer.runtime.training.iterator import ArrayIterator, unit_range  # noqa: E402


class MLP(chainer.Chain):
    def __init__(self, units: int = 20, nobias: bool = False) -> None:
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(784, units, nobias=nobias)
            self.l2 = L.Linear(units, units)
            self.l3 = L.Linear(units, 10)

    def forward(self, x: chainer.Variable) -> Any:
        return self.l3(F.relu(self.l2(F.relu(self.l1(x)))))


@pytest.fixture(scope="session")
def data(tiny_data: Path) -> Dataset:
    return read_directory(tiny_data)


@pytest.fixture(scope="session")
def examples(data: Dataset) -> Any:
    """Training and test set as a script gives them to the iterator: bytes of shape (N, 784), labels of shape (N,)."""
    return tuple(
        (images.reshape(len(images), -1), labels.astype(np.int32))
        for images, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels))
    )


@pytest.fixture
def make_model() -> Callable[..., Any]:
    """Classifiers with the same weights every time."""

    def make(network: type[chainer.Chain] = MLP, **options: Any) -> L.Classifier:
        np.random.seed(3)
        return L.Classifier(network(**options))

    make.network = MLP
    return make


@pytest.fixture
def train(data: Dataset, examples: Any, tmp_path: Path) -> Callable[..., list[dict[str, float]]]:
    """Trains a classifier, the plain way or ours; gives Chainer's log and the updater."""

    def run(
        model: L.Classifier,
        optimizer: chainer.Optimizer,
        *,
        plain: bool,
        batch_size: int = 32,
        epochs: int = 2,
        extend: Callable[[training.Trainer], None] = lambda trainer: None,
    ) -> tuple[list[dict[str, float]], Any]:
        if plain:
            images = data.train_images.reshape(-1, 784).astype(np.float32)
            images *= 1 / 255
            iterator = chainer.iterators.SerialIterator(
                chainer.datasets.TupleDataset(images, data.train_labels.astype(np.int32)),
                batch_size,
                order_sampler=chainer.iterators.ShuffleOrderSampler(np.random.RandomState(5)),
            )
            updater = updaters.StandardUpdater(iterator, optimizer)
        else:
            iterator = ArrayIterator(examples[0], batch_size, seed=5)
            updater = compiled(updaters.StandardUpdater(iterator, optimizer, converter=unit_range))
        trainer = training.Trainer(updater, (epochs, "epoch"), out=tmp_path / "out")
        report = extensions.LogReport(filename=None)
        trainer.extend(report)
        extend(trainer)
        trainer.run(show_loop_exception_msg=False)
        drop = {"elapsed_time"}
        return [{k: v for k, v in entry.items() if k not in drop} for entry in report.log], updater

    return run
