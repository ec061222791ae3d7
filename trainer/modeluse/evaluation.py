"""How good a model is on a data set's test images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from trainer.errors import UsageError
from trainer.modeluse.network import Network, cross_entropy
from trainer.modeluse.source import LoadedModel

if TYPE_CHECKING:
    from trainer.data import ProgressDisplay

_BATCH = 1000


class ClassScore(msgspec.Struct, frozen=True, kw_only=True):
    """How one class fares.

    Attributes:
        label: The class.
        count: Test images of it.
        recall: Part of its images that were recognised, or None without any.
        precision: Part of the images taken for it that were, or None if none was.
    """

    label: int
    count: int
    recall: float | None
    precision: float | None


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What :func:`evaluate` found.

    Attributes:
        model: ``name:version`` or a path.
        dataset: The data set's name.
        trained_on: The data set that the model was trained on, if that is known.
        count: Number of test images.
        accuracy: Part of them that were recognised.
        loss: Mean softmax cross-entropy over them, in nats.
        confusion: ``confusion[true][predicted]`` counts images.
        classes: Each class by itself.
    """

    model: str
    dataset: str
    trained_on: str | None
    count: int
    accuracy: float
    loss: float
    confusion: tuple[tuple[int, ...], ...]
    classes: tuple[ClassScore, ...]


def evaluate(
    model: LoadedModel,
    dataset: str | None = None,
    *,
    progress: ProgressDisplay | None = None,
    batch_size: int = _BATCH,
) -> Evaluation:
    """Measure a model on a data set's test images.

    Accuracy and loss are means over the images, whatever their number and the batch size; Chainer's own
    ``Evaluator`` takes the mean of the batches' means, in which a last, smaller batch counts as much as a full one.

    Args:
        model: The model.
        dataset: A name or a directory, as ``--dataset`` takes it; None for the one it was trained on.
        progress: Told of a download.
        batch_size: Images at a time.

    Raises:
        UsageError: The data set is not known, or its images are not what the model takes.
        TrainerError: The data can't be had.
    """
    from trainer.data import resolve
    from trainer.runtime.datasets import read_directory
    from trainer.runtime.faults import RuntimeFault

    trained_on = model.version.dataset if model.version else None
    found = resolve(_choose(dataset, trained_on, model.label), progress=progress)
    try:
        data = read_directory(found.directory, name=found.name, class_count=model.network.classes)
    except RuntimeFault as fault:
        raise UsageError(fault.message, fault.hint) from fault
    rows, columns = data.test_images.shape[1:]
    if rows * columns != model.network.inputs:
        raise UsageError(
            f"{model.label} takes {model.network.inputs} pixels, and the images of {found.name} have {rows}x{columns}.",
            "Give the data set that the model was made for: --dataset",
        )
    confusion, loss = measure(model.network, data.test_images, data.test_labels, batch_size)
    count = int(confusion.sum())
    return Evaluation(
        model=model.label,
        dataset=found.name,
        trained_on=trained_on,
        count=count,
        accuracy=int(confusion.trace()) / count,
        loss=loss,
        confusion=tuple(tuple(int(cell) for cell in row) for row in confusion),
        classes=tuple(_class_score(confusion, label) for label in range(len(confusion))),
    )


def measure(
    network: Network, images: NDArray[np.uint8], labels: NDArray[np.uint8], batch_size: int = _BATCH
) -> tuple[NDArray[np.int64], float]:
    """Run a network over images.

    Args:
        network: It takes rows x columns inputs.
        images: uint8 (N, rows, columns), N at least 1; 255 is ink.
        labels: uint8 (N,), smaller than the number of classes.
        batch_size: Images at a time.

    Returns:
        The confusion matrix, int64 (classes, classes), true class first; and the mean loss in nats.
    """
    confusion = np.zeros((network.classes, network.classes), np.int64)
    losses: list[Any] = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        truth = labels[start : start + batch_size].astype(np.int64)
        # The training script's own arithmetic: chainer.datasets.get_mnist multiplies by 1/255 in float32.
        scores = network.scores(batch.reshape(len(batch), -1).astype(np.float32) * np.float32(1 / 255))
        np.add.at(confusion, (truth, scores.argmax(axis=1)), 1)
        losses.append(cross_entropy(scores, truth))
    # fsum rounds once, so that the batch size can't show in the sum.
    return confusion, math.fsum(np.concatenate(losses)) / len(images)


def _choose(dataset: str | None, trained_on: str | None, label: str) -> str:
    from trainer.data import CATALOGUE

    if dataset is not None:
        return dataset
    if trained_on in CATALOGUE:
        return str(trained_on)
    names = ", ".join(CATALOGUE)
    if trained_on is None:
        raise UsageError(f"It is not recorded what {label} was trained on.", f"Say --dataset {names} or a directory.")
    raise UsageError(
        f"{label} was trained on {trained_on!r}, a directory of IDX files.", "Say where it is: --dataset DIRECTORY"
    )


def _class_score(confusion: NDArray[np.int64], label: int) -> ClassScore:
    hits, count, taken = (int(n) for n in (confusion[label, label], confusion[label].sum(), confusion[:, label].sum()))
    return ClassScore(
        label=label, count=count, recall=hits / count if count else None, precision=hits / taken if taken else None
    )
