"""Accuracy and loss are means over examples, whatever the batch size; metrics are what the log has."""

from __future__ import annotations

from typing import Any

import chainer
import numpy as np
import pytest

from trainer.runtime.datasets import Dataset
from trainer.runtime.faults import RuntimeFault
from trainer.runtime.reporting import Report
from trainer.runtime.training.extensions import ClassifierEvaluator, Metrics
from trainer.runtime.training.iterator import ArrayIterator, unit_range


def expected(model: Any, data: Dataset) -> Any:
    x = data.test_images.reshape(len(data.test_images), -1).astype(np.float64) / 255
    predictor = model.predictor
    for link in (predictor.l1, predictor.l2, predictor.l3):
        x = x @ link.W.array.T.astype(np.float64) + link.b.array
        if link is not predictor.l3:
            x = np.maximum(x, 0)
    log_probability = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    rows = np.arange(len(x))
    return (x.argmax(axis=1) == data.test_labels).mean(), -log_probability[rows, data.test_labels].mean()


@pytest.mark.parametrize("batch_size", [1, 50, 100, 127, 128, 1000])
def test_exact_for_any_batch_size(make_model: Any, data: Dataset, examples: Any, batch_size: Any) -> None:
    model = make_model()
    iterator = ArrayIterator(examples[1], batch_size, repeat=False, shuffle=False)
    result = ClassifierEvaluator(iterator, model, converter=unit_range)()
    accuracy, loss = expected(model, data)
    assert result["main/accuracy"] == accuracy
    assert result["main/loss"] == pytest.approx(loss, rel=1e-6)


def test_chainers_own_is_not(make_model: Any, data: Dataset, examples: Any) -> None:
    """The reason for another evaluator: 128 examples in batches of 100 weigh the last 28 like the first 100."""
    model = make_model()
    iterator = ArrayIterator(examples[1], 100, repeat=False, shuffle=False)
    result = chainer.training.extensions.Evaluator(iterator, model, converter=unit_range)()
    _, loss = expected(model, data)
    assert abs(result["main/loss"] - loss) > 1e-5


def test_several_inputs_and_labels_per_pixel() -> None:
    """A segmentation network with two inputs: every pixel counts once."""
    random = np.random.RandomState(0)
    left, right = (random.rand(10, 1, 4, 4).astype(np.float32) for _ in range(2))
    labels = random.randint(0, 3, (10, 4, 4)).astype(np.int32)

    class Segmenting(chainer.Chain):
        def forward(self, left: Any, right: Any) -> Any:
            return chainer.functions.concat([chainer.Variable(left), left + right, right * 2], axis=1)

    scores = np.concatenate([left, left + right, right * 2], axis=1).astype(np.float64)
    log_probability = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    loss = -np.take_along_axis(log_probability, labels[:, None], axis=1).mean()
    iterator = ArrayIterator((left, right, labels), 4, repeat=False, shuffle=False)
    as_it_is = chainer.dataset.converter()(lambda batch, device: batch)
    result = ClassifierEvaluator(iterator, chainer.links.Classifier(Segmenting()), converter=as_it_is)()
    assert result["main/accuracy"] == (scores.argmax(axis=1) == labels).mean()
    assert result["main/loss"] == pytest.approx(loss, rel=1e-6)


class Kept:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.states: list[Any] = []

    def log(self, name: str, value: Any, step: Any, iteration: Any = None) -> None:
        self.values.append((name, value, step))

    def progress(self, state: Any) -> None:
        self.states.append(state)

    def close(self) -> None:
        pass


def reported(train: Any, make_model: Any, names: Any, **report: Any) -> Any:
    kept = Kept()

    def extend(trainer: Any) -> None:
        if report:
            del trainer._extensions["LogReport"]
            trainer.extend(chainer.training.extensions.LogReport(filename=None, **report))
        trainer.extend(Metrics(names, Report([kept])))

    model = make_model()
    train(model, chainer.optimizers.SGD().setup(model), plain=False, extend=extend)
    return kept


def test_metrics_are_the_log(train: Any, make_model: Any) -> None:
    kept = reported(train, make_model, {"Loss": "main/loss"})
    assert [(name, step) for name, _, step in kept.values] == [
        ("Batch size", None), ("Epochs", None), ("Loss", 1), ("Loss", 2)
    ]  # fmt: skip
    assert kept.values[0][1] == 32
    assert kept.values[1][1] == 2
    assert kept.states[-1]["epoch"] == kept.states[-1]["epochs"] == 2
    assert kept.states[-1]["loss"] > 0


def test_every_entry_of_the_log_is_logged(train: Any, make_model: Any) -> None:
    kept = reported(train, make_model, {"Loss": "main/loss"}, trigger=(5, "iteration"))
    assert sum(name == "Loss" for name, _, _ in kept.values) == 32 // 5


def test_a_metric_that_is_not_reported_is_named(train: Any, make_model: Any) -> None:
    with pytest.raises(RuntimeFault, match="'Recall' is 'main/recall'") as caught:
        reported(train, make_model, {"Recall": "main/recall"})
    assert "main/loss" in caught.value.hint
