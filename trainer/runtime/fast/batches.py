"""Batches of array data sets without a Python call per example.

``SerialIterator`` asks the data set for one example after the other, and ``concat_examples`` wraps each in an
array of its own before it concatenates them. Here the list is made by one ``map`` over the rows, and the arrays
are concatenated as they are. The lists, the examples in them and the concatenated arrays are Chainer's.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.runtime.fast import ChainerObject

_strides = operator.attrgetter("strides")


def patch_iterator(module: ChainerObject) -> None:
    """Let ``SerialIterator`` of ``chainer.iterators.serial_iterator`` make its lists sooner."""
    iterator_class = module.SerialIterator
    statemachine = module._statemachine.iterator_statemachine

    def following(self: ChainerObject) -> list[Any]:
        """Do ``SerialIterator.__next__``."""
        self._previous_epoch_detail = self.epoch_detail
        self._state, indices = statemachine(
            self._state, self.batch_size, self.repeat, self.order_sampler, len(self.dataset)
        )
        if indices is None:
            raise StopIteration
        examples = _examples(self.dataset, indices)
        return [self.dataset[index] for index in indices] if examples is None else examples

    iterator_class.__next__ = iterator_class.next = following


def patch_convert(module: ChainerObject) -> None:
    """Let ``concat_examples`` of ``chainer.dataset.convert`` concatenate NumPy arrays sooner."""
    chainers_concat = module._concat_arrays

    def concat_arrays(arrays: ChainerObject, padding: ChainerObject) -> ChainerObject:
        """Do ``_concat_arrays``: shapes S, ..., S give (B, *S)."""
        joined = None if padding is not None or type(arrays) is not list else _joined(arrays)
        return chainers_concat(arrays, padding) if joined is None else joined

    module._concat_arrays = concat_arrays


def _examples(dataset: ChainerObject, indices: ChainerObject) -> list[Any] | None:
    """``[dataset[index] for index in indices]``; None where another way to it isn't known."""
    from chainer.datasets import SubDataset, TupleDataset

    if type(indices) is not np.ndarray or indices.dtype.kind != "i" or not indices.size:
        return None
    kind = type(dataset)
    if kind is np.ndarray or kind is list:
        return list(map(dataset.__getitem__, indices.tolist())) if kind is list or dataset.ndim else None
    if kind is TupleDataset:
        parts = [_examples(part, indices) for part in dataset._datasets]
        return None if any(part is None for part in parts) else list(zip(*parts, strict=True))
    if kind is SubDataset:
        start, order = dataset._start, dataset._order
        # Others count from the end, or are refused.
        if indices.min() < 0 or indices.max() >= len(dataset):
            return None
        rows: NDArray[np.intp] = indices + start
        if order is not None:
            if type(order) is not np.ndarray or order.ndim != 1 or order.dtype.kind != "i":
                return None
            rows = order[rows]
        return _examples(dataset._dataset, rows)
    return None


def _joined(arrays: list[Any]) -> NDArray[Any] | None:
    """What Chainer makes of ``arrays`` without padding; None where another way to it isn't known."""
    first = arrays[0]
    if isinstance(first, np.number | np.bool_):
        # The labels of a batch. Types that differ have a common one, which asarray finds like concatenate.
        return np.asarray(arrays) if len(set(map(type, arrays))) == 1 else None
    if (
        set(map(type, arrays)) != {np.ndarray}
        or not first.ndim
        or not first.size
        # Then the result is C-contiguous too; else it has the order in memory that most of them have.
        or not first.flags.c_contiguous
        or len(set(map(_strides, arrays))) != 1
        or len(set(map(len, arrays))) != 1
    ):
        return None
    try:
        return np.concatenate(arrays).reshape(len(arrays), *first.shape)
    except ValueError:  # shapes differ; Chainer's message is the one that its users know
        return None
