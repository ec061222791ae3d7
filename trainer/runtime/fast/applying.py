"""Function application without what can be known beforehand for NumPy arrays.

``FunctionNode.apply`` asks for every function: is this ChainerX, which device, which memory layout, are hooks
installed, are the inputs' types allowed. At a hundred units in each layer this takes longer than the arithmetic. Where
inputs and outputs are plain NumPy arrays in plain variables, the answers are known; the graph that is left is the one
that Chainer would have made.
"""

from __future__ import annotations

import functools
import importlib
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from trainer.runtime.fast import ChainerObject

# Module below chainer.functions: the functions in it whose check looks at nothing but types and shapes.
ONLY_TYPES = {
    "activation.leaky_relu": ("LeakyReLU",),
    "activation.relu": ("ReLU",),
    "activation.sigmoid": ("Sigmoid", "SigmoidGrad"),
    "activation.tanh": ("Tanh",),
    "connection.embed_id": ("EmbedIDFunction",),
    "connection.linear": ("LinearFunction",),
    "evaluation.accuracy": ("Accuracy",),
    "loss.mean_squared_error": ("MeanSquaredError",),
    "loss.softmax_cross_entropy": ("SoftmaxCrossEntropy",),
    "math.basic_math": ("Add", "AddConstant", "Mul", "MulConstant", "Sub"),
    "noise.dropout": ("Dropout",),
    "rnn.lstm": ("LSTM",),
}
_MOST_REMEMBERED = 4096


class _TypeChecks:
    """Remembers which input types the check of a function in ``ONLY_TYPES`` has passed."""

    def __init__(self) -> None:
        self._passed: set[object] = set()
        self._declared = set()
        for module, names in ONLY_TYPES.items():
            classes = importlib.import_module(f"chainer.functions.{module}")
            # The check itself, and not the class: a subclass may have one of its own.
            self._declared |= {getattr(classes, name).check_type_forward for name in names}

    def unknown(self, function: ChainerObject, arrays: tuple[Any, ...]) -> tuple[object, ...] | None:
        """None if this check has passed before, else what to remember it by; empty if it can't be remembered."""
        check = type(function).check_type_forward
        if check not in self._declared:
            return ()
        key = (check, *[(array.dtype, array.shape) for array in arrays])
        return None if key in self._passed else key

    def remember(self, key: object) -> None:
        """Note that the check passed."""
        if len(self._passed) >= _MOST_REMEMBERED:
            self._passed.clear()
        self._passed.add(key)


def patch(module: ChainerObject) -> None:
    """Give ``FunctionNode`` of ``chainer.function_node`` the shorter ``apply``."""
    import chainer
    import chainerx
    from chainer import Parameter, Variable, configuration

    if chainerx.is_available():  # type: ignore[no-untyped-call]
        return
    node_class = module.FunctionNode
    chainers_apply = node_class.apply
    default_layout_check = node_class.check_layout_forward
    check_types = node_class._check_data_type_forward
    new_variable = Variable._init_unchecked
    config = configuration.config
    hooks = chainer.get_function_hooks
    checks = _TypeChecks()
    ndarray = np.ndarray
    variable_types = (Variable, Parameter)

    def apply(self: ChainerObject, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Do ``FunctionNode.apply`` where inputs and outputs are NumPy arrays in the standard layout."""
        arrays = []
        variables = []
        for each in inputs:
            if type(each) in variable_types:
                array = each._data[0]
                if each._layout is not None:
                    return chainers_apply(self, inputs)  # type: ignore[no-any-return]
                variables.append(each)
            else:
                array = each
                variables.append(None)
            if type(array) is not ndarray:
                return chainers_apply(self, inputs)  # type: ignore[no-any-return]
            arrays.append(array)
        if not arrays or config.debug or config.schedule_func is not None or hooks() or self._n_local_function_hooks:
            return chainers_apply(self, inputs)  # type: ignore[no-any-return]

        input_vars = [
            new_variable(array, requires_grad=False, is_chainerx_array=False) if each is None else each
            for each, array in zip(variables, arrays, strict=True)
        ]
        in_data = tuple(arrays)
        self._input_layouts = (None,) * len(arrays)
        if config.type_check:
            key = checks.unknown(self, in_data)
            if key is not None:
                check_types(self, in_data)
                if key:
                    checks.remember(key)
        if type(self).check_layout_forward is not default_layout_check:
            self.check_layout_forward(input_vars)

        self._input_indexes_to_retain = None
        self._output_indexes_to_retain = None
        outputs = self.forward(in_data)

        if (
            type(outputs) is not tuple
            or self._output_layouts is not None
            or not all(type(y) is ndarray for y in outputs)
            or (self.is_elementwise and any(y.shape != outputs[0].shape for y in outputs))
        ):
            return _finish(self, inputs, outputs, chainers_apply)
        self._output_layouts = (None,) * len(outputs)
        self._output_count = len(outputs)

        requires_grad = False
        for each in input_vars:
            if each._requires_grad:
                requires_grad = True
                break
        results = tuple([new_variable(y, requires_grad=requires_grad, is_chainerx_array=False) for y in outputs])
        if config.enable_backprop:
            nodes = [each._node for each in input_vars]
            self.rank = rank = max([node._rank for node in nodes])
            for y in results:
                node = y._node
                node._creator_node = self
                node._rank = rank + 1
            self.inputs = tuple(nodes)
            self.outputs = tuple([weakref.ref(y._node) for y in results])
            if self._input_indexes_to_retain is not None:
                for index in self._input_indexes_to_retain:
                    input_vars[index].retain_data()
            if self._output_indexes_to_retain is not None:
                for index in self._output_indexes_to_retain:
                    results[index].retain_data()
                self._retained_output_data = tuple([outputs[i] for i in self._output_indexes_to_retain])
            self.lazy_grad_sum = config.lazy_grad_sum
        return results

    node_class.apply = functools.update_wrapper(apply, chainers_apply)


def _finish(
    function: ChainerObject,
    inputs: tuple[Any, ...],
    outputs: object,
    apply: Callable[[Any, tuple[Any, ...]], tuple[Any, ...]],
) -> tuple[Any, ...]:
    """Let Chainer go on from what ``forward`` returned, without computing it again."""
    kept = function._input_indexes_to_retain, function._output_indexes_to_retain

    def forward(_: object) -> object:
        function._input_indexes_to_retain, function._output_indexes_to_retain = kept
        return outputs

    function.forward = forward
    try:
        return apply(function, inputs)
    finally:
        del function.forward
