"""Average pooling over images on PyTorch's kernels."""

from __future__ import annotations

import functools
from typing import Any

from trainer.runtime.kernels import ChainerObject
from trainer.runtime.kernels.tensors import tensor, torch, usable


def patch(module: ChainerObject) -> None:
    """Give ``chainer.functions.pooling.average_pooling_2d`` another ``forward_cpu``, there and back."""
    outsize = module.conv.get_conv_outsize
    ideep = module.intel64.should_use_ideep
    pooling, gradient = module.AveragePooling2D, module.AveragePooling2DGrad
    others_forward, others_gradient = pooling.forward_cpu, gradient.forward_cpu

    def known(function: ChainerObject, shape: tuple[int, ...]) -> bool:
        # PyTorch has no more padding than half a window.
        return all(
            2 * p <= k and outsize(size, k, s, p) > 0
            for size, k, s, p in (
                (shape[2], function.kh, function.sy, function.ph),
                (shape[3], function.kw, function.sx, function.pw),
            )
        )

    def windows(function: ChainerObject) -> tuple[Any, ...]:
        # Kernel, stride, padding; the last window is whole; what is padded counts.
        kernel, stride, padding = (function.kh, function.kw), (function.sy, function.sx), (function.ph, function.pw)
        return kernel, stride, padding, False, True

    def forward(self: ChainerObject, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Do ``AveragePooling2D.forward_cpu``: shape (N, C, H, W) gives (N, C, H', W')."""
        (x,) = inputs
        if not usable(x) or ideep(">=auto") or not known(self, x.shape):
            return others_forward(self, inputs)  # type: ignore[no-any-return]
        self._in_shape, self._in_dtype = x.shape, x.dtype
        return (torch().ops.aten.avg_pool2d(tensor(x), *windows(self)).numpy(),)

    def backward(self: ChainerObject, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Do ``AveragePooling2DGrad.forward_cpu``: shape (N, C, H', W') gives (N, C, H, W)."""
        (gy,) = inputs
        if not usable(gy) or ideep(">=auto") or not known(self, self._in_shape):
            return others_gradient(self, inputs)  # type: ignore[no-any-return]
        # Only the image's shape counts.
        image = torch().empty(self._in_shape)
        return (torch().ops.aten.avg_pool2d_backward(tensor(gy), image, *windows(self), None).numpy(),)

    pooling.forward_cpu = functools.update_wrapper(forward, others_forward)
    gradient.forward_cpu = functools.update_wrapper(backward, others_gradient)
