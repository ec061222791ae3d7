"""The training part of one epoch: the matrix products alone, NumPy alone, PyTorch, Chainer twice, and this program.

All have the tutorial's network, the same images and the same batch size; all but the first two draw a random order.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.measuring import Samples, interleaved

if TYPE_CHECKING:
    from trainer.runtime.datasets import Dataset

FLOOR = "matrix products alone"
OURS = "this program"
PLAIN = "this program, without its line rt.compiled"
TRAINER = "Chainer, Trainer"
BATCH = 128


def measure(data: Path, units: int, repeats: int) -> tuple[dict[str, Samples], list[str]]:
    """Time one epoch of each.

    Args:
        data: Folder of the four IDX files.
        units: Units in each hidden layer.
        repeats: Epochs of each.

    Returns:
        Samples by name, and a line for each subject that had to be left out.
    """
    from trainer.runtime import compat, threads

    compat.apply()
    threads.limit(1)
    found, floats, labels = load(data)
    subjects: dict[str, Callable[[], object]] = {
        FLOOR: _products(floats, units),
        "NumPy by hand": _numpy(floats, labels, units),
    }
    notes = []
    try:
        subjects["PyTorch"] = _torch(floats, labels, units)
    except ImportError:
        notes.append("PyTorch is not installed: its row is left out (pip install torch).")
    subjects["Chainer, loop by hand"] = _chainer_loop(floats, labels, units)
    subjects[TRAINER] = chainer_trainer(floats, labels, units)
    subjects[PLAIN] = ours(found.train_images, found.train_labels, units, compiled=False)
    subjects[OURS] = ours(found.train_images, found.train_labels, units)
    gc.collect()
    return interleaved(subjects, repeats), notes


def load(data: Path) -> tuple[Dataset, NDArray[np.float32], NDArray[np.int32]]:
    """The training set as it is, and as the peers take it: floats of shape (N, 784) between 0 and 1, and labels.

    Args:
        data: Folder of the four IDX files.
    """
    from trainer.runtime import datasets

    found = datasets.read_directory(data)
    floats = found.train_images.reshape(len(found.train_images), -1).astype(np.float32)
    floats *= 1 / 255
    return found, floats, found.train_labels.astype(np.int32)


def _weights(units: int) -> list[NDArray[np.float32]]:
    random = np.random.RandomState(0)
    shapes = [(units, 784), (units, units), (10, units)]
    return [(random.randn(*shape) / np.sqrt(shape[1])).astype(np.float32) for shape in shapes]


def _products(x: NDArray[np.float32], units: int) -> Callable[[], None]:
    w1, w2, w3 = _weights(units)
    h1, h2, y = (np.empty((BATCH, n), np.float32) for n in (units, units, 10))
    g1, g2, g3 = (np.empty_like(w) for w in (w1, w2, w3))

    def epoch() -> None:
        for start in range(0, len(x) - BATCH + 1, BATCH):
            batch = x[start : start + BATCH]
            np.dot(batch, w1.T, out=h1)
            np.dot(h1, w2.T, out=h2)
            np.dot(h2, w3.T, out=y)
            np.dot(y.T, h2, out=g3)
            np.dot(y, w3, out=h2)
            np.dot(h2.T, h1, out=g2)
            np.dot(h2, w2, out=h1)
            np.dot(h1.T, batch, out=g1)
            # Without this the numbers soon overflow, and arithmetic on infinities has another speed.
            h1.fill(0.1)
            h2.fill(0.1)
            y.fill(0.1)

    return epoch


def _numpy(x: NDArray[np.float32], t: NDArray[np.int32], units: int) -> Callable[[], None]:
    weights = _weights(units)
    biases = [np.zeros(len(w), np.float32) for w in weights]
    parameters = [*weights, *biases]
    gradients = [np.empty_like(p) for p in parameters]
    velocities = [np.zeros_like(p) for p in parameters]
    outputs = [np.empty((BATCH, len(w)), np.float32) for w in weights]
    rows = np.arange(BATCH)

    def epoch() -> None:
        for start in range(0, len(x) - BATCH + 1, BATCH):
            hidden = batch = x[start : start + BATCH]
            for index, output in enumerate(outputs):
                np.dot(hidden, weights[index].T, out=output)
                np.add(output, biases[index], out=output)
                if index < 2:
                    np.maximum(output, 0, out=output)
                hidden = output
            delta = hidden - hidden.max(axis=1, keepdims=True)
            np.exp(delta, out=delta)
            delta /= delta.sum(axis=1, keepdims=True)
            delta[rows, t[start : start + BATCH]] -= 1
            delta /= BATCH
            for index in (2, 1, 0):
                below = outputs[index - 1] if index else batch
                np.dot(delta.T, below, out=gradients[index])
                delta.sum(axis=0, out=gradients[3 + index])
                if index:
                    delta = (delta @ weights[index]) * (below > 0)
            for parameter, gradient, velocity in zip(parameters, gradients, velocities, strict=True):
                velocity *= 0.9
                gradient *= 0.01
                velocity -= gradient
                parameter += velocity

    return epoch


def _torch(x: NDArray[np.float32], t: NDArray[np.int32], units: int) -> Callable[[], object]:
    import torch

    from bench.peers import torch_mnist

    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, labels = torch.from_numpy(x), torch.from_numpy(t.astype(np.int64))
    model = torch_mnist.make(units)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return partial(torch_mnist.train_epoch, model, optimizer, images, labels, BATCH)


def _chainer_loop(x: NDArray[np.float32], t: NDArray[np.int32], units: int) -> Callable[[], None]:
    import chainer
    from chainer.functions import softmax_cross_entropy

    from bench.peers.chainer_mnist_loop import MLP

    np.random.seed(0)
    model = MLP(units)
    optimizer = chainer.optimizers.MomentumSGD().setup(model)

    def epoch() -> None:
        order = np.random.permutation(len(x))
        for start in range(0, len(x), BATCH):
            batch = order[start : start + BATCH]
            loss = softmax_cross_entropy(model(x[batch]), t[batch])
            model.cleargrads()
            loss.backward()
            optimizer.update()

    return epoch


def _optimizer(units: int, device: Any) -> Any:  # noqa: ANN401  # Chainer's
    """The tutorial's optimizer, set up on its classifier."""
    import chainer
    import chainer.links as L  # noqa: N812

    from bench.peers.chainer_mnist_trainer import MLP

    np.random.seed(0)
    model = L.Classifier(MLP(units))
    model.to_device(device)
    return chainer.optimizers.MomentumSGD().setup(model)


