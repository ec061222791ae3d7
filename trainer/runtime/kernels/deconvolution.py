"""``Deconvolution2DFunction``, which is also the gradient of a convolution by its input, on PyTorch's kernels."""

from __future__ import annotations

import functools
from typing import Any

from trainer.runtime.kernels import ChainerObject
from trainer.runtime.kernels.convolution import convolution_gradients
from trainer.runtime.kernels.tensors import tensor, torch, usable


def patch(module: ChainerObject) -> None:
    """Give ``Deconvolution2DFunction`` of ``chainer.functions.connection.deconvolution_2d`` another ``forward_cpu``."""
    outsize = module.conv.get_conv_outsize
    ideep = module.intel64.should_use_ideep
    deconvolution = module.Deconvolution2DFunction
    others = deconvolution.forward_cpu

    def forward(self: ChainerObject, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Do ``Deconvolution2DFunction.forward_cpu``: (N, C', H', W') and weights give (N, C, H, W)."""
        gy, w, *b = inputs
        if not usable(*inputs) or any(self.input_layouts) or ideep(">=auto"):
            return others(self, inputs)  # type: ignore[no-any-return]
        self._calc_out_size(gy.shape, w.shape)
        fitting = (
            outsize(self.outh, w.shape[2], self.sy, self.ph, False, self.dy),
            outsize(self.outw, w.shape[3], self.sx, self.pw, False, self.dx),
        )
        # Otherwise the convolution is one with cover_all, whose last windows reach beyond the padding.
        if gy.shape[2:] != fitting:
            return others(self, inputs)  # type: ignore[no-any-return]
        self.retain_inputs((0, 1))
        x = torch().empty((gy.shape[0], w.shape[1] * self.groups, self.outh, self.outw))
        y = convolution_gradients(self, tensor(gy), x, tensor(w), by_weights=False).numpy()
        if b:
            y += b[0].reshape(1, -1, 1, 1)
        return (y,)

    deconvolution.forward_cpu = functools.update_wrapper(forward, others)
