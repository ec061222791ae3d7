"""Sums and blocks of rows for arrays whose channels lie next to each other in memory.

NumPy goes through such an array one row of channels after the other, and what it costs to begin a row is several times
what 16 or 32 additions take. ``einsum`` adds the same rows in the same order in a fifth of the time, and operations
element by element take several rows at once if the other operand is repeated as often.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Elements that are worked on together: they, their result and what they are made of fit in the cache of one core.
_BLOCK = 65536
# Elements of a repeated operand: enough that beginning a line costs nothing, few enough to stay in the nearest cache.
_LINE = 2048


def rows_of(array: NDArray[Any], axis: tuple[int, ...]) -> NDArray[Any] | None:
    """The array as rows of channels, shape (M, C), in its own memory; None if it does not lie there like this.

    Args:
        array: Any shape with C channels along the one axis that is not in ``axis``.
        axis: All other axes.
    """
    channel = [each for each in range(array.ndim) if each not in axis]
    if len(channel) != 1:
        return None
    moved = np.moveaxis(array, channel[0], -1)
    channels = moved.shape[-1]
    if not moved.flags.c_contiguous or channels < 2 or array.size < _LINE:
        return None
    rows = moved.reshape(-1, channels)
    if _repeats(*rows.shape) * channels < _LINE // 4 or not _adds_like_reduce(channels, array.dtype):
        return None
    return rows


def _repeats(length: int, channels: int) -> int:
    """How many rows make a line: a power of two that divides their number."""
    return math.gcd(length, 1 << max(_LINE // channels, 1).bit_length() - 1)


class Blocks:
    """Rows in blocks that fit in the cache, each made of lines that have several rows.

    Args:
        rows: Shape (M, C).
    """

    def __init__(self, rows: NDArray[Any]) -> None:
        self._repeats = _repeats(*rows.shape)
        self._each = max(1, _BLOCK // rows.shape[1] // self._repeats) * self._repeats
        self._each = min(self._each, len(rows))
        self._length, self._channels = rows.shape
        self._scratch = np.empty((1 + self._each, self._channels), rows.dtype)

    def __iter__(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """For each block: which lines it has, and room for as many."""
        room = self.lines(self._scratch[1:])
        count, each = self._length // self._repeats, self._each // self._repeats
        for first in range(0, count, each):
            part = slice(first, min(first + each, count))
            yield part, room[: part.stop - first]

    def lines(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The same memory as lines."""
        return rows.reshape(-1, self._repeats * self._channels)

    def scratch(self, lines: NDArray[Any]) -> NDArray[Any]:
        """A block's room as rows, and one row before it: shape (1 + rows of the block, C)."""
        return self._scratch[: 1 + lines.size // self._channels]

    def line(self, values: NDArray[Any]) -> NDArray[Any]:
        """One value per channel, repeated to a line."""
        return np.tile(values, self._repeats)


class Sum:
    """What :func:`sum_of_rows` gives for rows that come block by block.

    Args:
        like: Has one value per channel, of the rows' type.

    Attributes:
        total: The sum of the rows that have come, shape (C,).
    """

    def __init__(self, like: NDArray[Any]) -> None:
        self.total = np.zeros_like(like)

    def add(self, block: NDArray[Any]) -> None:
        """Add a block of rows.

        Args:
            block: Shape (1 + rows, C); what is in its first row is written over.
        """
        block[0] = self.total
        self.total = sum_of_rows(block)


def sum_of_rows(rows: NDArray[Any]) -> NDArray[Any]:
    """``numpy.add.reduce(rows, axis=0)`` for what :func:`rows_of` gives."""
    return np.einsum("ij->j", rows)  # type: ignore[no-any-return]


def mean_of(total: NDArray[Any], count: int) -> NDArray[Any]:
    """Make a mean of a sum as ``numpy.mean`` does, in place."""
    return np.true_divide(total, np.intp(count), out=total, casting="unsafe")  # type: ignore[no-any-return]


@functools.cache
def _adds_like_reduce(channels: int, dtype: np.dtype[Any]) -> bool:
    """Whether ``einsum`` adds rows of so many channels as ``add.reduce`` does, in this NumPy."""
    rows = np.random.RandomState(0).standard_normal((max(64, 20000 // channels), channels)).astype(dtype)
    rows[:, 0] = -0.0  # whose sum has the sign of what the additions begin with
    return bool(np.einsum("ij->j", rows).tobytes() == np.add.reduce(rows, axis=0).tobytes())


def like_both(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """An empty array in the order in memory that NumPy gives what it makes of two arrays of one shape and type."""
    # Its rule looks at strides, and at whether a length is more than one.
    return (
        np.empty_like(np.logical_or(one[:2], other[:2]), one.dtype, shape=one.shape) if one.ndim else np.empty_like(one)
    )


def examples(array: NDArray[Any]) -> int:
    """How many of an array's parts along its first axis are worked on together: they fit in the cache of one core."""
    return max(1, _BLOCK * len(array) // max(array.size, 1))
