"""How a function or a link of Chainer's is compared with NumPy.

The reference is plain NumPy, written from the formula. Gradients are compared with central
differences of the *reference* in float64, so Chainer's forward pass has no part in judging its
backward pass.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.runtime import compat

compat.apply()

import chainer  # noqa: E402

Array = NDArray[Any]

# Relative to the largest value of the result. float16 has 11 bits, float32 24.
FORWARD = {"float16": 4e-3, "float32": 2e-6, "float64": 1e-12}
BACKWARD = {"float16": 2e-2, "float32": 2e-5, "float64": 1e-7}
DTYPES = tuple(FORWARD)
STEP = 1e-5


def assert_close(got: Array, wanted: Array, tolerance: float) -> None:
    """Equal shapes, and no element further away than ``tolerance`` times the largest one."""
    assert got.shape == wanted.shape
    scale = max(float(np.abs(wanted).max(initial=0)), 1e-3)
    np.testing.assert_allclose(got.astype(np.float64), wanted, rtol=0, atol=tolerance * scale)


def numerical_gradients(
    function: Callable[..., Array], inputs: Sequence[Array], cotangent: Array, step: float = STEP
) -> list[Array]:
    """Central differences of ``sum(cotangent * function(*inputs))``, an array for each input."""
    gradients = []
    for varied in inputs:
        gradient = np.zeros_like(varied)
        for index in np.ndindex(varied.shape):
            value = varied[index]
            ends = []
            for end in (value + step, value - step):
                varied[index] = end
                ends.append(float((cotangent * function(*inputs)).sum()))
            varied[index] = value
            gradient[index] = (ends[0] - ends[1]) / (2 * step)
        gradients.append(gradient)
    return gradients


def check(
    function: Callable[..., Any],
    reference: Callable[..., Array],
    inputs: Sequence[Array],
    dtype: str,
    device: str = "@numpy",
) -> None:
    """Compares value, gradient and types of a function of Chainer's with a reference in NumPy.

    Args:
        function: takes variables, returns a variable.
        reference: takes and returns arrays in float64.
        inputs: float64; rounded to ``dtype`` for both sides.
        dtype: in which Chainer computes.
        device: where Chainer computes.
    """
    send, fetch = chainer.get_device(device).send, chainer.get_device("@numpy").send
    rounded = [x.astype(dtype).astype(np.float64) for x in inputs]
    variables = [chainer.Variable(send(x.astype(dtype))) for x in rounded]
    output = function(*variables)
    wanted = np.asarray(reference(*rounded))
    assert output.dtype == dtype
    assert_close(fetch(output.array), wanted, FORWARD[dtype])

    cotangent = np.random.default_rng(1).uniform(-1, 1, wanted.shape).astype(dtype).astype(np.float64)
    output.grad = send(cotangent.astype(dtype).reshape(output.shape))
    output.backward()
    for variable, gradient in zip(variables, numerical_gradients(reference, rounded, cotangent), strict=True):
        assert variable.grad.dtype == dtype
        assert_close(fetch(variable.grad), gradient, BACKWARD[dtype])


def uniform(*shape: int, seed: int = 0, low: float = -1, high: float = 1) -> Array:
    """Reproducible float64 values."""
    return np.random.default_rng((seed, *shape)).uniform(low, high, shape)


def distinct(*shape: int, seed: int = 0) -> Array:
    """Values whose order survives rounding and small steps: a shuffled grid, none near zero."""
    count = int(np.prod(shape))
    grid = (np.arange(count) - count / 2 + 0.25) / count
    return np.random.default_rng((seed, *shape)).permutation(grid).reshape(shape) * 4
