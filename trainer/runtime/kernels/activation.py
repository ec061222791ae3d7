"""ReLU and its gradient on PyTorch's kernels, which share the work among threads."""

from __future__ import annotations

import functools
from typing import Any

from trainer.runtime.kernels import ChainerObject
from trainer.runtime.kernels.tensors import tensor, torch, usable


def patch(module: ChainerObject) -> None:
    """Give ``ReLU`` and ``ReLUGrad2`` of ``chainer.functions.activation.relu`` another ``forward_cpu``."""
    ideep = module.intel64.should_use_ideep
    relu, gradient = module.ReLU, module.ReLUGrad2
    others_forward, others_gradient = relu.forward_cpu, gradient.forward_cpu

    def forward(self: ChainerObject, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Do ``ReLU.forward_cpu``."""
        (x,) = inputs
        if not usable(x) or ideep(">=auto"):
            return others_forward(self, inputs)  # type: ignore[no-any-return]
        self.retain_outputs((0,))
        return (torch().relu(tensor(x)).numpy(),)

    def backward(self: ChainerObject, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Do ``ReLUGrad2.forward_cpu``."""
        (gy,) = inputs
        if not usable(gy, self.b) or gy.shape != self.b.shape or ideep(">=auto"):
            return others_gradient(self, inputs)  # type: ignore[no-any-return]
        return (torch().ops.aten.threshold_backward(tensor(gy), tensor(self.b), 0).numpy(),)

    relu.forward_cpu = functools.update_wrapper(forward, others_forward)
    gradient.forward_cpu = functools.update_wrapper(backward, others_gradient)
