"""Batches gathered from whole arrays, and their conversion to what a network takes."""

from __future__ import annotations

from typing import Any

import chainer
import numpy as np
from chainer import AbstractSerializer
from chainer.dataset import converter
from chainer.iterators import SerialIterator, ShuffleOrderSampler
from chainer.iterators._statemachine import IteratorState, iterator_statemachine
from numpy.typing import NDArray

from trainer.runtime.training.step import Array


class ArrayIterator(SerialIterator):  # type: ignore[misc]
    """``SerialIterator`` over an image array and a label array, without a Python object an example.

    The arrays are sent to ``device`` once, as bytes, and batches are gathered there: on a GPU nothing
    but a batch's indices is sent afterwards. The order comes from a generator of its own, which is
    part of the iterator's serialized state, so a resumed run sees the batches that it would have
    seen. With the same seed it is the order of ``SerialIterator(data, batch_size,
    order_sampler=ShuffleOrderSampler(numpy.random.RandomState(seed)))``.

    Args:
        images: uint8, shape (N, ...).
        labels: integers, shape (N,).
        batch_size: examples a batch. With ``repeat``, a batch may span two epochs, as in Chainer.
        repeat: whether to go on after the first epoch.
        shuffle: whether each epoch has a new random order.
        seed: of the order.
        device: where batches are made.

    Yields:
        Pairs: uint8 of shape (B, pixels), int32 of shape (B,).
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[Any],
        batch_size: int,
        *,
        repeat: bool = True,
        shuffle: bool = True,
        seed: int = 0,
        device: chainer.backend.Device | None = None,
    ) -> None:
        device = device or chainer.get_device("@numpy")
        self._device = device
        # On a GPU an epoch's order is sent once, and batches take their part of it there.
        self._order_stays = device.xp is not np
        self._sent: tuple[Array, Array] | None = None
        self._random = np.random.RandomState(seed)
        self._images: Array = device.send(images.reshape(len(images), -1))
        self._labels: Array = device.send(labels.astype(np.int32))
        sampler = ShuffleOrderSampler(self._random) if shuffle else None
        # The data set is only asked for its length: batches come from the arrays.
        self._state: IteratorState
        super().__init__(labels, batch_size, repeat=repeat, order_sampler=sampler, shuffle=None if shuffle else False)

    def __next__(self) -> tuple[Array, Array]:
        self._previous_epoch_detail = self.epoch_detail
        before = self._state
        self._state, indices = iterator_statemachine(
            self._state, self.batch_size, self.repeat, self.order_sampler, len(self.dataset)
        )
        if indices is None:
            raise StopIteration
        if self._order_stays:
            indices = self._indices_on_device(before, indices)
        return self._images.take(indices, axis=0), self._labels.take(indices)

    next = __next__

    def _indices_on_device(self, before: IteratorState, indices: NDArray[np.intp]) -> Array:
        if self._state.is_new_epoch:
            # A batch of two orders, once an epoch.
            return self._device.send(indices)
        order = before.order
        if self._sent is None or self._sent[0] is not order:
            whole = np.arange(len(self.dataset)) if order is None else order
            self._sent = (order, self._device.send(whole))
        return self._sent[1][before.current_position : self._state.current_position]

    def serialize(self, serializer: AbstractSerializer) -> None:
        """Position, epoch and order, as ``SerialIterator``, and the state of the generator."""
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


@converter()  # type: ignore[untyped-decorator]
def unit_range(batch: tuple[Array, Array], device: chainer.backend.Device) -> tuple[Array, Array]:
    """Bytes to float32 between 0 and 1: the arithmetic of ``chainer.datasets.get_mnist``."""
    images, labels = device.send(batch) if device is not None else batch
    x = images.astype(np.float32)
    x *= 1 / 255
    return x, labels
