"""Accuracy and loss over a whole set, whatever its size and the batch size."""

from __future__ import annotations

from typing import Any

import chainer
import numpy as np
from chainer.dataset import convert
from chainer.functions import softmax_cross_entropy
from chainer.training.extensions import Evaluator


class ClassifierEvaluator(Evaluator):  # type: ignore[misc]
    """``Evaluator`` for a :class:`chainer.links.Classifier` that counts examples, not batches.

    Chainer's averages the means of batches with equal weight, so the examples of a short last batch
    count for more. Here accuracy is (right answers) / (examples) and loss is the sum of the examples'
    cross-entropies in double precision over their number. The host reads the results once, at the end.

    Args: as ``Evaluator``; the iterator must not repeat, the target must have ``predictor``.
    """

    def evaluate(self) -> dict[str, float]:
        """``main/accuracy`` and ``main/loss`` under the extension's prefix, as ``Evaluator`` names them."""
        iterator = self._iterators["main"]
        iterator.reset()
        predictor = self._targets["main"].predictor
        right: Any = 0
        loss: Any = 0.0
        examples = 0
        with chainer.no_backprop_mode():
            for batch in iterator:
                x, t = convert._call_converter(self.converter, batch, self.device)
                scores = predictor(x)
                right = right + (scores.array.argmax(axis=1) == t).sum()
                losses = softmax_cross_entropy(scores, t, reduce="no")
                loss = loss + losses.array.sum(dtype=np.float64)
                examples += len(t)
        prefix = f"{self.name}/" if self.name else ""
        return {
            f"{prefix}main/accuracy": int(right) / examples,
            f"{prefix}main/loss": float(loss) / examples,
        }
