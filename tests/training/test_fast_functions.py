"""The shorter convolution, pooling, batch normalization and ReLU beside Chainer's own, bit for bit, there and back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import chainer
import chainer.functions as F  # noqa: N812
import numpy as np
import pytest
from chainer.functions.activation import relu
from chainer.functions.connection import convolution_2d, deconvolution_2d
from chainer.functions.normalization import batch_normalization
from chainer.functions.pooling import max_pooling_nd
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.runtime.fast import activation, convolution, normalization, pooling, rows

DTYPES = [np.float32, np.float64, np.float16]
PATCHED: list[tuple[Any, Callable[[Any], None], tuple[tuple[Any, str], ...]]] = [
    (relu, activation.patch, ((relu.ReLUGrad2, "forward_cpu"),)),
    (convolution_2d, convolution.patch, ((convolution_2d, "conv"),)),
    (deconvolution_2d, convolution.patch_transposed, ((deconvolution_2d, "conv"),)),
    (
        batch_normalization,
        normalization.patch,
        tuple((batch_normalization.GeneralBatchNormalizationImpl, name) for name in ("forward", "backward")),
    ),
    (
        max_pooling_nd,
        pooling.patch,
        tuple((getattr(max_pooling_nd, name), "forward_cpu") for name in ("MaxPoolingND", "MaxPoolingNDGrad")),
    ),
]


@contextmanager
def shorter() -> Iterator[None]:
    """With all of them in place, as the launcher has them."""
    kept = [(where, name, getattr(where, name)) for _, _, names in PATCHED for where, name in names]
    try:
        for module, patch, _ in PATCHED:
            patch(module)
        yield
    finally:
        for where, name, value in kept:
            setattr(where, name, value)


def same(found: Any, expected: Any) -> None:
    """Bits, types, and the order in memory, which decides the order of the sums that follow."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    # The sign of a NaN depends on the operands' places in the processor's instruction.
    assert np.isnan(found).tolist() == np.isnan(expected).tolist()
    assert np.where(np.isnan(found), 0, found).tobytes() == np.where(np.isnan(expected), 0, expected).tobytes()
    # Axes of one element have no order.
    orders = [
        [step for step, size in zip(each.strides, each.shape, strict=True) if size > 1] for each in (found, expected)
    ]
    assert np.argsort(orders[0], kind="stable").tolist() == np.argsort(orders[1], kind="stable").tolist()


