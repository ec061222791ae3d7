"""The gradient of ReLU without a multiplication of floats by booleans.

NumPy has no such multiplication: it converts the booleans piece by piece into a buffer. Converted at once, they take
a fifth of the time, and the products are the same, signs of zeros and NaNs included.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from trainer.runtime.fast import ChainerObject


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
            or not gy.ndim
            or ideep(">=auto")
        ):
            return chainers(self, inputs)  # type: ignore[no-any-return]
        return (gy * (y > 0).astype(gy.dtype),)

    gradient.forward_cpu = functools.update_wrapper(forward, chainers)
