"""Type checks of functions' inputs, done once per function and combination of types and shapes.

``FunctionNode.apply`` asks every function at every call whether it takes its inputs. At a hundred units in a layer
that takes about as long as the arithmetic. The functions named here decide by nothing but the types and shapes of
their inputs, so an answer holds for the next call.
"""

from __future__ import annotations

import importlib
from typing import Any

from trainer.runtime.fast import ChainerObject

# Module below chainer.functions: the functions in it that look at nothing but types and shapes.
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


def patch(module: ChainerObject) -> None:
    """Let ``FunctionNode`` of ``chainer.function_node`` remember what its check has passed."""
    declared = set()
    for name, functions in ONLY_TYPES.items():
        classes = importlib.import_module(f"chainer.functions.{name}")
        declared |= {getattr(classes, function).check_type_forward for function in functions}
    node_class = module.FunctionNode
    chainers_check = node_class._check_data_type_forward
    passed: set[object] = set()

    def check(self: ChainerObject, in_data: tuple[Any, ...]) -> None:
        """Do ``FunctionNode._check_data_type_forward``, unless it has passed before."""
        # The function itself, and not the class: a subclass may have a check of its own.
        own = type(self).check_type_forward
        if own not in declared or self.input_layouts.count(None) != len(in_data):
            chainers_check(self, in_data)
            return
        key = (own, *[(array.dtype, array.shape) for array in in_data])
        if key not in passed:
            chainers_check(self, in_data)
            if len(passed) >= _MOST_REMEMBERED:
                passed.clear()
            passed.add(key)

    node_class._check_data_type_forward = check
