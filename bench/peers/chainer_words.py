"""A language model like Chainer's ptb example, and one truncated pass of its training, on words drawn at random."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import chainer
import chainer.functions as F  # noqa: N812
import chainer.links as L  # noqa: N812
import numpy as np

# Those of the example and of the Penn Tree Bank.
WORDS = 10000
UNITS = 650
BATCH = 20
LENGTH = 35


class LanguageModel(chainer.Chain):  # type: ignore[misc]
    """An embedding, two LSTM layers and a linear one, with dropout before each layer."""

    def __init__(self) -> None:
        super().__init__()
        with self.init_scope():
            self.embed = L.EmbedID(WORDS, UNITS)
            self.l1 = L.LSTM(UNITS, UNITS)
            self.l2 = L.LSTM(UNITS, UNITS)
            self.l3 = L.Linear(UNITS, WORDS)
        for parameter in self.params():
            parameter.array[...] = np.random.uniform(-0.1, 0.1, parameter.shape)

    def forward(self, x: chainer.Variable) -> chainer.Variable:
        """Scores of the next word, shape (B, words), for words of shape (B,)."""
        h = self.l1(F.dropout(self.embed(x)))
        return self.l3(F.dropout(self.l2(F.dropout(h))))


def make() -> Callable[[], None]:
    """What does one pass over 35 words of 20 texts: losses, gradients, update."""
    np.random.seed(0)
    model = L.Classifier(LanguageModel())
    model.compute_accuracy = False
    optimizer = chainer.optimizers.SGD(lr=1.0).setup(model)
    optimizer.add_hook(chainer.optimizer_hooks.GradientClipping(5))
    words = np.random.randint(0, WORDS, (LENGTH + 1, BATCH)).astype(np.int32)

    def step() -> None:
        loss = 0
        for x, t in itertools.pairwise(words):
            loss += model(x, t)
        model.cleargrads()
        loss.backward()  # type: ignore[attr-defined]
        loss.unchain_backward()  # type: ignore[attr-defined]
        optimizer.update()

    return step
