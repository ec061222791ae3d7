"""Batch normalization in fewer passes over the batch, and into arrays that are there already.

Chainer's own takes the mean twice (``var`` computes it again), subtracts it twice, and makes an array for each
intermediate result. The operations that are left are the same ones, on the same operands in the same order.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from trainer.runtime.fast import ChainerObject

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
        mean = x.mean(axis=axis, dtype=x.dtype)
        x_hat = x - mean[expander]
        y = x_hat * x_hat
        # What numpy.var does from here on; its own mean of x has the same bits as the one above.
        var = y.mean(axis=axis, dtype=x.dtype)
        inv_std = np.reciprocal(np.sqrt(var + eps, dtype=x.dtype))
        x_hat *= inv_std[expander]
        np.multiply(x_hat, gamma[expander], out=y)
        y += beta[expander]
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
