"""NumPy arrays as PyTorch tensors over the same memory."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np

from trainer.runtime.kernels import Tensor

_FLOAT32 = np.dtype(np.float32)


@functools.cache
def torch() -> Any:  # noqa: ANN401  # the module
    """PyTorch, imported on the first call."""
    return importlib.import_module("torch")


def usable(*arrays: object) -> bool:
    """Whether all are plain, non-empty float32 arrays in the processor's byte order."""
    return all(
        type(each) is np.ndarray and each.dtype == _FLOAT32 and each.dtype.isnative and each.size for each in arrays
    )


def tensor(array: object) -> Tensor:
    """The array as a tensor: the same memory, unless PyTorch can't describe it."""
    assert isinstance(array, np.ndarray)
    # A gradient that was broadcast is read-only, and PyTorch has no tensors that are; nor has it negative strides.
    if not array.flags.writeable or any(step < 0 or step % array.itemsize for step in array.strides):
        array = array.copy()
    return torch().from_numpy(array)
