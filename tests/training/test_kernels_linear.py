"""Gradients of weights that are used in many steps, as one product: Chainer's to rounding, and its own elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import chainer
import chainer.functions as F  # noqa: N812
import chainer.links as L  # noqa: N812
import numpy as np
import pytest
from chainer import _backprop_utils

from trainer.runtime.fast import accumulation
from trainer.runtime.kernels import linear

TOLERANCE = 2e-5
PATCHED = [
    (_backprop_utils.GradTable, "__init__"),
    (_backprop_utils.GradTable, "get_as_list"),
    (_backprop_utils.GradTable, "pop"),
    (_backprop_utils, "_pop_or_none"),
    (_backprop_utils, "_reduce"),
    (_backprop_utils, "backprop_step"),
]


@pytest.fixture(params=[False, True], ids=["alone", "with the means"])
def put_off(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Put the gradients off from here on; gives a list of how many steps each product had."""
    products: list[int] = []
    flush = linear._Gradients.flush

    def watched(self: Any, variable: Any) -> None:
        if self.factors:
            products.append(len(self.factors))
        flush(self, variable)

    def start() -> list[int]:
        monkeypatch.setattr(linear._Gradients, "flush", watched)
        if request.param:
            accumulation.patch(chainer)
        linear.patch(chainer)
        return products

    kept = [(where, name, getattr(where, name)) for where, name in PATCHED]
    yield start
    for where, name, value in kept:
        setattr(where, name, value)


class Recurrent(chainer.Chain):  # type: ignore[misc]
    """A recurrent network of one layer and a linear one."""

    def __init__(self, dtype: Any = np.float32) -> None:
        super().__init__()
        with chainer.using_config("dtype", dtype), self.init_scope():
            self.lstm = L.LSTM(5, 6)
            self.out = L.Linear(6, 7)

    def forward(self, steps: Any) -> Any:
        """The sum of the outputs' squares in all steps."""
        self.lstm.reset_state()
        return sum(F.sum(self.out(self.lstm(x)) ** 2) for x in steps)


def inputs(count: int, dtype: Any = np.float32) -> Any:
    return list(np.random.RandomState(0).standard_normal((count, 4, 5)).astype(dtype))


def gradients(model: Any, steps: Any, *, kept: bool = False) -> dict[str, Any]:
    """Gradients of a pass, or with ``kept`` of two."""
    model.cleargrads()
    for _ in range(1 + kept):
        model(steps).backward()
    return {name: param.grad.copy() for name, param in model.namedparams() if param.grad is not None}


def assert_near(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert np.abs(found[name] - value).max() <= TOLERANCE * max(1, np.abs(value).max())


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("room", [linear._KEPT, 300])
def test_many_steps(put_off: Any, monkeypatch: pytest.MonkeyPatch, kept: bool, room: int) -> None:
    """With gradients that are there already, and where there is room for the factors of a few steps only."""
    model, steps = Recurrent(), inputs(9)
    expected = gradients(model, steps, kept=kept)
    monkeypatch.setattr(linear, "_KEPT", room)
    products = put_off()
    assert_near(gradients(model, steps, kept=kept), expected)
    # The first step's is computed at once, unless there was a gradient before.
    assert max(products) >= 2 if room == 300 else set(products) <= {7, 8, 9}
    assert products


@pytest.mark.parametrize(("count", "dtype"), [(1, np.float32), (4, np.float64)])
def test_single_steps_and_other_types_are_chainers(put_off: Any, count: int, dtype: Any) -> None:
    model, steps = Recurrent(dtype), inputs(count, dtype)
    expected = gradients(model, steps)
    products = put_off()
    found = gradients(model, steps)
    assert not products
    assert {name: value.tobytes() for name, value in found.items()} == {
        name: value.tobytes() for name, value in expected.items()
    }


def test_gradients_of_gradients(put_off: Any) -> None:
    """Of a graph of the gradients, nothing is put off; nor where Chainer is asked for the gradients alone."""
    model, steps = Recurrent(), inputs(3)

    def compute() -> dict[str, Any]:
        weights = [model.out.W, model.lstm.upward.W]
        first = chainer.grad([model(steps)], weights, enable_double_backprop=True)
        model.cleargrads()
        sum(F.sum(each**2) for each in first).backward()
        found = {name: param.grad.copy() for name, param in model.namedparams() if param.grad is not None}
        model(steps).backward(enable_double_backprop=True)
        return found | {f"{name} twice": param.grad.copy() for name, param in model.namedparams()}

    expected = compute()
    put_off()
    assert_near(compute(), expected)


def test_hooks_see_every_step(put_off: Any) -> None:
    class Count(chainer.FunctionHook):  # type: ignore[misc]
        name = "count"
        seen = 0

        def backward_postprocess(self, function: Any, in_data: Any, out_grad: Any) -> None:
            self.seen += function.label == "LinearFunction"

    model, steps = Recurrent(), inputs(3)
    products = put_off()
    with Count() as hook:
        gradients(model, steps)
    assert hook.seen == 3 + 3 + 2  # the first step has nothing from the step before
    assert not products