def _trainer_epoch(updater: Any) -> Callable[[], None]:  # noqa: ANN401  # Chainer's updaters
    from chainer import training
    from chainer.training import extensions

    def epoch() -> None:
        trainer = training.Trainer(updater, (updater.epoch + 1, "epoch"), out=tempfile.gettempdir())
        trainer.extend(extensions.LogReport(filename=None))
        # The trainer closes the iterators at its end; these go on with the next one.
        finalize, updater.finalize = updater.finalize, lambda: None
        trainer.run()
        updater.finalize = finalize

    return epoch


def chainer_trainer(
    x: NDArray[np.float32],
    t: NDArray[np.int32],
    units: int,
    device: Any = "@numpy",  # noqa: ANN401
) -> Callable[[], None]:
    """One epoch of Chainer's own Trainer, updater and iterator.

    Args:
        x: Images, shape (N, 784).
        t: Labels, shape (N,).
        units: Units in each hidden layer.
        device: Chainer's device, or its name.
    """
    import chainer

    optimizer = _optimizer(units, device)
    iterator = chainer.iterators.SerialIterator(chainer.datasets.TupleDataset(x, t), BATCH)
    return _trainer_epoch(chainer.training.updaters.StandardUpdater(iterator, optimizer, device=device))


def ours(
    images: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    units: int,
    device: Any = "@numpy",  # noqa: ANN401
    *,
    compiled: bool = True,
) -> Callable[[], None]:
    """One epoch as ``chainer_mnist.py`` trains it.

    Args:
        images: Shape (N, 28, 28).
        labels: Shape (N,).
        units: Units in each hidden layer.
        device: Chainer's device, or its name.
        compiled: Whether with the script's line ``updater = rt.compiled(updater)``.
    """
    import chainer

    from trainer import runtime as rt

    device = chainer.get_device(device)
    train = rt.ArrayIterator((images.reshape(len(images), -1), labels.astype(np.int32)), BATCH, device=device)
    updater = chainer.training.updaters.StandardUpdater(
        train, _optimizer(units, device), converter=rt.unit_range, device=device
    )
    return _trainer_epoch(rt.compiled(updater) if compiled else updater)
