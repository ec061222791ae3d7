"""The gradients of a linear layer's weights in several steps of a recurrent network as one product.

In every step Chainer makes a product as large as the weights of few examples, and adds it to that of the other steps.
The sum is also one product of all steps' examples, which takes a third of the time. It adds in another order than
Chainer, so it differs in the last bits, and belongs to the kernels that are asked for; the product is NumPy's.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from trainer.runtime.kernels import ChainerObject

# Bytes of inputs and gradients that are kept for a product.
_KEPT = 64 << 20


class _Gradients(list[Any]):
    """Chainer's list of the gradients of one variable, and the factors of those that are not computed yet."""

    def __init__(self, gradients: list[Any]) -> None:
        super().__init__(gradients)
        self.factors: list[tuple[Any, Any]] = []
        self.size = 0

    def flush(self, variable: ChainerObject) -> None:
        """Append the sum of the products as one gradient, a ``variable`` of an array."""
        if not self.factors:
            return
        gradients, inputs = (np.concatenate(each) for each in zip(*self.factors, strict=True))
        self.factors, self.size = [], 0
        self.append(variable(gradients.T.dot(inputs)))


def patch(chainer: ChainerObject) -> None:
    """Let ``chainer._backprop_utils`` put off the gradients of weights."""
    module, linear = chainer._backprop_utils, chainer.functions.connection.linear.LinearFunction
    table, config, hooks = module.GradTable, chainer.config, chainer.get_function_hooks
    others_list, others_pop, others_step = table.get_as_list, table.pop, module.backprop_step
    variable = functools.partial(chainer.Variable, requires_grad=False)

    def get_as_list(self: ChainerObject, node: ChainerObject) -> ChainerObject:
        """Do ``GradTable.get_as_list``."""
        found = others_list(self, node)
        # Of what is trained, and has its gradient at the end of the pass: nobody asks for it before.
        if type(found) is list and self._load_if_new and node.creator_node is None:
            found = self.grads[node] = _Gradients(found)
        return found

    def pop(self: ChainerObject, node: ChainerObject) -> ChainerObject:
        """Do ``GradTable.pop``."""
        found = self.grads.get(node)
        if type(found) is _Gradients:
            found.flush(variable)
        return others_pop(self, node)

    def step(
        func: ChainerObject,
        target_input_indexes: ChainerObject,
        grad_outputs: ChainerObject,
        grad_inputs: ChainerObject,
        is_debug: bool,
    ) -> None:
        """Do ``backprop_step``: of the second gradient of a weight and those that follow only the factors are kept."""
        found = grad_inputs.get(func.inputs[1]) if type(func) is linear and 1 in target_input_indexes else None
        seen = config.enable_backprop or config.debug or hooks() or func._n_local_function_hooks
        if type(found) is _Gradients and found and not seen and not func.lazy_grad_sum:
            factors = _factors(grad_outputs[0], func.get_retained_inputs())
            if factors is not None:
                found.factors.append(factors)
                found.size += sum(each.nbytes for each in factors)
                if found.size > _KEPT:
                    found.flush(variable)
                    module._reduce(found)
                target_input_indexes = tuple(each for each in target_input_indexes if each != 1)
        if target_input_indexes:
            others_step(func, target_input_indexes, grad_outputs, grad_inputs, is_debug)

    table.get_as_list = functools.update_wrapper(get_as_list, others_list)
    table.pop = functools.update_wrapper(pop, others_pop)
    module.backprop_step = functools.update_wrapper(step, others_step)


def _factors(gy: ChainerObject, retained: tuple[Any, ...]) -> tuple[Any, Any] | None:
    """The gradient of the outputs and the inputs, where they and the weights are float32 on the CPU; else None."""
    arrays = tuple(None if each is None else each.raw_array for each in (gy, *retained))
    if any(type(each) is not np.ndarray or each.dtype != np.float32 for each in arrays):
        return None
    return arrays[0], arrays[1]
