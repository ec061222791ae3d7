"""What a training step computes, read from the graph that Chainer leaves of its first batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import chainer
import numpy as np
from chainer.functions.connection.linear import LinearFunction
from chainer.functions.evaluation.accuracy import Accuracy
from chainer.functions.loss import mean_squared_error
from chainer.functions.loss.softmax_cross_entropy import SoftmaxCrossEntropy
from chainer.functions.noise.dropout import Dropout
from chainer.variable import VariableNode

from trainer.runtime.training.activations import ACTIVATIONS, Activation
from trainer.runtime.training.losses import Array, CrossEntropy, Loss, MeanSquaredError
from trainer.runtime.training.step import Batch, Layer, MLPStep


class CannotCompileError(Exception):
    """The step computes something that :class:`MLPStep` cannot; the message says what."""


class Applied(chainer.FunctionHook):  # type: ignore[misc]
    """Remembers the arrays that functions are applied to; Chainer's graph keeps only some of them."""

    name = "trainer.runtime.training.compiled"

    def __init__(self) -> None:
        self._inputs: dict[chainer.FunctionNode, tuple[Array, ...]] = {}

    def forward_preprocess(self, function: chainer.FunctionNode, in_data: tuple[Array, ...]) -> None:
        """Note the inputs; Chainer calls this for every function."""
        self._inputs[function] = in_data

    def inputs(self, function: chainer.FunctionNode) -> tuple[Array, ...]:
        """The arrays that ``function`` was applied to.

        Raises:
            CannotCompileError: It was applied before this step.
        """
        if function not in self._inputs:
            raise CannotCompileError("the loss is made of values of an earlier step")
        return self._inputs[function]


class NamedStep:
    """A step, and the names under which Chainer reported its results.

    Attributes:
        step: Loss and gradients.
        loss_key: As ``main/loss``; None if the loss was not reported.
        accuracy_key: Likewise.
        masks: Those of the dropout in the batch that went through Chainer, one for each layer.
    """

    def __init__(
        self, step: MLPStep, loss_key: str | None, accuracy_key: str | None, masks: list[Array] | None
    ) -> None:
        self.step = step
        self.masks = masks
        self._train = chainer.config.train
        self.loss_key = loss_key
        self.accuracy_key = accuracy_key

    def fits(self, batch: Batch) -> bool:
        """Whether this step does what Chainer would with ``batch``, now."""
        # Debug mode and hooks would have to see every function and link that is called.
        return (
            is_pair(batch)
            and self.step.fits(*batch)
            and chainer.config.train == self._train
            and not chainer.config.debug
            and not chainer.get_function_hooks()
            and not chainer._get_link_hooks()
        )

    def run(self, x: Array, t: Array, masks: list[Array] | None = None) -> dict[str, Array]:
        """Do the step for one batch; gradients go to the parameters. ``masks`` is as in :meth:`MLPStep.run`.

        Returns:
            The observations, as Chainer would have reported them.
        """
        loss, accuracy = self.step.run(x, t, masks)
        named = {self.loss_key: loss, self.accuracy_key: accuracy}
        return {key: value for key, value in named.items() if key is not None}


