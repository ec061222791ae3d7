"""The gradient of ReLU without a multiplication of floats by booleans.

NumPy has no such multiplication: it converts the booleans piece by piece into a buffer. Converted at once, they take
a fifth of the time, and the products are the same, signs of zeros and NaNs included. A few examples at a time, what is
made in between stays in the cache.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.runtime.fast import ChainerObject
from trainer.runtime.fast.rows import examples, like_both


def patch(module: ChainerObject) -> None:
    """Give ``ReLUGrad2`` of ``chainer.functions.activation.relu`` the shorter ``forward_cpu``."""
    gradient = module.ReLUGrad2
    chainers = gradient.forward_cpu
    ideep = module.intel64.should_use_ideep

    def forward(self: ChainerObject, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Do ``ReLUGrad2.forward_cpu``."""
        (gy,) = inputs
        y = self.b
        if (
            type(gy) is not np.ndarray
            or type(y) is not np.ndarray
            or gy.dtype != y.dtype
            or gy.shape != y.shape
            or not gy.size
            or ideep(">=auto")
        ):
            return chainers(self, inputs)  # type: ignore[no-any-return]
        return (_gradient(gy, y),)

    gradient.forward_cpu = functools.update_wrapper(forward, chainers)


def _gradient(gy: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    gx = like_both(gy, y)
    if not gy.ndim or (each := examples(gy)) >= len(gy):
        # Not as a product of its own, which NumPy would write into the converted mask, whose order is that of y.
        return np.multiply(gy, (y > 0).astype(gy.dtype), out=gx)  # type: ignore[no-any-return]
    positive = np.empty_like(y[:each], bool)
    # Casts across two orders are slow, copies of bytes are not.
    ordered = np.empty_like(gx[:each], bool)
    for first in range(0, len(gy), each):
        part = slice(first, first + each)
        into = gx[part]
        mask = ordered[: len(into)]
        if positive.strides == ordered.strides:
            np.greater(y[part], 0, out=mask)
        else:
            mask[...] = np.greater(y[part], 0, out=positive[: len(into)])
        np.copyto(into, mask)
        np.multiply(gy[part], into, out=into)
    return gx
