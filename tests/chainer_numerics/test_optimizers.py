"""The examples' optimizers and hooks, step by step against their formulas; their states' types."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.chainer_numerics.checking import Array, uniform

import chainer  # isort: skip
from chainer import optimizers  # isort: skip

State = dict[str, Array]
Rule = Callable[[Array, Array, State, int], Array]


def sgd(p: Array, g: Array, state: State, t: int) -> Array:
    return p - 0.1 * g


def momentum_sgd(p: Array, g: Array, state: State, t: int) -> Array:
    state["v"] = 0.9 * state.get("v", np.zeros_like(p)) - 0.1 * g
    return p + state["v"]


def adam(p: Array, g: Array, state: State, t: int) -> Array:
    # Kingma and Ba 2015, the more efficient form at the end of section 2.
    state["m"] = 0.9 * state.get("m", np.zeros_like(p)) + 0.1 * g
    state["v"] = 0.999 * state.get("v", np.zeros_like(p)) + 0.001 * g * g
    alpha = 0.01 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    return p - alpha * state["m"] / (np.sqrt(state["v"]) + 1e-8)


def ada_grad(p: Array, g: Array, state: State, t: int) -> Array:
    state["h"] = state.get("h", np.zeros_like(p)) + g * g
    return p - 0.1 * g / (np.sqrt(state["h"]) + 1e-8)


def rms_prop(p: Array, g: Array, state: State, t: int) -> Array:
    state["ms"] = 0.99 * state.get("ms", np.zeros_like(p)) + 0.01 * g * g
    return p - 0.01 * g / (np.sqrt(state["ms"]) + 1e-4)


RULES: dict[str, tuple[Callable[[], Any], Rule]] = {
    "SGD": (lambda: optimizers.SGD(0.1), sgd),
    "MomentumSGD": (lambda: optimizers.MomentumSGD(0.1, 0.9), momentum_sgd),
    "Adam": (lambda: optimizers.Adam(0.01), adam),
    "AdaGrad": (lambda: optimizers.AdaGrad(0.1), ada_grad),
    "RMSprop": (lambda: optimizers.RMSprop(0.01, eps=1e-4), rms_prop),
}


def link_of(p: Array) -> Any:
    link = chainer.Link()
    with link.init_scope():
        link.p = chainer.Parameter(p.copy())
    return link


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", RULES)
def test_steps(name: str, dtype: str) -> None:
    build, rule = RULES[name]
    link = link_of(uniform(3, 4).astype(dtype))
    optimizer = build().setup(link)
    wanted, state = link.p.array.astype("d"), {}
    for t in range(1, 6):
        link.p.grad = uniform(3, 4, seed=t).astype(dtype)
        wanted = rule(wanted, link.p.grad.astype("d"), state, t)
        optimizer.update()
    tolerance = {"float16": 1e-2, "float32": 2e-6, "float64": 1e-13}[dtype]
    np.testing.assert_allclose(link.p.array, wanted, rtol=0, atol=tolerance)
    assert link.p.array.dtype == dtype
    assert {key: link.p.update_rule.state[key].dtype for key in state} == dict.fromkeys(state, np.dtype(dtype))


@pytest.mark.parametrize("lr", [0.1, np.float64(0.1), np.array(0.1)])
@pytest.mark.parametrize("name", ["SGD", "MomentumSGD"])
def test_a_learning_rate_in_float64_changes_no_type(name: str, lr: Any) -> None:
    # Under NumPy 2's promotion rules, numpy.float64 times a float32 array is float64.
    link = link_of(uniform(3).astype("f"))
    optimizer = RULES[name][0]()
    optimizer.lr = lr
    optimizer.setup(link)
    before = link.p.array.copy()
    link.p.grad = np.ones(3, "f")
    optimizer.update()
    assert link.p.array.dtype == np.float32
    np.testing.assert_allclose(link.p.array, before - 0.1, rtol=1e-6)


def test_weight_decay() -> None:
    link = link_of(uniform(3).astype("f"))
    optimizer = optimizers.SGD(0.1).setup(link)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(0.5))
    before, gradient = link.p.array.copy(), uniform(3, seed=1).astype("f")
    link.p.grad = gradient.copy()
    optimizer.update()
    np.testing.assert_allclose(link.p.array, before - 0.1 * (gradient + 0.5 * before), rtol=1e-5)
    assert link.p.array.dtype == link.p.grad.dtype == np.float32


@pytest.mark.parametrize("threshold", [0.5, 100])
def test_gradient_clipping(threshold: float) -> None:
    link = link_of(uniform(3).astype("f"))
    optimizer = optimizers.SGD(1).setup(link)
    optimizer.add_hook(chainer.optimizer_hooks.GradientClipping(threshold))
    before, gradient = link.p.array.copy(), np.array([3, 0, 4], "f")  # its norm is 5
    link.p.grad = gradient.copy()
    optimizer.update()
    np.testing.assert_allclose(link.p.array, before - gradient * min(1, threshold / 5), rtol=1e-5, atol=1e-6)
    assert link.p.array.dtype == np.float32


def test_float16_parameters_with_a_float32_copy() -> None:
    # chainer.mixed16's way: steps too small for float16 add up in the copy.
    link = link_of(np.ones(2, "e"))
    optimizer = optimizers.SGD(1e-4)
    optimizer.use_fp32_update()
    optimizer.setup(link)
    for _ in range(20):
        link.p.grad = np.ones(2, "e")
        optimizer.update()
    assert link.p.array.dtype == np.float16
    assert link.p.update_rule._fp32_param.array.dtype == np.float32
    np.testing.assert_allclose(link.p.update_rule._fp32_param.array, 1 - 20e-4, rtol=1e-5)
    np.testing.assert_allclose(link.p.array, 1 - 20e-4, rtol=1e-3)
