"""Batch normalization in fewer passes over the batch, and into arrays that are there already.

Chainer's own takes the mean twice (``var`` computes it again), subtracts it twice, and makes an array for each
intermediate result. The operations that are left are the same ones, on the same operands in the same order. Where
the channels of an image lie next to each other, as they do behind a convolution, the batch is worked on in blocks that
stay in the cache (:mod:`trainer.runtime.fast.rows`).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.runtime.fast import ChainerObject
from trainer.runtime.fast.rows import Blocks, Sum, examples, like_both, mean_of, rows_of, sum_of_rows

_TYPES = (np.dtype(np.float32), np.dtype(np.float64))


def patch(module: ChainerObject) -> None:
    """Give ``GeneralBatchNormalizationImpl`` of Chainer's ``batch_normalization`` module fewer passes."""
    general = module.GeneralBatchNormalizationImpl
    chainers_forward, chainers_backward = general.forward, general.backward

    def plain(self: ChainerObject, *arrays: object) -> bool:
        # A subclass may have a mean and variance of its own: ChainerMN's are those of all processes.
        return (
            type(self) is general
            and all(type(each) is np.ndarray for each in arrays)
            and arrays[0].dtype in _TYPES  # type: ignore[attr-defined]
            and all(each.dtype == arrays[0].dtype for each in arrays)  # type: ignore[attr-defined]
        )

    def forward(  # Chainer's own signature
        self: ChainerObject,
        axis: Any,  # noqa: ANN401
        gamma: Any,  # noqa: ANN401
        x: Any,  # noqa: ANN401
        x_layout: Any,  # noqa: ANN401
        xp: Any,  # noqa: ANN401
        expander: Any,  # noqa: ANN401
        beta: Any,  # noqa: ANN401
        eps: float,
        decay: float,
        running_mean: Any,  # noqa: ANN401
        running_var: Any,  # noqa: ANN401
    ) -> tuple[Any, ...]:
        """Do ``GeneralBatchNormalizationImpl.forward``."""
        running = () if running_mean is None else (running_mean, running_var)
        if not plain(self, x, gamma, beta) or any(type(each) is not np.ndarray for each in running):
            return chainers_forward(  # type: ignore[no-any-return]
                self, axis, gamma, x, x_layout, xp, expander, beta, eps, decay, running_mean, running_var
            )
        rows = rows_of(x, axis)
        if rows is None:
            mean = x.mean(axis=axis, dtype=x.dtype)
            x_hat = x - mean[expander]
            y = x_hat * x_hat
            # What numpy.var does from here on; its own mean of x has the same bits as the one above.
            var = y.mean(axis=axis, dtype=x.dtype)
            inv_std = np.reciprocal(np.sqrt(var + eps, dtype=x.dtype))
            x_hat *= inv_std[expander]
            np.multiply(x_hat, gamma[expander], out=y)
            y += beta[expander]
        else:
            y = np.empty_like(x)
            mean, var, inv_std = _forward_rows(rows, gamma, beta, eps, _rows(y, axis))
        if running_mean is not None:
            m = x.size // gamma.size
            adjust = m / max(m - 1.0, 1.0)
            running_mean *= decay
            running_mean += (1 - decay) * mean
            running_var *= decay
            running_var += (1 - decay) * adjust * var
        return y, x_layout, running_mean, running_var, mean, var, inv_std, None

    def backward(  # Chainer's own signature
        self: ChainerObject,
        axis: Any,  # noqa: ANN401
        gamma: Any,  # noqa: ANN401
        gy: Any,  # noqa: ANN401
        x: Any,  # noqa: ANN401
        x_layout: Any,  # noqa: ANN401
        xp: Any,  # noqa: ANN401
        expander: Any,  # noqa: ANN401
        mean: Any,  # noqa: ANN401
        inv_std: Any,  # noqa: ANN401
        eps: float,
        var: Any,  # noqa: ANN401
        forward_data: Any,  # noqa: ANN401
    ) -> tuple[Any, ...]:
        """Do ``GeneralBatchNormalizationImpl.backward``."""
        if not plain(self, x, gamma, gy, mean, inv_std):
            return chainers_backward(  # type: ignore[no-any-return]
                self, axis, gamma, gy, x, x_layout, xp, expander, mean, inv_std, eps, var, forward_data
            )
        rows, gy_rows = rows_of(x, axis), rows_of(gy, axis)
        if rows is not None and gy_rows is not None:
            gx = np.empty_like(x)
            ggamma, gbeta = _backward_rows(rows, gy_rows, gamma, mean, inv_std, _rows(gx, axis))
            return gx, None, ggamma, gbeta
        if rows is not None and 0 in axis and (gx := like_both(gy, x)).flags.c_contiguous:
            ggamma, gbeta = _backward_across(x, gy, gamma, mean, inv_std, axis, expander, gx)
            return gx, None, ggamma, gbeta
        x_hat = x - mean[expander]
        x_hat *= inv_std[expander]
        gbeta, ggamma = self.get_ggamma_and_gbeta(axis, gamma, gy, x_hat, xp)
        x_hat *= ggamma[expander]
        x_hat += gbeta[expander]
        x_hat *= gamma.dtype.type(1.0 / (x.size // gamma.size))
        gx = gy - x_hat  # a new array: in whose order it is depends on both
        gx *= (gamma * inv_std)[expander]
        return gx, None, ggamma, gbeta

    general.forward = functools.update_wrapper(forward, chainers_forward)
    general.backward = functools.update_wrapper(backward, chainers_backward)


def _rows(array: NDArray[Any], axis: tuple[int, ...]) -> NDArray[Any]:
    rows = rows_of(array, axis)
    assert rows is not None
    return rows


def _forward_rows(
    x: NDArray[Any], gamma: NDArray[Any], beta: NDArray[Any], eps: float, y: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Normalize rows of channels.

    Args:
        x: Shape (M, C).
        gamma: Shape (C,).
        beta: Shape (C,).
        eps: Is added to the variance.
        y: Where the result goes, shape (M, C).

    Returns:
        Mean, variance and the reciprocal of the standard deviation, each of shape (C,).
    """
    blocks = Blocks(x)
    mean = mean_of(sum_of_rows(x), len(x))
    lines, into, means, squares = blocks.lines(x), blocks.lines(y), blocks.line(mean), Sum(mean)
    for part, room in blocks:
        np.subtract(lines[part], means, out=room)
        np.multiply(room, room, out=room)
        squares.add(blocks.scratch(room))
    var = mean_of(squares.total, len(x))
    inv_std = np.reciprocal(np.sqrt(var + eps, dtype=x.dtype))
    factors, gammas, betas = map(blocks.line, (inv_std, gamma, beta))
    for part, room in blocks:
        np.subtract(lines[part], means, out=room)
        np.multiply(room, factors, out=room)
        np.multiply(room, gammas, out=room)
        np.add(room, betas, out=into[part])
    return mean, var, inv_std


def _backward_rows(
    x: NDArray[Any],
    gy: NDArray[Any],
    gamma: NDArray[Any],
    mean: NDArray[Any],
    inv_std: NDArray[Any],
    gx: NDArray[Any],
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The gradients of :func:`_forward_rows`.

    Args:
        x: Shape (M, C).
        gy: Shape (M, C).
        gamma: Shape (C,).
        mean: Shape (C,).
        inv_std: Shape (C,).
        gx: Where the gradient by ``x`` goes, shape (M, C).

    Returns:
        The gradients by gamma and beta, each of shape (C,).
    """
    blocks = Blocks(x)
    gbeta = sum_of_rows(gy)
    lines, gradients, into = map(blocks.lines, (x, gy, gx))
    means, factors, products = blocks.line(mean), blocks.line(inv_std), Sum(mean)
    for part, room in blocks:
        np.subtract(lines[part], means, out=room)
        np.multiply(room, factors, out=room)
        np.multiply(gradients[part], room, out=room)
        products.add(blocks.scratch(room))
    ggamma = products.total
    inv_m = gamma.dtype.type(1.0 / len(x))
    ggammas, gbetas, scales = map(blocks.line, (ggamma, gbeta, gamma * inv_std))
    for part, room in blocks:
        np.subtract(lines[part], means, out=room)
        np.multiply(room, factors, out=room)
        np.multiply(room, ggammas, out=room)
        np.add(room, gbetas, out=room)
        np.multiply(room, inv_m, out=room)
        np.subtract(gradients[part], room, out=room)
        np.multiply(room, scales, out=into[part])
    return ggamma, gbeta


def _backward_across(
    x: NDArray[Any],
    gy: NDArray[Any],
    gamma: NDArray[Any],
    mean: NDArray[Any],
    inv_std: NDArray[Any],
    axis: tuple[int, ...],
    expander: Any,  # noqa: ANN401
    gx: NDArray[Any],
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The gradients where the channels of ``x`` lie next to each other and those of ``gy`` don't.

    What NumPy makes of both is in the order of ``gx``; so ``x`` is copied into that order, once.

    Args:
        x: Shape S.
        gy: Shape S.
        gamma: Shape (C,).
        mean: Shape (C,).
        inv_std: Shape (C,).
        axis: All axes of S but that of the channels, the first among them.
        expander: Indexes an array of shape (C,) so that it can be broadcast to S.
        gx: Where the gradient by ``x`` goes, shape S, C-contiguous.

    Returns:
        The gradients by gamma and beta, each of shape (C,).
    """
    blocks = [slice(first, first + each) for each in [examples(x)] for first in range(0, len(x), each)]
    x_hat = np.empty_like(gx)
    for part in blocks:
        room = x_hat[part]
        np.copyto(room, x[part])
        room -= mean[expander]
        room *= inv_std[expander]
        np.multiply(gy[part], room, out=gx[part])
    gbeta = gy.sum(axis=axis, dtype=gamma.dtype)
    ggamma = gx.sum(axis=axis, dtype=gamma.dtype)
    inv_m = gamma.dtype.type(1.0 / (x.size // gamma.size))
    scale = gamma * inv_std
    for part in blocks:
        room, into = x_hat[part], gx[part]
        room *= ggamma[expander]
        room += gbeta[expander]
        room *= inv_m
        np.subtract(gy[part], room, out=into)
        into *= scale[expander]
    return ggamma, gbeta
