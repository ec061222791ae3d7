"""Sums of gradients in place beside Chainer's own, bit for bit; gradients that somebody has kept stay as they were."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import chainer
import chainer.functions as F  # noqa: N812
import chainer.links as L  # noqa: N812
import numpy as np
import pytest
from chainer import _backprop_utils

from trainer.runtime.fast import accumulation

PATCHED = [
    (_backprop_utils.GradTable, "__init__"),
    (_backprop_utils.GradTable, "pop"),
    (_backprop_utils, "_pop_or_none"),
    (_backprop_utils, "_reduce"),
    (_backprop_utils, "backprop_step"),
]


@contextmanager
def in_place() -> Iterator[list[bool]]:
    """With the sums in place; the list gets whether an embedding's rows were added alone, whenever they may be."""
    kept = [(where, name, getattr(where, name)) for where, name in PATCHED]
    add_rows = accumulation._add_rows
    used: list[bool] = []

    def watched(*arguments: Any) -> bool:
        used.append(add_rows(*arguments))
        return used[-1]

    try:
        accumulation._add_rows = watched
        accumulation.patch(chainer)
        yield used
    finally:
        accumulation._add_rows = add_rows
        for where, name, value in kept:
            setattr(where, name, value)


def both(compute: Callable[[], list[Any]]) -> list[bool]:
    """Compare what ``compute`` gives without and with the sums in place."""
    expected = compute()
    with in_place() as used:
        found = compute()
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    return used


def values(seed: int, *shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.random.RandomState(seed).standard_normal(shape).astype(dtype)


def test_orders_in_memory() -> None:
    """A variable whose gradients lie in memory in different orders: so does their sum, and it decides what follows."""
    data = values(0, 2, 5, 6, 3).transpose(0, 3, 1, 2)
    weight = values(1, 4, 3, 3, 3)

    def compute() -> list[Any]:
        x = chainer.Variable(data)
        h = F.tanh(x)
        y = F.sum(F.sin(h)) + F.sum(F.cos(h)) + F.sum(F.convolution_2d(h, weight, pad=1) ** 2) + F.sum(F.exp(h))
        y.backward(retain_grad=True)
        return [h.grad, np.array(h.grad.strides), x.grad]

    both(compute)


class Words(chainer.Chain):  # type: ignore[misc]
    """A small language model: an embedding, two LSTM layers, all used in every step."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        with self.init_scope():
            self.embed = L.EmbedID(11, 5, **options)
            self.lstm = L.LSTM(5, 6)
            self.out = L.Linear(6, 11)

    def forward(self, x: Any) -> Any:
        """Scores of the next word."""
        return self.out(self.lstm(self.embed(x)))


def language_model(words: np.ndarray[Any, Any], **options: Any) -> list[Any]:
    """Parameters after three truncated passes."""
    np.random.seed(3)
    model = L.Classifier(Words(**options))
    model.compute_accuracy = False
    optimizer = chainer.optimizers.MomentumSGD(0.3).setup(model)
    optimizer.add_hook(chainer.optimizer_hooks.GradientClipping(1))
    for _ in range(3):
        loss = 0
        for x, t in itertools.pairwise(words):
            loss += model(x, np.abs(t))
        model.cleargrads()
        loss.backward()
        loss.unchain_backward()
        optimizer.update()
    return [each.array for _, each in sorted(model.namedparams())]


def test_a_language_model() -> None:
    words = np.random.RandomState(0).randint(0, 11, (7, 4)).astype(np.int32)
    assert both(lambda: language_model(words)) == [True] * 15


def test_words_that_are_ignored_or_counted_from_the_end() -> None:
    words = np.random.RandomState(0).randint(-1, 11, (7, 4)).astype(np.int32)
    words[3] = -1
    used = both(lambda: language_model(words, ignore_label=-1))
    assert used == [True] * 15
    words[words == -1] = -2
    assert False in both(lambda: language_model(words))


@pytest.mark.parametrize("embedded", [False, True])
def test_a_gradient_that_is_that_of_several_variables(embedded: bool) -> None:
    """Where a sum of gradients is handed on as it is, further ones must not be added to it."""

    def graph() -> tuple[list[Any], list[Any]]:
        a, b, high = (chainer.Variable(values(n, 4, 3)) for n in range(3))
        for _ in range(4):
            high = F.tanh(high)
        middle = F.tanh(F.tanh(a))
        y = middle + b
        # In this order: the gradient of y, a sum, becomes that of both; then the last use of one of them counts.
        if embedded:
            words = np.array([0, 3, 0, 1], np.int32)
            first, second, last = (F.embed_id(words, each) for each in (y, y, middle))
            return [F.sum(first * high + (second + F.tanh(last)))], [a, b]
        return [F.sum(y * high + F.exp(y) + F.sin(y)) + F.sum(F.cos(middle))], [a, b]

    def compute() -> list[Any]:
        outputs, inputs = graph()
        outputs[0].backward()
        return [each.grad for each in inputs]

    both(compute)
    both(lambda: [each.array for each in chainer.grad(*graph())])


@pytest.mark.parametrize("kind", ["array", "embedding"])
def test_gradients_of_earlier_passes_stay(kind: str) -> None:
    words = np.array([1, 3, 1], np.int32)

    def compute() -> list[Any]:
        parameter = chainer.Parameter(values(0, 6, 3))
        kept = []
        for n in range(3):
            uses = [F.embed_id(words + i, parameter) if kind == "embedding" else F.exp(parameter) for i in range(3)]
            F.sum(sum(use * float(n + i) for i, use in enumerate(uses))).backward()
            kept.append(parameter.grad)
        return kept

    used = both(compute)
    # Not in the second pass and the third: the gradient of the pass before is there already.
    assert used == ([True] * 2 if kind == "embedding" else [])


def test_gradients_of_gradients_and_other_types() -> None:
    x = values(0, 4, 3, dtype=np.float64)

    def compute() -> list[Any]:
        a = chainer.Variable(x)
        y = F.sum(F.exp(a) * a + F.sin(a) * F.tanh(a) + a)
        (first,) = chainer.grad([y], [a], enable_double_backprop=True)
        F.sum(first * first * first + first).backward()
        return [first.array, a.grad]

    both(compute)


def test_lazy_sums_and_hooks() -> None:
    words = np.random.RandomState(0).randint(0, 11, (7, 4)).astype(np.int32)
    with chainer.using_config("lazy_grad_sum", True):
        assert both(lambda: language_model(words)) == []
    counts = []
    for _ in range(2):
        hook = chainer.function_hooks.TimerHook()
        with in_place() if counts else hook, hook if counts else in_place():
            language_model(words)
        counts.append(len(hook.call_history))
    assert counts[0] == counts[1]
