"""The losses that a compiled step knows: Chainer's function, and its value and gradient for one batch shape.

The arithmetic is Chainer's, call for call (Chainer 7.8.1, ``functions/loss/softmax_cross_entropy.py`` and
``functions/loss/mean_squared_error.py``), and so are the bits on NumPy.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

# NumPy's and CuPy's arrays and modules share an interface that neither can name.
Array = Any
ArrayModule = Any

# Of so many classes the maxima are found sooner along columns than along rows.
_FEW_CLASSES = 32


class Loss(Protocol):
    """A loss of outputs of shape (B, units)."""

    def fits(self, t: Array) -> bool:
        """Whether ``t`` has the shape and type of this batch's labels or targets."""

    def __call__(self, outputs: Array, t: Array, /) -> tuple[Array, Array]:
        """The loss, an array without dimensions, and its gradient by the outputs, a new array."""


class CrossEntropy:
    """Mean softmax cross-entropy with labels.

    Args:
        xp: NumPy or CuPy; its device is in use.
        dtype: Of the outputs.
        shape: Of the outputs, (B, classes).
        ignore_label: The label whose examples count neither in the loss nor in its gradient.
    """

    def __init__(self, xp: ArrayModule, dtype: np.dtype[Any], shape: tuple[int, int], ignore_label: int) -> None:
        self._xp, self._dtype, self._ignore_label = xp, dtype, ignore_label
        self._rows = xp.arange(shape[0])
        self._unit = xp.ones((), dtype)
        few = xp is np and shape[1] <= _FEW_CLASSES
        self._columns = np.empty(shape[::-1], dtype) if few else None

    def fits(self, t: Array) -> bool:
        """Whether ``t`` is labels, integers of shape (B,)."""
        return bool(t.shape == self._rows.shape and t.dtype.kind == "i")

    def __call__(self, scores: Array, t: Array) -> tuple[Array, Array]:
        """Loss and gradient; see :class:`Loss`."""
        # loss = -mean over valid rows of log softmax(scores)[t];
        # its gradient by the scores = (softmax(scores) - onehot(t)) / valid rows.
        xp = self._xp
        largest = self._largest(scores)
        shifted = scores - largest
        xp.exp(shifted, out=shifted)
        total = shifted.sum(axis=1, keepdims=True)
        xp.log(total, out=total)
        total += largest
        log_probability = xp.subtract(scores, total, out=shifted)

        valid = t != self._ignore_label
        # Usually all are, and what follows would multiply by ones. Of a GPU this is not asked.
        partly = xp is not np or np.count_nonzero(valid) != len(valid)
        if partly:
            # An ignored row points at class 0 and is multiplied by zero.
            t = t * valid
        log_likelihood = log_probability[self._rows, t]
        if partly:
            log_likelihood *= valid
        scale = 1.0 / (self._at_least_one(valid.sum()) if partly else np.int64(len(valid)))
        loss = (log_likelihood.sum(keepdims=True) * -scale).astype(self._dtype).reshape(())

        gradient = xp.exp(log_probability, out=log_probability)
        gradient[self._rows, t] -= 1
        if partly:
            gradient *= valid.reshape(-1, 1)
        # Not the scale alone: Chainer multiplies by the loss's own gradient first, and the type of
        # that product decides how the next line rounds.
        gradient *= self._unit * scale
        return loss, gradient

    def _largest(self, scores: Array) -> Array:
        if self._columns is None:
            return scores.max(axis=1, keepdims=True)
        # Many short rows; the maximum has no order, and a zero's sign is lost in the exponentials.
        np.copyto(self._columns, scores.T)
        return np.maximum.reduce(self._columns, axis=0).reshape(-1, 1)

    def _at_least_one(self, count: Array) -> Array:
        # Python's max() would wait for a GPU; NumPy's maximum would make an array where Chainer has a
        # number, and with it another rounding.
        return max(count, 1) if self._xp is np else self._xp.maximum(count, 1).astype(self._dtype)


class MeanSquaredError:
    """Mean squared error.

    Args:
        xp: NumPy or CuPy.
        dtype: Of the outputs.
        shape: Of the outputs, (B, units).
    """

    def __init__(self, xp: ArrayModule, dtype: np.dtype[Any], shape: tuple[int, int]) -> None:
        self._xp, self._dtype, self._shape = xp, dtype, shape

    def fits(self, t: Array) -> bool:
        """Whether ``t`` is targets of the outputs' shape and type."""
        return bool(t.shape == self._shape and t.dtype == self._dtype)

    def __call__(self, outputs: Array, t: Array) -> tuple[Array, Array]:
        """Loss and gradient; see :class:`Loss`."""
        # loss = mean of (outputs - t)^2; its gradient by the outputs = 2 (outputs - t) / (B units).
        difference = outputs - t
        flat = difference.ravel()
        if self._xp is np:
            loss = np.array(flat.dot(flat) / flat.size, self._dtype)
        else:
            loss = flat.dot(flat) / self._dtype.type(flat.size)
        difference *= 2.0 / flat.size
        return loss, difference
