"""A safetensors file: a model's arrays under their own names, read back and compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import IntegrityError, UsageError

_TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "c8")


def safetensors_bytes(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """Return the content of a safetensors file, which has been read back and is the same bit for bit.

    Args:
        arrays: By name.
        metadata: Written into its head.

    Raises:
        UsageError: An array is of a type that the format lacks.
        IntegrityError: What is read back differs.
    """
    from safetensors.numpy import load, save

    plain: dict[str, NDArray[Any]] = {}
    for name, array in arrays.items():
        if array.dtype.str[1:] not in _TYPES:
            raise UsageError(f"{name} is of type {array.dtype}, which safetensors lacks.", "Leave it out of the model.")
        # In the machine's byte order and in C's order, whatever the file had; unlike ascontiguousarray this keeps the
        # shape of a single number.
        plain[name] = np.array(array, array.dtype.newbyteorder("="), order="C")
    content = save(plain, dict(metadata))
    back = load(content)
    for name, array in plain.items():
        found = back.get(name)
        if (
            found is None
            or (found.dtype, found.shape) != (array.dtype, array.shape)
            or found.tobytes() != array.tobytes()
        ):
            raise IntegrityError(f"{name} is another in the safetensors file.", "Nothing was written.")
    if set(back) != set(plain):
        raise IntegrityError("The safetensors file holds other arrays.", "Nothing was written.")
    return content
