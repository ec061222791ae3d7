"""Finds out what a training step computes, by reading the graph that Chainer built for a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import chainer
from chainer.functions.activation.relu import ReLU
from chainer.functions.connection.linear import LinearFunction
from chainer.functions.evaluation.accuracy import Accuracy
from chainer.functions.loss.softmax_cross_entropy import SoftmaxCrossEntropy
from chainer.variable import VariableNode

from trainer.runtime.training.step import Array, Layer, MLPStep


class NotRecordableError(Exception):
    """The step computes something that :class:`MLPStep` cannot; the message says what."""


class Applied(chainer.FunctionHook):  # type: ignore[misc]
    """Remembers the arrays that functions are applied to; Chainer's graph keeps only some of them."""

    name = "trainer.runtime.training.Applied"

    def __init__(self) -> None:
        self._inputs: dict[chainer.FunctionNode, tuple[Array, ...]] = {}

    def forward_preprocess(self, function: chainer.FunctionNode, in_data: tuple[Array, ...]) -> None:
        """Called by Chainer for every function."""
        self._inputs[function] = in_data

    def inputs(self, function: chainer.FunctionNode) -> tuple[Array, ...]:
        """The arrays that ``function`` was applied to."""
        return self._inputs[function]


class Recording:
    """A step, and the names under which Chainer reported its results.

    Attributes:
        step: loss and gradients.
        loss_key: as ``main/loss``; None if the loss was not reported.
        accuracy_key: likewise.
    """

    def __init__(self, step: MLPStep, loss_key: str | None, accuracy_key: str | None) -> None:
        self.step = step
        self.loss_key = loss_key
        self.accuracy_key = accuracy_key

    def run(self, x: Array, t: Array) -> dict[str, Array]:
        """Does the step for one batch; gradients go to the parameters.

        Returns:
            The observations, as Chainer would have reported them.
        """
        loss, accuracy = self.step.run(x, t)
        observation = {}
        if self.loss_key is not None:
            observation[self.loss_key] = loss
        if self.accuracy_key is not None:
            observation[self.accuracy_key] = accuracy
        return observation


def record(
    target: chainer.Link,
    loss: chainer.Variable,
    batch: tuple[Array, Array],
    observation: Mapping[str, Any],
    applied: Applied,
) -> Recording:
    """Reads the graph below ``loss``.

    Args:
        target: the link whose parameters are trained.
        loss: what the loss function returned for ``batch``.
        batch: inputs of shape (B, inputs) and labels of shape (B,).
        observation: what was reported meanwhile, variables with their graph.
        applied: was active while the loss was computed.

    Raises:
        NotRecordableError: the graph is not a chain of linear layers, each with or without ReLU, under
            mean softmax cross-entropy of the batch; or something else was reported than its loss
            and accuracy.
    """
    x, t = batch
    cross_entropy = loss.creator_node
    _require_plain_cross_entropy(cross_entropy)
    scores, _ = cross_entropy.inputs
    if applied.inputs(cross_entropy)[1] is not t:
        raise NotRecordableError("the labels are not the batch's own")

    layers: list[Layer] = []
    node, relu, first = scores, False, None
    while node.creator_node is not None:
        function = first = node.creator_node
        if type(function) is ReLU and not relu:
            relu = True
            (node,) = function.inputs
        elif type(function) is LinearFunction:
            node, *parameters = function.inputs
            weight, bias = [*map(_parameter, parameters), None][:2]
            layers.insert(0, Layer(weight, bias, relu))
            relu = False
        else:
            raise NotRecordableError(f"{function.label} is not a linear layer or ReLU")
    if relu or first is None or applied.inputs(first)[0] is not x:
        raise NotRecordableError("the input of the first layer is not the batch's own")
    if layers[-1].relu:
        raise NotRecordableError("ReLU is the last layer")
    _require_same_parameters(target, layers)

    loss_key = accuracy_key = None
    for key, value in observation.items():
        if isinstance(value, chainer.Variable) and value.node is loss.node:
            loss_key = key
        elif _is_accuracy(value, scores, t, applied):
            accuracy_key = key
        else:
            raise NotRecordableError(f"{key} is reported, and is neither the loss nor the accuracy")
    step = MLPStep(tuple(layers), len(x), cross_entropy.ignore_label, accuracy_key is not None)
    return Recording(step, loss_key, accuracy_key)


def _require_plain_cross_entropy(function: chainer.FunctionNode | None) -> None:
    if type(function) is not SoftmaxCrossEntropy or not (
        function.normalize
        and function.cache_score
        and function.class_weight is None
        and function.reduce == "mean"
        and not function.soft_target
    ):
        raise NotRecordableError("the loss is not the mean softmax cross-entropy")


def _parameter(node: VariableNode) -> chainer.Parameter:
    variable = node.get_variable_or_none()
    if not isinstance(variable, chainer.Parameter) or node.creator_node is not None:
        raise NotRecordableError("a weight or bias is computed")
    return variable


def _require_same_parameters(target: chainer.Link, layers: list[Layer]) -> None:
    used = [p for layer in layers for p in (layer.weight, layer.bias) if p is not None]
    trained = list(target.params())
    if len(used) != len(trained) or {id(p) for p in used} != {id(p) for p in trained}:
        raise NotRecordableError("the loss does not use each parameter of the model exactly once")
    if len({(p.dtype, str(p.device)) for p in used}) != 1:
        raise NotRecordableError("parameters differ in type or device")


def _is_accuracy(value: object, scores: VariableNode, t: Array, applied: Applied) -> bool:
    if not isinstance(value, chainer.Variable):
        return False
    function = value.creator_node
    return (
        type(function) is Accuracy
        and function.ignore_label is None
        and function.inputs[0] is scores
        and applied.inputs(function)[1] is t
    )
