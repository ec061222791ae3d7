"""Accuracy and loss are means over examples, whatever the batch size."""

from __future__ import annotations

from typing import Any

import chainer
import numpy as np
import pytest

from trainer.runtime.datasets import Dataset
from trainer.runtime.training.extensions import ClassifierEvaluator
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
