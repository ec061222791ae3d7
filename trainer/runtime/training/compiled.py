"""Training steps without Chainer's graph: what ``rt.compiled(updater)`` does.

The first batch goes through Chainer, and the graph that it leaves says what a step computes. If that is a
multilayer perceptron under softmax cross-entropy, the following batches are done by :class:`MLPStep`: the
same array calls on preallocated memory, and one parameter update over all parameters. Everything else stays
with Chainer.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from typing import Any

import chainer
import numpy as np
from chainer.dataset import convert
from chainer.functions.connection.linear import LinearFunction
from chainer.functions.evaluation.accuracy import Accuracy
from chainer.functions.loss.softmax_cross_entropy import SoftmaxCrossEntropy
from chainer.functions.noise.dropout import Dropout
from chainer.training.updaters import StandardUpdater
from chainer.variable import VariableNode

from trainer.runtime.faults import RuntimeFault
from trainer.runtime.training.activations import ACTIVATIONS, Activation
from trainer.runtime.training.ranks import Join, Ranks
from trainer.runtime.training.step import Array, Batch, FusedUpdate, Layer, MLPStep

_ALONE = "or leave out --nodes and --processes-per-node"


class CannotCompileError(Exception):
    """The step computes something that :class:`MLPStep` cannot; the message says what."""


def compiled(updater: StandardUpdater, ranks: Ranks | None = None) -> StandardUpdater:
    """Return an updater that does what ``updater`` does, faster where the network allows it.

    The network must compute the same function at every step: its Python code does not run again after the
    first one. Results are those of ``updater`` bit for bit on a CPU, and to rounding on a GPU.

    Args:
        updater: A ``StandardUpdater`` that has not begun. It is not to be used afterwards.
        ranks: Each has part of every batch, and the gradients of all are joined.

    Returns:
        A :class:`CompiledUpdater`; ``updater`` itself if it is of another class, whose ways are not known here.

    Raises:
        RuntimeFault: It is of another class, and there are several ranks.
    """
    if type(updater) is StandardUpdater:
        return CompiledUpdater(updater, ranks)
    if ranks is not None and ranks.size > 1:
        raise RuntimeFault(f"several ranks train by a StandardUpdater, not by a {type(updater).__name__}", _ALONE)
    _tell(f"it is a {type(updater).__name__}")
    return updater


class CompiledUpdater(StandardUpdater):  # type: ignore[misc]
    """``StandardUpdater`` that compiles the first step.

    The first batch goes through Chainer. If the graph that it leaves is a multilayer perceptron (see
    :func:`read_graph`), :class:`MLPStep` does the same batch once more, and if loss and gradients are equal
    bit for bit (on a GPU, to rounding), it does the following batches of that shape. In every other case,
    and for every other batch, this is ``StandardUpdater``; one line on stderr and :attr:`reason` then say why.

    Args:
        updater: Its iterator, optimizer, converter, loss function and devices are taken over.
        ranks: See :func:`compiled`.

    Attributes:
        reason: Why steps are not compiled; empty if they are; None before the first step.
    """

    def __init__(self, updater: StandardUpdater, ranks: Ranks | None = None) -> None:
        # Its constructor has sent the model to the device and told the optimizer of loss scale and epochs.
        self.__dict__.update(vars(updater))
        self.reason: str | None = None
        self._step: _NamedStep | None = None
        self._fused: FusedUpdate | None = None
        self._ranks = ranks or Ranks()
        self._ranks.joined = True
        self._join: Join | None = None

    def update_core(self) -> None:
        """Do one batch: loss, gradients, parameter update."""
        iterator = self._iterators["main"]
        optimizer = self._optimizers["main"]
        batch = convert._call_converter(self.converter, iterator.next(), self.input_device)
        if self.reason is None:
            self._first(batch)
        elif self._step is not None and self._step.fits(batch):
            self._compiled(self._step, batch)
        else:
            self._chainers(batch)
        if self.auto_new_epoch and iterator.is_new_epoch:
            optimizer.new_epoch(auto=True)

    def _chainers(self, batch: Batch) -> None:
        optimizer = self._optimizers["main"]
        loss_func = self.loss_func or optimizer.target
        arguments = batch if isinstance(batch, tuple) else () if isinstance(batch, dict) else (batch,)
        named = batch if isinstance(batch, dict) else {}
        if self._ranks.size == 1:
            optimizer.update(loss_func, *arguments, **named)
            return
        loss = loss_func(*arguments, **named)
        optimizer.target.cleargrads()
        loss.backward()
        del loss
        self._joined(_observation())
        optimizer.update()

    def _joined(self, observed: dict[str, Any]) -> None:
        """Make the batch's gradients and observations of those of this rank's part, in place."""
        if self._ranks.size > 1:
            if self._join is None:
                self._join = Join(self._optimizers["main"], self._ranks)
            self._join(self._iterators["main"].share, observed)

    def _compiled(self, step: _NamedStep, batch: tuple[Array, Array]) -> None:
        observed = step.run(*batch)
        self._joined(observed)
        _observation().update(observed)
        if self._fused is not None and self._fused.intact():
            self._fused.update()
            return
        optimizer = self._optimizers["main"]
        optimizer.update()
        self._fused = FusedUpdate(optimizer) if FusedUpdate.applies_to(optimizer) else None

    def _first(self, batch: Batch) -> None:
        optimizer = self._optimizers["main"]
        self.reason = ""
        if len(self._iterators) != 1 or len(self._optimizers) != 1:
            self.reason = "it has more than one iterator or optimizer"
        elif (
            not isinstance(optimizer, chainer.GradientMethod)
            or type(optimizer).update is not chainer.GradientMethod.update
        ):
            self.reason = f"the optimizer {type(optimizer).__name__} has an update of its own"
        elif optimizer._loss_scale is not None:
            self.reason = "the optimizer scales the loss"
        elif not _is_classification(batch):
            self.reason = "a batch is not a pair of inputs, shape (B, n), and labels, shape (B,)"
        self._begin_as_one()
        if self.reason:
            self._chainers(batch)
        else:
            self._compile(batch)
        self._ranks.require_same(optimizer.target)
        if self.reason:
            _tell(self.reason)

    def _begin_as_one(self) -> None:
        if self._ranks.size == 1:
            return
        able = self._optimizers["main"]
        if len(self._iterators) != 1 or len(self._optimizers) != 1 or not isinstance(able, chainer.GradientMethod):
            raise RuntimeFault(f"several ranks can't train so: {self.reason}", _ALONE)
        if type(able).update is not chainer.GradientMethod.update or able._loss_scale is not None:
            raise RuntimeFault(f"several ranks can't train so: {self.reason}", _ALONE)
        if not hasattr(self._iterators["main"], "share"):
            raise RuntimeFault("several ranks need an rt.ArrayIterator(..., ranks=ranks)", _ALONE)
        self._ranks.give_parameters(able.target)

    def _compile(self, batch: tuple[Array, Array]) -> None:
        optimizer = self._optimizers["main"]
        observed = _observation()
        before = set(observed)
        # With their graph, what was reported can be told apart; Chainer reports bare copies.
        with chainer.using_config("keep_graph_on_report", True), _Applied() as applied:
            loss = (self.loss_func or optimizer.target)(*batch)
        optimizer.target.cleargrads()
        loss.backward()
        new = {key: value for key, value in observed.items() if key not in before}
        try:
            step = read_graph(optimizer.target, loss, batch, new, applied)
            results = self._checked(step, loss, batch)
        except CannotCompileError as error:
            self.reason = str(error)
            results = {key: copy.copy(value) for key, value in new.items()}
        else:
            self._step = step
        self._joined(results)
        observed.update(results)
        optimizer.update()

    def _checked(self, step: _NamedStep, loss: chainer.Variable, batch: tuple[Array, Array]) -> dict[str, Array]:
        # On success the gradients are the compiled step's: on a GPU they may differ in rounding, and a resumed
        # run, whose first step is compiled again, must do what the uninterrupted one did.
        params = list(self._optimizers["main"].target.params())
        gradients = [param.grad for param in params]
        for param in params:
            param.cleargrad()
        # With Chainer's own masks, since the numbers that they were made of are drawn.
        masks, step.masks = step.masks, None
        own_loss, _ = step.step.run(*batch, masks)
        equal = np.array_equal if step.step.xp is np else _nearly_equal
        if equal(own_loss, loss.array) and all(
            equal(param.grad, gradient) for param, gradient in zip(params, gradients, strict=True)
        ):
            return step.run(*batch, masks)
        for param, gradient in zip(params, gradients, strict=True):
            param.grad = gradient
        raise CannotCompileError("the compiled step gives another result than Chainer")


class _Applied(chainer.FunctionHook):  # type: ignore[misc]
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


class _NamedStep:
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
            _is_classification(batch)
            and self.step.fits(batch[0])
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
    applied: _Applied,
) -> _NamedStep:
    """Find the step below ``loss``.

    Args:
        target: The link whose parameters are trained.
        loss: What the loss function returned for ``batch``.
        batch: Inputs of shape (B, inputs) and labels of shape (B,).
        observation: What was reported meanwhile, variables with their graph.
        applied: Was active while the loss was computed.

    Raises:
        CannotCompileError: The graph is not a chain of linear layers, each with or without one of ``ACTIVATIONS``
            and dropout, under mean softmax cross-entropy of the batch; or something else was reported than its loss
            and accuracy.
    """
    x, t = batch
    cross_entropy = loss.creator_node
    _require_plain_cross_entropy(cross_entropy)
    scores, _ = cross_entropy.inputs
    if applied.inputs(cross_entropy)[1] is not t:
        raise CannotCompileError("the labels are not the batch's own")

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
    step = MLPStep(tuple(layers), len(x), cross_entropy.ignore_label, accuracy_key is not None)
    return _NamedStep(step, loss_key, accuracy_key, masks)


def _plain_dropout(function: Dropout) -> Dropout:
    if function.return_mask or not isinstance(function.mask, np.ndarray):
        raise CannotCompileError("the mask of a dropout is asked for, or is on a GPU")
    return function


def _require_plain_cross_entropy(function: chainer.FunctionNode | None) -> None:
    if type(function) is not SoftmaxCrossEntropy or not (
        function.normalize
        and function.cache_score
        and function.class_weight is None
        and function.reduce == "mean"
        and not function.soft_target
    ):
        raise CannotCompileError("the loss is not the mean softmax cross-entropy")


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


def _is_accuracy(value: object, scores: VariableNode, t: Array, applied: _Applied) -> bool:
    if not isinstance(value, chainer.Variable):
        return False
    function = value.creator_node
    return (
        type(function) is Accuracy
        and function.ignore_label is None
        and function.inputs[0] is scores
        and applied.inputs(function)[1] is t
    )


def _is_classification(batch: Batch) -> bool:
    return (
        isinstance(batch, tuple)
        and len(batch) == 2
        and getattr(batch[0], "ndim", 0) == 2
        and getattr(batch[1], "ndim", 0) == 1
        and batch[1].dtype.kind == "i"
    )


def _nearly_equal(a: Array, b: Array) -> bool:
    # A GPU's kernels decide the order of sums. Gradients are compared with their own scale.
    a, b = chainer.get_device("@numpy").send((a, b))
    return bool(np.abs(a - b).max() <= 1e-3 * np.abs(b).max() + 1e-7)


def _observation() -> dict[str, Any]:
    try:
        return chainer.get_current_reporter().observation  # type: ignore[no-any-return]
    except IndexError:
        return {}


def _tell(reason: str) -> None:
    sys.stderr.write(f"note: the updater is not compiled, Chainer runs every step: {reason}\n")
