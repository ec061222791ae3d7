"""The position of an iterator can be assigned, as it could while scripts of Chainer 4 to 6 were written.

The loop of Chainer's own tutorial, and of Azure's, starts a test iterator over by ``test_iter.epoch = 0``,
``test_iter.current_position = 0`` and ``test_iter.is_new_epoch = False``. In Chainer 7 these are properties of an
immutable state.

ChainerMN's iterator that hands one rank's batches to the others is made to work with the NumPy of today.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from trainer.runtime.compat.hook import Patch, numpy_at_least

_FIELDS = ("current_position", "epoch", "is_new_epoch")


def _settable(class_name: str, module: ModuleType) -> None:
    iterator = getattr(module, class_name)
    for field in _FIELDS:
        setattr(iterator, field, _property(field, getattr(iterator, field)))


def _property(field: str, chainers: property) -> property:
    def assign(self: Any, value: Any) -> None:  # noqa: ANN401  # Chainer has no types
        state = self._state._replace(**{field: value})
        if state.epoch == 0 and state.current_position == 0 and not state.is_new_epoch:
            # What reset() does, but for the order: Chainer 4 to 6 kept the last epoch's too.
            self._previous_epoch_detail = -1.0
        self._state = state
        if hasattr(self, "_next"):  # MultithreadIterator's batch of the old position
            self._next = None

    return property(chainers.fget, assign, doc=chainers.__doc__)


def _settable_serial(module: ModuleType) -> None:
    _settable("SerialIterator", module)


def _settable_multithread(module: ModuleType) -> None:
    _settable("MultithreadIterator", module)


def _one_element_counts(module: Any) -> None:  # noqa: ANN401  # a module whose globals are set
    # The size of the data set arrives as an array of shape (1,). Only this module's own calls of int are meant.
    module.int = lambda value: int(value.item() if getattr(value, "size", 0) == 1 else value)


PATCHES = (
    Patch(
        name="serial-iterator-position",
        module="chainer.iterators.serial_iterator",
        reason="test_iter.epoch = 0 and the like are refused, with which the tutorials start an iterator over",
        versions="any",
        after=_settable_serial,
    ),
    Patch(
        name="multithread-iterator-position",
        module="chainer.iterators.multithread_iterator",
        reason="test_iter.epoch = 0 and the like are refused, with which the tutorials start an iterator over",
        versions="any",
        after=_settable_multithread,
    ),
    Patch(
        name="multi-node-iterator",
        module="chainermn.iterators.multi_node_iterator",
        reason="create_multi_node_iterator makes a number of an array of shape (1,), which NumPy 2.4 refuses",
        versions="NumPy >= 2.4",
        needed=lambda: numpy_at_least(2, 4),
        after=_one_element_counts,
    ),
)
