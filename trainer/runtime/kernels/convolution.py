"""``Convolution2DFunction`` and its gradient by the weights on PyTorch's kernels."""

from __future__ import annotations

import functools
from typing import Any

from trainer.runtime.kernels import ChainerObject
from trainer.runtime.kernels.tensors import tensor, torch, usable


def patch(module: ChainerObject) -> None:
    """Give the functions of ``chainer.functions.connection.convolution_2d`` another ``forward_cpu``."""
    outsize = module.conv.get_conv_outsize
    ideep = module.intel64.should_use_ideep
    convolution, gradient = module.Convolution2DFunction, module.Convolution2DGradW
    others_forward, others_gradient = convolution.forward_cpu, gradient.forward_cpu

    def sizes(
        function: ChainerObject, image: tuple[int, ...], kernel: tuple[int, ...], cover_all: bool
    ) -> tuple[int, int]:
        return (
            outsize(image[0], kernel[0], function.sy, function.ph, cover_all, function.dy),
            outsize(image[1], kernel[1], function.sx, function.pw, cover_all, function.dx),
        )

    def forward(self: ChainerObject, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Do ``Convolution2DFunction.forward_cpu``: (N, C, H, W) and (C', C / groups, kh, kw) give (N, C', H', W')."""
        x, w, *b = inputs
        if self.cudnn_fast or not usable(*inputs) or any(self.input_layouts) or ideep(">=auto"):
            return others_forward(self, inputs)  # type: ignore[no-any-return]
        out = sizes(self, x.shape[2:], w.shape[2:], False)
        # A window that only cover_all has is beyond the padding that PyTorch knows.
        if min(out) <= 0 or out != sizes(self, x.shape[2:], w.shape[2:], self.cover_all):
            return others_forward(self, inputs)  # type: ignore[no-any-return]
        self.retain_inputs((0, 1))
        y = torch().conv2d(
            tensor(x),
            tensor(w),
            tensor(b[0]) if b else None,
            (self.sy, self.sx),
            (self.ph, self.pw),
            (self.dy, self.dx),
            self.groups,
        )
        return (y.numpy(),)

    def backward(self: ChainerObject, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Do ``Convolution2DGradW.forward_cpu``: x and gy give gW."""
        x, gy = inputs
        if (
            not usable(x, gy)
            or self.W_dtype != x.dtype
            or self._use_ideep
            or ideep(">=auto")
            or gy.shape[2:] != sizes(self, x.shape[2:], (self.kh, self.kw), False)
        ):
            return others_gradient(self, inputs)  # type: ignore[no-any-return]
        self.retain_inputs((0, 1))
        gw = convolution_gradients(self, tensor(gy), tensor(x), torch().empty(self.W_shape), by_weights=True)
        return (gw.numpy(),)

    convolution.forward_cpu = functools.update_wrapper(forward, others_forward)
    gradient.forward_cpu = functools.update_wrapper(backward, others_gradient)


def convolution_gradients(function: ChainerObject, gy: Any, x: Any, w: Any, *, by_weights: bool) -> Any:  # noqa: ANN401
    """One gradient of a convolution.

    Args:
        function: Has stride, padding, dilation and groups, as Chainer names them.
        gy: The gradient of the output, a tensor of shape (N, C', H', W').
        x: The input, a tensor of shape (N, C, H, W); only its shape counts where its own gradient is asked for.
        w: The weights, a tensor of shape (C', C / groups, kh, kw); only its shape counts where their own is.
        by_weights: Which of the two is asked for.
    """
    gradients = torch().ops.aten.convolution_backward(
        gy,
        x,
        w,
        None,
        (function.sy, function.sx),
        (function.ph, function.pw),
        (function.dy, function.dx),
        False,
        (0, 0),
        function.groups,
        (not by_weights, by_weights, False),
    )
    return gradients[by_weights]
