"""Max pooling over images on PyTorch's kernels.

Chainer keeps the position of each maximum in its window, PyTorch its position in the image. The second is kept here,
and becomes the first when someone asks for it.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.runtime.kernels import ChainerObject
from trainer.runtime.kernels.tensors import tensor, torch, usable


def patch(module: ChainerObject) -> None:
    """Give ``chainer.functions.pooling.max_pooling_nd`` another ``forward_cpu``, there and back."""
    outsize = module.conv_nd.get_conv_outsize
    ideep = module.intel64.should_use_ideep
    pooling, gradient = module.MaxPoolingND, module.MaxPoolingNDGrad
    others_forward, others_gradient = pooling.forward_cpu, gradient.forward_cpu

    def forward(self: ChainerObject, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Do ``MaxPoolingND.forward_cpu``: shape (N, C, H, W) gives (N, C, H', W')."""
        (x,) = inputs
        self._torch = None
        if self.ndim != 2 or not usable(x) or ideep(">=auto"):
            return others_forward(self, inputs)  # type: ignore[no-any-return]
        for size, k, s, p in zip(x.shape[2:], self.ksize, self.stride, self.pad, strict=True):
            out = outsize(size, k, s, p, self.cover_all)
            # PyTorch has neither more padding than half a window nor windows that begin behind the image.
            if out <= 0 or 2 * p > k or (out - 1) * s >= size + p:
                return others_forward(self, inputs)  # type: ignore[no-any-return]
        image = tensor(x)
        y, places = torch().ops.aten.max_pool2d_with_indices(
            image, self.ksize, self.stride, self.pad, (1, 1), self.cover_all
        )
        self._in_shape, self._in_dtype = x.shape, x.dtype
        self._torch = places, image.stride()
        self.__dict__.pop("indexes", None)
        return (y.numpy(),)

    def backward(self: ChainerObject, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Do ``MaxPoolingNDGrad.forward_cpu``: shape (N, C, H', W') gives (N, C, H, W)."""
        (gy,) = inputs
        func = self.func
        if getattr(func, "_torch", None) is None or not usable(gy):
            return others_gradient(self, inputs)  # type: ignore[no-any-return]
        places, steps = func._torch
        # Only shape and order of the image count.
        image = torch().empty_strided(func._in_shape, steps)
        gx = torch().ops.aten.max_pool2d_with_indices_backward(
            tensor(gy), image, func.ksize, func.stride, func.pad, (1, 1), func.cover_all, places
        )
        return (gx.numpy(),)

    def positions(self: ChainerObject) -> Any:  # noqa: ANN401  # as Chainer has it
        if "indexes" not in self.__dict__:
            if getattr(self, "_torch", None) is None:
                raise AttributeError("indexes")
            self.__dict__["indexes"] = _in_windows(self._torch[0].numpy(), self)
        return self.__dict__["indexes"]

    def keep(self: ChainerObject, value: object) -> None:
        self.__dict__["indexes"] = value

    pooling.forward_cpu = functools.update_wrapper(forward, others_forward)
    gradient.forward_cpu = functools.update_wrapper(backward, others_gradient)
    pooling.indexes = property(positions, keep)


def _in_windows(places: NDArray[np.int64], function: ChainerObject) -> NDArray[np.intp]:
    """Positions in an image, row by row, as positions in their windows."""
    rows, columns = np.divmod(places, function._in_shape[3])
    height, width = places.shape[2:]
    rows -= (np.arange(height) * function.stride[0] - function.pad[0])[:, None]
    columns -= np.arange(width) * function.stride[1] - function.pad[1]
    return np.ascontiguousarray(rows * function.ksize[1] + columns, np.intp)
