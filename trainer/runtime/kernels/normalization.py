"""Batch normalization over the axis of the channels, while training, on PyTorch's kernels."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from trainer.runtime.kernels import ChainerObject
from trainer.runtime.kernels.tensors import tensor, torch, usable


def patch(module: ChainerObject) -> None:
    """Give ``GeneralBatchNormalizationImpl`` of Chainer's ``batch_normalization`` module other kernels."""
    general = module.GeneralBatchNormalizationImpl
    others_forward, others_backward = general.forward, general.backward

    def covered(self: ChainerObject, axis: tuple[int, ...], x: Any, gamma: Any, *others: Any) -> bool:  # noqa: ANN401
        # A subclass may have a mean and variance of its own: ChainerMN's are those of all processes.
        return (
            type(self) is general
            and usable(x, gamma, *others)
            and gamma.ndim == 1
            and tuple(axis) == (0, *range(2, x.ndim))
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
        if (
            not covered(self, axis, x, gamma, beta, *running)
            # It updates them where they are.
            or any(not each.flags.c_contiguous or not each.flags.writeable for each in running)
            # PyTorch divides by the number of values less one.
            or x.size <= gamma.size
        ):
            return others_forward(  # type: ignore[no-any-return]
                self, axis, gamma, x, x_layout, xp, expander, beta, eps, decay, running_mean, running_var
            )
        y, mean, inv_std = (
            each.numpy()
            for each in torch().ops.aten.native_batch_norm(
                tensor(x),
                tensor(gamma),
                tensor(beta),
                *([tensor(each) for each in running] or (None, None)),
                True,
                1 - decay,
                eps,
            )
        )
        # For Chainer's attribute, which nothing but iDeep's kernels reads.
        var = np.reciprocal(inv_std * inv_std) - inv_std.dtype.type(eps)
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
        if not covered(self, axis, x, gamma, gy, mean, inv_std):
            return others_backward(  # type: ignore[no-any-return]
                self, axis, gamma, gy, x, x_layout, xp, expander, mean, inv_std, eps, var, forward_data
            )
        gx, ggamma, gbeta = torch().ops.aten.native_batch_norm_backward(
            tensor(gy),
            tensor(x),
            tensor(gamma),
            None,
            None,
            tensor(mean),
            tensor(inv_std),
            True,
            eps,
            (True, True, True),
        )
        return gx.numpy(), None, ggamma.numpy(), gbeta.numpy()

    general.forward = functools.update_wrapper(forward, others_forward)
    general.backward = functools.update_wrapper(backward, others_backward)
