"""Gradients of a variable that is used more than once are added up in place.

A recurrent network uses its weights in every time step, and backpropagation adds the gradients of two steps, then that
of a third to the sum, and so on: each time Chainer makes a new array as large as the weights. Here only the first
sum is an array of its own; the others go into it. Of the gradient of an embedding, which is zero but for a few rows,
only these rows are added.
"""

from __future__ import annotations

import functools
import threading
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.runtime.fast import ChainerObject


class _Private(threading.local):
    """Gradients that one pass of backpropagation has made, and that nobody else knows of yet."""

    def __init__(self) -> None:
        self._found: dict[int, weakref.ref[Any]] = {}

    def clear(self) -> None:
        self._found.clear()

    def add(self, variable: ChainerObject) -> None:
        self._found[id(variable)] = weakref.ref(variable)

    def discard(self, variable: ChainerObject) -> None:
        self._found.pop(id(variable), None)

    def __contains__(self, variable: ChainerObject) -> bool:
        known = self._found.get(id(variable))
        return known is not None and known() is variable


def patch(chainer: ChainerObject) -> None:
    """Give ``chainer._backprop_utils`` the sums in place."""
    module = chainer._backprop_utils
    embedding = chainer.functions.connection.embed_id.EmbedIDFunction
    config, hooks = chainer.config, chainer.get_function_hooks
    table = module.GradTable
    chainers_init, chainers_pop = table.__init__, table.pop
    chainers_given, chainers_reduce, chainers_step = module._pop_or_none, module._reduce, module.backprop_step
    sums, embedded = _Private(), _Private()

    def init(self: ChainerObject, accumulate_grad_inputs: bool = False) -> None:
        """Do ``GradTable.__init__``; each pass has a table."""
        # A pass that failed leaves some.
        sums.clear()
        embedded.clear()
        chainers_init(self, accumulate_grad_inputs)

    def published(variable: ChainerObject) -> ChainerObject:
        # Whoever gets it may keep it, or say that it is the gradient of several variables.
        sums.discard(variable)
        embedded.discard(variable)
        return variable

    def pop(self: ChainerObject, node: ChainerObject) -> ChainerObject:
        """Do ``GradTable.pop``."""
        return published(chainers_pop(self, node))

    def given(grad_list: ChainerObject) -> ChainerObject:
        """Do ``_pop_or_none``."""
        return published(chainers_given(grad_list))

    def visible() -> bool:
        # Where a graph of the sum is wanted, or a hook would see it, it is a function.
        return bool(config.enable_backprop or config.debug or hooks())

    def reduce(grad_list: ChainerObject) -> ChainerObject:
        """Do ``_reduce``: the list of gradients becomes one of their sum."""
        if len(grad_list) != 2 or visible():
            return chainers_reduce(grad_list)
        total, further = grad_list
        if total in sums and _alike(total.raw_array, further.raw_array):
            total.raw_array[...] += further.raw_array
            del grad_list[1]
            return total
        total = chainers_reduce(grad_list)
        sums.add(total)
        return total

    def step(
        func: ChainerObject,
        target_input_indexes: ChainerObject,
        grad_outputs: ChainerObject,
        grad_inputs: ChainerObject,
        is_debug: bool,
    ) -> None:
        """Do ``backprop_step``: the gradients by the inputs of a function are added to those that there are."""
        found = grad_inputs.get(func.inputs[1]) if type(func) is embedding and target_input_indexes == (1,) else None
        if found is None or func.lazy_grad_sum or func._n_local_function_hooks or visible():
            chainers_step(func, target_input_indexes, grad_outputs, grad_inputs, is_debug)
        elif len(found) == 1 and found[0] in embedded:
            (words,), (gy,) = func.get_retained_inputs(), grad_outputs
            gradient = None if gy is None else gy.raw_array
            if not _add_rows(found[0].raw_array, words.raw_array, gradient, func.ignore_label):
                chainers_step(func, target_input_indexes, grad_outputs, grad_inputs, is_debug)
        else:
            first = not found
            chainers_step(func, target_input_indexes, grad_outputs, grad_inputs, is_debug)
            if first and found:
                embedded.add(found[0])

    table.__init__ = functools.update_wrapper(init, chainers_init)
    table.pop = functools.update_wrapper(pop, chainers_pop)
    module._pop_or_none = functools.update_wrapper(given, chainers_given)
    module._reduce = functools.update_wrapper(reduce, chainers_reduce)
    module.backprop_step = functools.update_wrapper(step, chainers_step)


def _alike(total: object, further: object) -> bool:
    return (
        type(total) is np.ndarray
        and type(further) is np.ndarray
        and total.dtype == further.dtype
        and total.shape == further.shape
        # Of two orders in memory a new sum has the one that NumPy chooses, and sums over it that one's rounding.
        and total.strides == further.strides
    )


def _add_rows(total: object, words: object, gy: object, ignored: int | None) -> bool:
    """Add an embedding's gradient to a sum of such ones, in which no zero has a sign.

    Args:
        total: The sum, shape (W, n).
        words: Which row of the embedding each output is, shape S.
        gy: The gradient of the outputs, shape (*S, n).
        ignored: The word that has no gradient.

    Returns:
        False if nothing was done: Chainer's own way is the only one known.
    """
    if not (type(total) is type(words) is type(gy) is np.ndarray) or gy.dtype != total.dtype or not words.size:
        return False
    flat, gradients = words.ravel(), gy.reshape(words.size, -1)
    if ignored is not None:
        counts = flat != ignored
        flat, gradients = flat[counts], gradients[counts]
    if flat.size == 0:
        return True
    # A row has a second number, from the end.
    if flat.min() < 0:
        return False
    rows, places = np.unique(flat, return_inverse=True)
    parts: NDArray[Any] = np.zeros((len(rows), total.shape[1]), total.dtype)
    for place, gradient in zip(places.tolist(), gradients, strict=True):
        parts[place] += gradient
    total[rows] += parts
    return True
