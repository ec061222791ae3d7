"""How good a model is on a data set's test images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from trainer.errors import UsageError
from trainer.home import find_home
from trainer.modeluse.network import Network, cross_entropy
from trainer.modeluse.source import LoadedModel
from trainer.runfolder import RunFolder
from trainer.runtime.layout import DATA_DIR

if TYPE_CHECKING:
    from trainer.artifacts import ModelVersion
    from trainer.data import ProgressDisplay
    from trainer.modeluse.own_network import OwnNetwork

_BATCH = 1000


class ClassScore(msgspec.Struct, frozen=True, kw_only=True):
    """How one class fares.

    Attributes:
        label: The class.
        name: What the class is called.
        count: Test images of it.
        recall: Part of its images that were recognised, or None without any.
        precision: Part of the images taken for it that were, or None if none was.
    """

    label: int
    name: str
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
        dataset: As ``--dataset`` takes it; None for what it was trained on.
        progress: Told of a download.
        batch_size: Images at a time.

    Raises:
        UsageError: The data set is not known, or its images are not what the model takes.
        TrainerError: The data can't be had.
    """
    trained_on = model.version.dataset if model.version else None
    name, examples, labels = _test_examples(model, dataset, progress)
    if math.prod(examples.shape[1:]) != model.network.inputs:
        size = "x".join(map(str, examples.shape[1:]))
        raise UsageError(
            f"{model.label} takes {model.network.inputs} pixels, and the images of {name} have {size}.",
            "Give the data set that the model was made for: --dataset",
        )
    confusion, loss = measure(model.network, examples, labels, batch_size)
    count = int(confusion.sum())
    return Evaluation(
        model=model.label,
        dataset=name,
        trained_on=trained_on,
        count=count,
        accuracy=int(confusion.trace()) / count,
        loss=loss,
        confusion=tuple(tuple(int(cell) for cell in row) for row in confusion),
        classes=tuple(_class_score(confusion, label, name) for label, name in enumerate(model.classes)),
    )


def measure(
    network: Network | OwnNetwork, images: NDArray[Any], labels: NDArray[np.uint8], batch_size: int = _BATCH
) -> tuple[NDArray[np.int64], float]:
    """Run a network over images.

    Args:
        network: It takes as many inputs as an example has numbers.
        images: uint8 (N, rows, columns), N at least 1; 255 is ink. Or other examples, as a data set has them.
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
        scores = network.scores_of(batch)
        np.add.at(confusion, (truth, scores.argmax(axis=1)), 1)
        losses.append(cross_entropy(scores, truth))
    # fsum rounds once, so that the batch size can't show in the sum.
    return confusion, math.fsum(np.concatenate(losses)) / len(images)


_Examples = tuple[str, NDArray[Any], NDArray[np.uint8]]


def _test_examples(model: LoadedModel, dataset: str | None, progress: ProgressDisplay | None) -> _Examples:
    """The name, the test examples and their labels of a data set, or of what the model was trained on."""
    from trainer.data import own, resolve
    from trainer.runtime.datasets import read_directory
    from trainer.runtime.faults import RuntimeFault

    record = model.version.data if model.version else None
    where = dataset or _choose(model)
    if isinstance(where, str):
        path = Path(where).expanduser()
        if record is not None and path.exists() and own.is_own(path):
            # Read as the training set was: the same classes, sizes and scales.
            arrays = own.read(path, like=record)
            return path.name, arrays.test_x, arrays.test_y
        found = resolve(where, progress=progress)
        where, name = found.directory, found.name
    else:
        name = where.name
    try:
        data = read_directory(where, name=name, class_count=model.network.classes)
    except RuntimeFault as fault:
        raise UsageError(fault.message, fault.hint) from fault
    return name, data.test_images, data.test_labels


def travelled_data(version: ModelVersion) -> Path | None:
    """Return the folder of the data that a model was trained on, as it travelled with its run, if that is here."""
    if version.dataset is None or version.data is None:
        return None
    folder = RunFolder(find_home().runs / version.run_id).snapshot / DATA_DIR / version.dataset
    return folder if folder.is_dir() else None


def _choose(model: LoadedModel) -> str | Path:
    """What the model was trained on: a name, where it lay, or the folder that travelled with the run."""
    from trainer.data import CATALOGUE

    label, version = model.label, model.version
    trained_on = version.dataset if version else None
    if trained_on in CATALOGUE:
        return str(trained_on)
    if version is not None:
        here = travelled_data(version)
        if here is not None:
            return here
        if version.data is not None and version.data.source and Path(version.data.source).exists():
            return version.data.source
    names = ", ".join(CATALOGUE)
    if trained_on is None:
        raise UsageError(f"It is not recorded what {label} was trained on.", f"Say --dataset {names} or a directory.")
    raise UsageError(f"{label} was trained on {trained_on!r}, which is not here.", "Say where it is: --dataset PATH")


def _class_score(confusion: NDArray[np.int64], label: int, name: str) -> ClassScore:
    hits, count, taken = (int(n) for n in (confusion[label, label], confusion[label].sum(), confusion[:, label].sum()))
    return ClassScore(
        label=label,
        name=name,
        count=count,
        recall=hits / count if count else None,
        precision=hits / taken if taken else None,
    )