def both(compute: Callable[[], list[Any]]) -> None:
    """What ``compute`` gives, with Chainer's own functions and with the shorter ones."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", UserWarning)  # of batches of one example
        expected = compute()
        with shorter():
            found = compute()
    for one, other in zip(found, expected, strict=True):
        same(one, other)


def images(
    seed: int, shape: tuple[int, ...], dtype: Any, *, special: bool = False, channels_last: bool = False
) -> np.ndarray[Any, Any]:
    """Numbers of which many are equal; with ``special`` also zeros of both signs, infinities and NaNs."""
    random = np.random.RandomState(seed)
    values = np.round(random.standard_normal(shape) * 2, 1).astype(dtype)
    if special:
        odd = np.array([0.0, -0.0, np.inf, -np.inf, np.nan], dtype)
        values = np.where(random.random_sample(shape) < 0.5, values, odd[random.randint(0, 5, shape)])
    if channels_last:
        values = np.moveaxis(np.ascontiguousarray(np.moveaxis(values, 1, -1)), -1, 1)
    return values


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 2**31),
    st.sampled_from(DTYPES),
    st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.integers(0, 1)), min_size=1, max_size=3
    ),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_max_pooling(
    seed: int,
    dtype: Any,
    axes: list[tuple[int, int, int, int]],
    cover_all: bool,
    special: bool,
    channels_last: bool,
) -> None:
    sizes, ksize, stride, pad = map(tuple, zip(*axes, strict=True))
    x = images(seed, (2, 3, *sizes), dtype, special=special, channels_last=channels_last)

    def compute() -> list[Any]:
        func = max_pooling_nd.MaxPoolingND(len(axes), ksize, stride, pad, cover_all)
        variable = chainer.Variable(x)
        try:
            (y,) = func.apply((variable,))
        except AssertionError:  # no window fits
            return []
        gy = chainer.Variable(images(seed + 1, y.shape, dtype, special=special))
        (first,) = chainer.grad([y], [variable], [gy], enable_double_backprop=True)
        (second,) = chainer.grad([first], [gy], [chainer.Variable(x)])
        return [y.array, func.indexes, first.array, second.array]

    both(compute)


@settings(deadline=None, max_examples=80)
@given(
    st.integers(0, 2**31),
    st.sampled_from(DTYPES),
    st.sampled_from(
        [
            *[(4, 3, 5, 6), (1, 2, 3, 3), (7, 5), (2, 3, 4), (64, 8, 16, 16), (3, 1, 1, 1)],
            *[(128, 6, 9, 5), (2048, 17), (33, 4, 9, 9), (16, 3, 4, 5, 8)],
        ]
    ),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_batch_normalization(
    seed: int, dtype: Any, shape: tuple[int, ...], special: bool, channels_last: bool, wide: bool
) -> None:
    x = images(seed, shape, dtype, special=special, channels_last=channels_last)
    gy = images(seed + 1, shape, dtype, channels_last=seed % 2 == 0)
    gamma, beta = (images(seed + n, (shape[1],), np.float32 if wide else dtype) for n in (2, 3))

    def compute() -> list[Any]:
        variables = [chainer.Variable(each) for each in (x, gamma, beta)]
        running = [np.full(shape[1], each, gamma.dtype) for each in (0.5, 2)]
        y = F.batch_normalization(*variables, running_mean=running[0], running_var=running[1])
        y.grad = gy
        y.backward()
        return [y.array, *running, *(each.grad for each in variables)]

    both(compute)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**31),
    st.sampled_from(DTYPES),
    # NumPy writes into the intermediate results of an expression where they have 256 KiB and more.
    st.sampled_from([(3, 4, 5, 2), (16, 8, 32, 33), (1, 8, 100, 100), (140000,)]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_relu(seed: int, dtype: Any, shape: tuple[int, ...], special: bool, channels_last: bool, other: bool) -> None:
    channels_last, other = channels_last and len(shape) > 1, other and len(shape) > 1
    x = images(seed, shape, dtype, special=special, channels_last=channels_last)
    gy = images(seed + 1, shape, dtype, special=special, channels_last=other)

    def compute() -> list[Any]:
        variable = chainer.Variable(x)
        y = F.relu(variable)
        y.grad = gy
        y.backward()
        return [y.array, variable.grad]

    both(compute)


@settings(deadline=None, max_examples=100)
@given(
    st.integers(0, 2**31),
    st.sampled_from(DTYPES),
    st.lists(
        st.tuples(st.integers(3, 9), st.integers(1, 5), st.sampled_from([1, 1, 2]), st.integers(0, 4)),
        min_size=2,
        max_size=2,
    ),
    st.integers(1, 2),
    st.booleans(),
)
def test_convolution(seed: int, dtype: Any, axes: list[tuple[int, int, int, int]], dilate: int, special: bool) -> None:
    sizes, ksize, stride, pad = map(tuple, zip(*axes, strict=True))
    x, w = images(seed, (3, 4, *sizes), dtype, special=special), images(seed + 1, (5, 4, *ksize), dtype)

    def compute() -> list[Any]:
        variables = chainer.Variable(x), chainer.Variable(w)
        try:
            y = F.convolution_2d(*variables, stride=stride, pad=pad, dilate=dilate)
        except AssertionError:  # no window fits
            return []
        y.grad = images(seed + 2, y.shape, dtype, special=special)
        y.backward()
        return [y.array, *(each.grad for each in variables)]

    both(compute)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_of_rows(dtype: Any) -> None:
    """Block by block and at once, and the sign of a sum of negative zeros."""
    values = images(0, (4096, 16), dtype)
    values[:, 1], values[:, 2], values[:-1, 3], values[1:, 4] = -0.0, 0.0, -0.0, -0.0
    expected = np.add.reduce(values, axis=0)
    blocks, total = rows.Blocks(values), rows.Sum(expected)
    for part, room in blocks:
        room[...] = blocks.lines(values)[part]
        total.add(blocks.scratch(room))
    for found in (rows.sum_of_rows(values), total.total):
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("size", [(17, 16), (64, 64)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_network(dtype: Any, channels_last: bool, size: tuple[int, int]) -> None:
    """All of them one after the other: what one leaves in memory is what the next one finds."""
    x = images(0, (9, 3, *size), dtype, channels_last=channels_last)
    weights = [images(n, shape, dtype) for n, shape in enumerate([(8, 3, 3, 3), (4, 8, 3, 3)])]
    gamma, beta = np.ones(8, dtype), np.zeros(8, dtype)

    def compute() -> list[Any]:
        variables = [chainer.Variable(each) for each in (x, *weights, gamma, beta)]
        h = F.relu(F.batch_normalization(F.convolution_2d(variables[0], variables[1], pad=1), *variables[3:]))
        h = F.max_pooling_2d(h, 2)
        h = F.max_pooling_2d(F.relu(F.convolution_2d(h, variables[2], stride=2)), 3, 2)
        F.sum(h * h).backward()
        return [h.array, *(each.grad for each in variables)]

    both(compute)
