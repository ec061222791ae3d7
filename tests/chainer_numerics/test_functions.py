"""Every function that Chainer's MLP, CNN and RNN examples use: value and gradient against NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.chainer_numerics import reference as ref
from tests.chainer_numerics.checking import DTYPES, Array, assert_close, check, distinct, uniform

import chainer  # isort: skip
from chainer import functions as F  # isort: skip  # noqa: N812

Case = tuple[Callable[..., Any], Callable[..., Array], list[Array]]

IMAGES = distinct(2, 3, 6, 5)
IDS = np.array([[2, 0], [2, 3]], np.int32)

CASES: dict[str, Case] = {
    # activations
    "relu": (F.relu, lambda x: np.maximum(x, 0), [distinct(3, 4)]),
    "leaky_relu": (F.leaky_relu, lambda x: np.where(x >= 0, x, 0.2 * x), [distinct(3, 4)]),
    "sigmoid": (F.sigmoid, ref.sigmoid, [uniform(3, 4) * 3]),
    "tanh": (F.tanh, np.tanh, [uniform(3, 4) * 2]),
    "softplus": (F.softplus, lambda x: np.log1p(np.exp(x)), [uniform(3, 4) * 2]),
    "softmax": (F.softmax, ref.softmax, [uniform(3, 4) * 2]),
    "softmax over the last axis": (lambda x: F.softmax(x, axis=2), lambda x: ref.softmax(x, 2), [uniform(2, 3, 4)]),
    "log_softmax": (F.log_softmax, lambda x: np.log(ref.softmax(x)), [uniform(3, 4)]),
    # connections
    "linear": (F.linear, lambda x, w, b: x @ w.T + b, [uniform(3, 4), uniform(2, 4), uniform(2)]),
    "linear, flattening": (F.linear, lambda x, w: x.reshape(3, -1) @ w.T, [uniform(3, 2, 2), uniform(5, 4)]),
    "convolution_2d": (
        lambda x, w, b: F.convolution_2d(x, w, b, stride=1, pad=1),
        lambda x, w, b: ref.convolution(x, w, b, 1, 1),
        [uniform(2, 3, 4, 5), uniform(2, 3, 3, 3), uniform(2)],
    ),
    "convolution_2d, strided": (
        lambda x, w: F.convolution_2d(x, w, stride=2),
        lambda x, w: ref.convolution(x, w, None, 2, 0),
        [uniform(2, 2, 5, 7), uniform(3, 2, 3, 3)],
    ),
    "embed_id": (lambda w: F.embed_id(IDS, w), lambda w: w[IDS], [uniform(4, 3)]),
    "embed_id, ignoring": (
        lambda w: F.embed_id(np.array([1, -1], np.int32), w, ignore_label=-1),
        lambda w: np.stack([w[1], np.zeros(3)]),
        [uniform(4, 3)],
    ),
    # pooling and normalization
    "max_pooling_2d": (
        lambda x: F.max_pooling_2d(x, 2, stride=2), lambda x: ref.max_pooling(x, 2, 2), [IMAGES]
    ),
    "max_pooling_2d, overlapping": (
        lambda x: F.max_pooling_2d(x, 3, stride=2, pad=1, cover_all=False),
        lambda x: ref.max_pooling(x, 3, 2, 1, cover_all=False),
        [IMAGES],
    ),
    "average_pooling_2d": (
        lambda x: F.average_pooling_2d(x, 3, stride=2, pad=1), lambda x: ref.average_pooling(x, 3, 2, 1), [IMAGES]
    ),
    "local_response_normalization": (
        lambda x: F.local_response_normalization(x, alpha=0.1),
        lambda x: ref.local_response_normalization(x, alpha=0.1),
        [uniform(2, 7, 2, 2)],
    ),
    "batch_normalization": (
        F.batch_normalization, ref.batch_normalization, [uniform(6, 3), uniform(3, low=0.5), uniform(3)]
    ),
    "batch_normalization of images": (
        F.batch_normalization, ref.batch_normalization, [uniform(2, 3, 2, 2), uniform(3, low=0.5), uniform(3)]
    ),
    # recurrent
    "lstm, cell": (
        lambda c, x: F.lstm(c, x)[0], lambda c, x: ref.lstm_step(c, x)[0], [uniform(2, 3), uniform(2, 12)]
    ),
    "lstm, output": (
        lambda c, x: F.lstm(c, x)[1], lambda c, x: ref.lstm_step(c, x)[1], [uniform(2, 3), uniform(2, 12)]
    ),
    # shapes and sums
    "reshape": (lambda x: F.reshape(x, (4, 3)), lambda x: x.reshape(4, 3), [uniform(3, 4)]),
    "transpose": (lambda x: F.transpose(x, (2, 0, 1)), lambda x: x.transpose(2, 0, 1), [uniform(2, 3, 4)]),
    "swapaxes": (lambda x: F.swapaxes(x, 0, 1), lambda x: x.swapaxes(0, 1), [uniform(2, 3)]),
    "concat": (lambda x, y: F.concat((x, y), axis=1), lambda x, y: np.hstack([x, y]), [uniform(2, 3), uniform(2, 1)]),
    "stack": (lambda x, y: F.stack((x, y)), lambda x, y: np.stack([x, y]), [uniform(2, 3), uniform(2, 3, seed=1)]),
    "split_axis, first": (lambda x: F.split_axis(x, [1, 3], 0)[1], lambda x: x[1:3], [uniform(5, 2)]),
    "split_axis, last": (lambda x: F.split_axis(x, 3, 1)[2], lambda x: x[:, 4:], [uniform(2, 6)]),
    "expand_dims": (lambda x: F.expand_dims(x, 1), lambda x: x[:, None], [uniform(2, 3)]),
    "squeeze": (F.squeeze, np.squeeze, [uniform(2, 1, 3)]),
    "broadcast_to": (lambda x: F.broadcast_to(x, (4, 3)), lambda x: np.broadcast_to(x, (4, 3)), [uniform(1, 3)]),
    "get_item": (lambda x: x[:, 1], lambda x: x[:, 1], [uniform(3, 4)]),
    "sum": (F.sum, np.sum, [uniform(3, 4)]),
    "sum over an axis": (lambda x: F.sum(x, axis=1), lambda x: x.sum(axis=1), [uniform(3, 4)]),
    "mean": (lambda x: F.mean(x, axis=0), lambda x: x.mean(axis=0), [uniform(3, 4)]),
    "max": (F.max, np.max, [distinct(3, 4)]),
    "max over an axis": (lambda x: F.max(x, axis=2), lambda x: x.max(axis=2), [distinct(2, 2, 3)]),
    "matmul": (F.matmul, np.matmul, [uniform(2, 3), uniform(3, 4)]),
    # arithmetic
    "add and multiply by numbers": (lambda x, y: 2 * x + y * 0.5 - 1, lambda x, y: 2 * x + y * 0.5 - 1, [
        uniform(2, 3), uniform(2, 3, seed=1)
    ]),
    "multiply, divide, power": (lambda x, y: x * y / (y + 2) ** 2, lambda x, y: x * y / (y + 2) ** 2, [
        uniform(2, 3), uniform(2, 3, seed=1)
    ]),
    "exp": (F.exp, np.exp, [uniform(2, 3)]),
    "log": (F.log, np.log, [uniform(2, 3, low=0.5, high=2)]),
    "sqrt": (F.sqrt, np.sqrt, [uniform(2, 3, low=0.5, high=2)]),
    "mean_squared_error": (
        F.mean_squared_error, lambda x, y: ((x - y) ** 2).mean(), [uniform(3, 4), uniform(3, 4, seed=1)]
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient(name: str, dtype: str) -> None:
    function, reference, inputs = CASES[name]
    check(function, reference, inputs, dtype)


T = np.array([2, 0, -1, 1], np.int32)
WEIGHT = np.array([0.5, 1, 2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", ["valid", "all"])
@pytest.mark.parametrize("weighted", [False, True])
def test_softmax_cross_entropy(dtype: str, count: str, weighted: bool) -> None:
    weight = WEIGHT if weighted else None
    check(
        lambda x: F.softmax_cross_entropy(
            x, T, normalize=count == "valid", class_weight=None if weight is None else weight.astype(dtype)
        ),
        lambda x: ref.cross_entropy(x, T, weight).sum() / (3 if count == "valid" else 4),
        [uniform(4, 3) * 2],
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_cross_entropy_of_each_example(dtype: str) -> None:
    check(
        lambda x: F.softmax_cross_entropy(x, T, reduce="no"),
        lambda x: ref.cross_entropy(x, T),
        [uniform(4, 3) * 2],
        dtype,
    )


def test_softmax_cross_entropy_of_large_scores() -> None:
    x = np.array([[1000, 0], [0, 1000]], np.float32)
    assert F.softmax_cross_entropy(x, np.array([0, 1], np.int32)).array == 0
    assert F.softmax_cross_entropy(x, np.array([1, 0], np.int32)).array == 1000


@pytest.mark.parametrize("dtype", DTYPES)
def test_accuracy(dtype: str) -> None:
    y = np.array([[0, 1], [1, 0], [0, 1], [0, 1]], dtype)
    t = np.array([1, 1, 1, -1], np.int32)
    accuracy = F.accuracy(y, t).array
    assert accuracy.dtype == dtype
    assert accuracy == 0.5
    np.testing.assert_allclose(F.accuracy(y, t, ignore_label=-1).array, 2 / 3, rtol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout(dtype: str) -> None:
    np.random.seed(0)
    x = chainer.Variable(uniform(100, 50, low=0.5, high=1).astype(dtype))
    with chainer.using_config("train", True):
        y, mask = F.dropout(x, 0.3, return_mask=True)
    assert y.dtype == mask.dtype == dtype
    assert_close(np.unique(mask), np.array([0, 1 / 0.7]), 1e-3)
    assert abs((mask == 0).mean() - 0.3) < 0.03
    assert_close(y.array, x.array.astype("d") * mask, 1e-3)
    y.grad = np.ones_like(y.array)
    y.backward()
    np.testing.assert_array_equal(x.grad, mask)
    with chainer.using_config("train", False):
        assert F.dropout(x, 0.3) is x


def test_fixed_batch_normalization() -> None:
    x, mean, variance = uniform(4, 3), uniform(3), uniform(3, low=0.5)
    gamma, beta = uniform(3, seed=1), uniform(3, seed=2)
    check(
        F.fixed_batch_normalization,
        lambda x, g, b, m, v: g * (x - m) / np.sqrt(v + 2e-5) + b,
        [x, gamma, beta, mean, variance],
        "float64",
    )


def test_copy() -> None:
    x = chainer.Variable(uniform(2, 3))
    y = F.copy(x, -1)
    np.testing.assert_array_equal(y.array, x.array)
    y.grad = gradient = uniform(2, 3, seed=1)
    y.backward()
    np.testing.assert_array_equal(x.grad, gradient)