def read_graph(
    target: chainer.Link,
    loss: chainer.Variable,
    batch: tuple[Array, Array],
    observation: Mapping[str, Any],
    applied: Applied,
) -> NamedStep:
    """Find the step below ``loss``.

    Args:
        target: The link whose parameters are trained.
        loss: What the loss function returned for ``batch``.
        batch: Inputs of shape (B, inputs) and labels or targets.
        observation: What was reported meanwhile, variables with their graph.
        applied: Was active while the loss was computed.

    Raises:
        CannotCompileError: The graph is not a chain of linear layers, each with or without one of ``ACTIVATIONS``
            and dropout, under mean softmax cross-entropy or squared error; or something else was reported than its loss
            and accuracy.
    """
    x, t = batch
    make_loss = _loss(loss.creator_node)
    scores, _ = loss.creator_node.inputs
    if applied.inputs(loss.creator_node)[1] is not t:
        raise CannotCompileError("the labels or targets are not the batch's own")

    layers: list[Layer] = []
    node, first = scores, None
    activation: Activation | None = None
    dropout: Dropout | None = None
    masks: list[Array] = []
    while node.creator_node is not None:
        function = first = node.creator_node
        if type(function) in ACTIVATIONS and activation is None:
            activation = ACTIVATIONS[type(function)]
            (node,) = function.inputs
        elif type(function) is Dropout and dropout is None and activation is None:
            dropout = _plain_dropout(function)
            (node,) = function.inputs
        elif type(function) is LinearFunction:
            node, *parameters = function.inputs
            weight, bias = [*map(_parameter, parameters), None][:2]
            layers.insert(0, Layer(weight, bias, activation, dropout and dropout.dropout_ratio))
            masks.insert(0, dropout and dropout.mask)
            activation = dropout = None
        else:
            known = ", ".join(each.__name__ for each in ACTIVATIONS)
            raise CannotCompileError(
                f"{function.label} is not a linear layer, nor one activation ({known}) or dropout behind it"
            )
    if activation is not None or dropout is not None or first is None or applied.inputs(first)[0] is not x:
        raise CannotCompileError("the input of the first layer is not the batch's own")
    if layers[-1].activation is not None or layers[-1].dropout is not None:
        raise CannotCompileError("the last layer has an activation or dropout")
    _require_same_parameters(target, layers)

    loss_key = accuracy_key = None
    for key, value in observation.items():
        if isinstance(value, chainer.Variable) and value.node is loss.node:
            loss_key = key
        elif _is_accuracy(value, scores, t, applied):
            accuracy_key = key
        else:
            raise CannotCompileError(f"{key} is reported, and is neither the loss nor the accuracy")
    step = MLPStep(tuple(layers), len(x), make_loss, accuracy_key is not None)
    if not step.fits(x, t):
        raise CannotCompileError("inputs and labels or targets have other types than the parameters and the loss")
    return NamedStep(step, loss_key, accuracy_key, masks)


def _plain_dropout(function: Dropout) -> Dropout:
    if function.return_mask or not isinstance(function.mask, np.ndarray):
        raise CannotCompileError("the mask of a dropout is asked for, or is on a GPU")
    return function


def _loss(function: chainer.FunctionNode | None) -> Callable[..., Loss]:
    if type(function) is mean_squared_error.MeanSquaredError:
        return MeanSquaredError
    if type(function) is not SoftmaxCrossEntropy or not (
        function.normalize
        and function.cache_score
        and function.class_weight is None
        and function.reduce == "mean"
        and not function.soft_target
    ):
        raise CannotCompileError("the loss is neither the mean softmax cross-entropy nor the mean squared error")
    return functools.partial(CrossEntropy, ignore_label=function.ignore_label)


def _parameter(node: VariableNode) -> chainer.Parameter:
    variable = node.get_variable_or_none()
    if not isinstance(variable, chainer.Parameter) or node.creator_node is not None:
        raise CannotCompileError("a weight or bias is computed")
    return variable


def _require_same_parameters(target: chainer.Link, layers: list[Layer]) -> None:
    used = [p for layer in layers for p in (layer.weight, layer.bias) if p is not None]
    trained = list(target.params())
    if len(used) != len(trained) or {id(p) for p in used} != {id(p) for p in trained}:
        raise CannotCompileError("the loss does not use each parameter of the model exactly once")
    if len({(p.dtype, str(p.device)) for p in used}) != 1:
        raise CannotCompileError("parameters differ in type or device")


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


def is_pair(batch: Batch) -> bool:
    """Whether ``batch`` is a pair of inputs, shape (B, n), and labels or targets, shape (B, ...)."""
    return (
        isinstance(batch, tuple)
        and len(batch) == 2
        and getattr(batch[0], "ndim", 0) == 2
        and hasattr(batch[1], "dtype")
        and batch[1].shape[:1] == batch[0].shape[:1]
    )
