"""Batches gathered from whole arrays, and their conversion to what a network takes."""

from __future__ import annotations

from typing import Any

import chainer
import numpy as np
from chainer import AbstractSerializer
from chainer.dataset import converter
from chainer.datasets import TupleDataset
from chainer.iterators import SerialIterator, ShuffleOrderSampler
from chainer.iterators._statemachine import IteratorState, iterator_statemachine
from numpy.typing import NDArray

from trainer.runtime.faults import RuntimeFault
from trainer.runtime.training.losses import Array
from trainer.runtime.training.ranks import Ranks
from trainer.runtime.training.step import Batch


class ArrayIterator(SerialIterator):  # type: ignore[misc]
    """``SerialIterator`` over arrays, which gathers a whole batch without making an object per example.

    The arrays are sent to ``device`` once, as they are, and batches are gathered there: on a GPU nothing
    but a batch's indices is sent afterwards. The order comes from a generator of its own, which is
    part of the iterator's serialized state, so a resumed run sees the batches that it would have
    seen. With the same seed it is the order of ``SerialIterator(dataset, batch_size,
    order_sampler=ShuffleOrderSampler(numpy.random.RandomState(seed)))``.

    Args:
        dataset: An array of shape (N, ...), a tuple of such arrays, or a ``TupleDataset`` of them.
        batch_size: Examples per batch, B. With ``repeat``, a batch may span two epochs, as in Chainer.
        repeat: Whether to go on after the first epoch.
        shuffle: Whether each epoch has a new random order.
        seed: Of the order.
        device: Where batches are made.
        ranks: Each takes its part of every batch; epochs, batch size and serialized state are those of all together.

    Attributes:
        share: What part of the last batch this rank had, from 0 to 1.

    Yields:
        An array of shape (B, ...) and the data set's type, or a tuple of one per array of the data set; the
        updater's converter makes of it what the network takes (:func:`unit_range`).

    Raises:
        TypeError: The data set does not consist of NumPy arrays.
        RuntimeFault: A batch has fewer examples than there are ranks.
    """

    def __init__(
        self,
        dataset: NDArray[Any] | tuple[NDArray[Any], ...] | TupleDataset,
        batch_size: int,
        *,
        repeat: bool = True,
        shuffle: bool = True,
        seed: int = 0,
        device: chainer.backend.Device | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        device = device or chainer.get_device("@numpy")
        if isinstance(dataset, tuple):
            dataset = TupleDataset(*dataset)
        self._device = device
        # On a GPU an epoch's order is sent once, and batches take their part of it there.
        self._order_stays = device.xp is not np
        self._sent: tuple[Array, Array] | None = None
        self._random = np.random.RandomState(seed)
        self._arrays: tuple[Array, ...] = device.send(arrays_of(dataset))
        self._in_tuples = not isinstance(dataset, np.ndarray)
        sampler = ShuffleOrderSampler(self._random) if shuffle else None
        self._state: IteratorState
        self._ranks = ranks or Ranks()
        self.share = 1.0
        if batch_size < self._ranks.size:
            raise RuntimeFault(
                f"a batch of {batch_size} has no example for some of {self._ranks.size} ranks", "take more"
            )
        super().__init__(dataset, batch_size, repeat=repeat, order_sampler=sampler, shuffle=None if shuffle else False)

    def __next__(self) -> Batch:
        self._previous_epoch_detail = self.epoch_detail
        before = self._state
        self._state, indices = iterator_statemachine(
            self._state, self.batch_size, self.repeat, self.order_sampler, len(self.dataset)
        )
        if indices is None:
            raise StopIteration
        if not self._ranks.joined:
            raise RuntimeFault(
                "each rank would train a model of its own", "give the ranks to rt.compiled(updater, ranks)"
            )
        if self._order_stays:
            indices = self._indices_on_device(before, indices)
        whole = len(indices)
        indices = self._ranks.part(indices)
        self.share = len(indices) / whole
        batch = tuple([array.take(indices, axis=0) for array in self._arrays])
        return batch if self._in_tuples else batch[0]

    next = __next__

    def _indices_on_device(self, before: IteratorState, indices: NDArray[np.intp]) -> Array:
        if self._state.is_new_epoch:
            # A batch of two orders, once per epoch.
            return self._device.send(indices)
        order = before.order
        if self._sent is None or self._sent[0] is not order:
            whole = np.arange(len(self.dataset)) if order is None else order
            self._sent = (order, self._device.send(whole))
        return self._sent[1][before.current_position : self._state.current_position]

    def serialize(self, serializer: AbstractSerializer) -> None:
        """Save or load position, epoch and order, as ``SerialIterator``, and the state of the generator."""
        super().serialize(serializer)
        # Loading fills the order in place.
        self._sent = None
        _, keys, position, *_ = self._random.get_state()
        keys = serializer("random_keys", keys)
        position = serializer("random_position", position)
        self._random.set_state(("MT19937", keys, position, 0, 0.0))
        order = self._state.order
        if order is not None and not np.array_equal(np.sort(order), np.arange(len(self.dataset))):
            raise ValueError("the order of the examples is not a permutation of them")


def arrays_of(dataset: Any) -> tuple[NDArray[Any], ...]:  # noqa: ANN401  # any of Chainer's data sets
    """The arrays that ``dataset`` is made of: itself, or those of a ``TupleDataset``.

    Raises:
        TypeError: It is made of anything else.
    """
    arrays = dataset._datasets if type(dataset) is TupleDataset else (dataset,)
    if not all(isinstance(array, np.ndarray) and array.ndim for array in arrays):
        raise TypeError(
            "ArrayIterator takes an array, a tuple of arrays or a TupleDataset of arrays; "
            "chainer.iterators.SerialIterator takes any data set"
        )
    return tuple(arrays)


@converter()  # type: ignore[untyped-decorator]
def unit_range(batch: tuple[Array, Array], device: chainer.backend.Device) -> tuple[Array, Array]:
    """Make float32 between 0 and 1 of bytes: the arithmetic of ``chainer.datasets.get_mnist``.

    Args:
        batch: uint8 of any shape, or float32, which stays as it is; and labels.
        device: Where it is to be.
    """
    images, labels = device.send(batch) if device is not None else batch
    x = images.astype(np.float32)
    if images.dtype == np.uint8:
        x *= 1 / 255
    return x, labels
