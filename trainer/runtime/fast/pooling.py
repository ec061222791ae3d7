"""Max pooling without the copy of all windows and without ``argmax``.

Chainer copies every window of the image into an array, takes its maximum and then its ``argmax`` along an axis in
the middle, for which NumPy copies it once more. Here the window's elements are compared as they lie in the image, one
after the other and in the same order, so that the first of equal maxima is still the one that counts.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.runtime.fast import ChainerObject

# A window of more elements is rare; its positions would not fit the small integers that they are counted in.
_LARGEST_WINDOW = 127


def patch(module: ChainerObject) -> None:
    """Give ``chainer.functions.pooling.max_pooling_nd`` the shorter ``forward_cpu``, there and back."""
    outsize = module.conv_nd.get_conv_outsize
    ideep = module.intel64.should_use_ideep
    pooling, gradient = module.MaxPoolingND, module.MaxPoolingNDGrad
    chainers_forward, chainers_gradient = pooling.forward_cpu, gradient.forward_cpu

    def forward(self: ChainerObject, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Do ``MaxPoolingND.forward_cpu``: shape (N, C, *D) gives (N, C, *outs)."""
        (x,) = inputs
        if not _plain(x) or int(np.prod(self.ksize)) > _LARGEST_WINDOW or ideep(">=auto"):
            return chainers_forward(self, inputs)  # type: ignore[no-any-return]
        sizes = zip(x.shape[2:], self.ksize, self.stride, self.pad, strict=True)
        outs = tuple(outsize(d, k, s, p, self.cover_all) for d, k, s, p in sizes)
        if min(outs) <= 0:
            return chainers_forward(self, inputs)  # type: ignore[no-any-return]  # Chainer's message
        found = _maxima(_padded(x, self.ksize, self.stride, self.pad, outs), self.ksize, self.stride, outs)
        if found is None:
            return chainers_forward(self, inputs)  # type: ignore[no-any-return]
        self._in_shape, self._in_dtype = x.shape, x.dtype
        y, self.indexes = found
        return (y,)

    def backward(self: ChainerObject, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Do ``MaxPoolingNDGrad.forward_cpu``: shape (N, C, *outs) gives (N, C, *D)."""
        (gy,) = inputs
        func = self.func
        apart = all(s >= k for s, k in zip(func.stride, func.ksize, strict=True))
        if not apart or not _plain(gy) or type(func.indexes) is not np.ndarray or gy.dtype != func._in_dtype:
            return chainers_gradient(self, inputs)  # type: ignore[no-any-return]
        return (_scattered(gy, func.indexes, func._in_shape, func.ksize, func.stride, func.pad),)

    pooling.forward_cpu = functools.update_wrapper(forward, chainers_forward)
    gradient.forward_cpu = functools.update_wrapper(backward, chainers_gradient)


def _plain(array: object) -> bool:
    return type(array) is np.ndarray and array.dtype.kind == "f"


def _padded(
    x: NDArray[Any], ksize: tuple[int, ...], stride: tuple[int, ...], pad: tuple[int, ...], outs: tuple[int, ...]
) -> NDArray[Any]:
    """``x`` with as much of minus infinity around it as the windows reach beyond it; itself if they don't."""
    reach = [(o - 1) * s + k for o, s, k in zip(outs, stride, ksize, strict=True)]
    if not any(pad) and all(r <= d for r, d in zip(reach, x.shape[2:], strict=True)):
        return x
    after = [max(r - d - p, 0) for r, d, p in zip(reach, x.shape[2:], pad, strict=True)]
    return np.pad(x, ((0, 0), (0, 0), *zip(pad, after, strict=True)), constant_values=-np.inf)


def _elements(
    ksize: tuple[int, ...], stride: tuple[int, ...], outs: tuple[int, ...]
) -> Iterator[tuple[int, tuple[slice, ...]]]:
    """For each position in a window, in Chainer's order: its number, and where it lies in the image for all windows."""
    for number, offsets in enumerate(itertools.product(*map(range, ksize))):
        places = zip(offsets, stride, outs, strict=True)
        yield number, (slice(None), slice(None), *(slice(f, f + s * (o - 1) + 1, s) for f, s, o in places))


def _maxima(
    x: NDArray[Any], ksize: tuple[int, ...], stride: tuple[int, ...], outs: tuple[int, ...]
) -> tuple[NDArray[Any], NDArray[np.intp]] | None:
    """The maximum of each window and its position there, in Chainer's types and order; None if one is no number."""
    elements = _elements(ksize, stride, outs)
    y = x[next(elements)[1]].copy(order="K")
    positions = np.zeros_like(y, np.int8)
    larger = np.empty_like(y, np.bool_)
    for number, where in elements:
        element = x[where]
        np.greater(element, y, out=larger)
        np.maximum(y, element, out=y)
        # The numbers grow, so the last that was larger is the largest; a masked copy takes ten times as long.
        np.maximum(positions, larger.view(np.int8) * np.int8(number), out=positions)
    # A window with a NaN is one: its position is that of the first, which "greater" doesn't find.
    if np.isnan(y).any():
        return None
    return np.ascontiguousarray(y), positions.astype(np.intp, order="C")


def _scattered(
    gy: NDArray[Any],
    indexes: NDArray[np.intp],
    in_shape: tuple[int, ...],
    ksize: tuple[int, ...],
    stride: tuple[int, ...],
    pad: tuple[int, ...],
) -> NDArray[Any]:
    """The gradient at the positions of the maxima and zero elsewhere, of windows that don't overlap."""
    edges = zip(in_shape[2:], pad, stride, strict=True)
    gx = np.zeros((*in_shape[:2], *(d + 2 * p + s - 1 for d, p, s in edges)), gy.dtype)
    steps = [step // gx.itemsize for step in gx.strides]
    offsets = [sum(map(operator.mul, each, steps[2:])) for each in itertools.product(*map(range, ksize))]
    places = np.array(offsets).take(indexes)
    # Where each window begins, one axis after the other.
    for axis, (size, step) in enumerate(zip(gy.shape, steps, strict=True)):
        begins = np.arange(size) * (step * (1, 1, *stride)[axis])
        places += begins.reshape([-1 if each == axis else 1 for each in range(gy.ndim)])
    # Chainer adds it to zeros, and 0.0 + -0.0 is 0.0.
    gx.reshape(-1)[places.reshape(-1)] = (gy + gy.dtype.type(0)).reshape(-1)
    return gx[(slice(None), slice(None), *(slice(p, d + p) for d, p in zip(in_shape[2:], pad, strict=True)))]
