"""Batches of array data sets by one gather, in place of a Python object an example and a concatenation.

``SerialIterator`` builds a list of tuples, which ``concat_examples`` takes apart again. Here the iterator
returns a :class:`Batch`, which is such a list to everyone who looks into it; a ``concat_examples`` that is
the first to look gathers from the data set's arrays instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableSequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Chainer has hardly any annotations; what is said of its objects here is said in words.
ChainerObject = Any


class Batch(MutableSequence[Any]):
    """The list ``[dataset[i] for i in indices]``, built when someone looks at it.

    Args:
        dataset: what the iterator iterates over.
        indices: of the batch's examples.
        arrays: what ``dataset`` holds, one array a component of an example; the examples are tuples of
            their rows if ``in_tuples``, else rows of the only one.
        rows: of the batch's examples in ``arrays``.
        in_tuples: see ``arrays``.
    """

    def __init__(
        self,
        dataset: ChainerObject,
        indices: NDArray[np.intp],
        arrays: tuple[NDArray[Any], ...],
        rows: NDArray[np.intp],
        in_tuples: bool,
    ) -> None:
        self._dataset = dataset
        self._indices = indices
        self._arrays = arrays
        self._rows = rows
        self._in_tuples = in_tuples
        self._list: list[Any] | None = None

    # Scripts ask isinstance(batch, list).
    __class__ = property(lambda _: list)

    def gathered(self) -> tuple[NDArray[Any], ...] | NDArray[Any] | None:
        """The batch as arrays, or None if someone has looked into the list and may have changed it."""
        if self._list is not None:
            return None
        if self._in_tuples:
            return tuple(array.take(self._rows, axis=0) for array in self._arrays)
        return self._arrays[0].take(self._rows, axis=0)

    def _items(self) -> list[Any]:
        if self._list is None:
            self._list = [self._dataset[index] for index in self._indices]
        return self._list

    def __getitem__(self, index: ChainerObject) -> ChainerObject:
        return self._items()[index]

    def __setitem__(self, index: ChainerObject, value: ChainerObject) -> None:
        self._items()[index] = value

    def __delitem__(self, index: ChainerObject) -> None:
        del self._items()[index]

    def insert(self, index: int, value: object) -> None:
        """As ``list.insert``."""
        self._items().insert(index, value)

    def sort(self, *, key: Callable[[Any], Any] | None = None, reverse: bool = False) -> None:
        """As ``list.sort``."""
        self._items().sort(key=key, reverse=reverse)

    def copy(self) -> list[Any]:
        """As ``list.copy``."""
        return self._items().copy()

    def __len__(self) -> int:
        return len(self._indices) if self._list is None else len(self._list)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items())

    def __add__(self, other: list[Any]) -> list[Any]:
        return self._items() + list(other)

    def __radd__(self, other: list[Any]) -> list[Any]:
        return other + self._items()

    def __mul__(self, times: int) -> list[Any]:
        return self._items() * times

    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        return self._items() == (list(other) if isinstance(other, Batch) else other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._items())

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        return list, (self._items(),)


# The arrays below a data set, the map from its indices to their rows, and whether examples are tuples.
_Source = tuple[tuple[NDArray[Any], ...], Callable[[NDArray[np.intp]], NDArray[np.intp]], bool]


def _source(dataset: ChainerObject) -> _Source | None:
    """None for anything but arrays, ``TupleDataset`` of arrays, and ``SubDataset`` of these."""
    from chainer.datasets import SubDataset, TupleDataset

    kind = type(dataset)
    if kind is np.ndarray:
        return ((dataset,), _same, False) if _gives_same_array(dataset) else None
    if kind is TupleDataset:
        arrays = dataset._datasets
        return (arrays, _same, True) if all(map(_gives_same_array, arrays)) else None
    if kind is SubDataset:
        below = _source(dataset._dataset)
        if below is None:
            return None
        arrays, rows, in_tuples = below
        start, order = dataset._start, dataset._order
        if order is None:
            return arrays, lambda indices: rows(indices + start), in_tuples
        if type(order) is np.ndarray and order.ndim == 1 and order.dtype.kind == "i":
            return arrays, lambda indices: rows(order[indices + start]), in_tuples
    return None


def _same(indices: NDArray[np.intp]) -> NDArray[np.intp]:
    return indices


def _gives_same_array(array: object) -> bool:
    # Concatenated rows have the machine's byte order and the rows' order in memory, and strings shrink to fit; a
    # gather keeps the array's type and is C-contiguous.
    return (
        type(array) is np.ndarray
        and array.ndim > 0
        and array.dtype.kind in "biufc"
        and array.dtype.isnative
        and array.flags.c_contiguous
    )


def patch_iterator(module: ChainerObject) -> None:
    """Lets ``SerialIterator`` of ``chainer.iterators.serial_iterator`` return a :class:`Batch`."""
    iterator_class = module.SerialIterator
    shuffler = module.ShuffleOrderSampler
    chainers_next = iterator_class.__next__
    statemachine = module._statemachine.iterator_statemachine

    def following(self: ChainerObject) -> ChainerObject:
        """Does ``SerialIterator.__next__`` for data sets made of arrays."""
        # Another sampler may choose indices that a data set refuses, or counts from its end.
        sampler = self.order_sampler
        own = type(self) is iterator_class and (not sampler or type(sampler) is shuffler)
        source = _source(self.dataset) if own else None
        if source is None:
            return chainers_next(self)
        arrays, rows, in_tuples = source
        self._previous_epoch_detail = self.epoch_detail
        self._state, indices = statemachine(
            self._state, self.batch_size, self.repeat, self.order_sampler, len(self.dataset)
        )
        if indices is None:
            raise StopIteration
        return Batch(self.dataset, indices, arrays, rows(indices), in_tuples)

    iterator_class.__next__ = iterator_class.next = following


def patch_convert(module: ChainerObject) -> None:
    """Lets ``concat_examples`` of ``chainer.dataset.convert`` gather a :class:`Batch`."""
    chainers_concat = module.concat_examples_func
    to_device = module.to_device

    def concat_examples_func(
        batch: ChainerObject, device: ChainerObject = None, padding: ChainerObject = None
    ) -> ChainerObject:
        if type(batch) is Batch and padding is None:
            arrays = batch.gathered()
            if isinstance(arrays, tuple):
                return tuple(to_device(device, array) for array in arrays)
            if arrays is not None:
                return to_device(device, arrays)
        return chainers_concat(batch, device, padding)

    concat_examples_func.__doc__ = chainers_concat.__doc__
    module.concat_examples_func = concat_examples_func
    module.concat_examples.base_callable = concat_examples_func
