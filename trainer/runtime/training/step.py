"""One training step of a multilayer perceptron as array calls, and one update of all parameters.

The arithmetic is Chainer's, call for call: on NumPy the results are equal bit for bit to those of
``LinearFunction`` (Chainer 7.8.1, ``functions/connection/linear.py``), the activations of
:mod:`trainer.runtime.training.activations` and the losses of :mod:`trainer.runtime.training.losses`, and of their
gradients. What is left out is the graph around it, which takes more time than the arithmetic at a hundred units in each
layer. On CuPy nothing here waits for the card.

Chainer updates parameter by parameter, which for small layers is mostly Python. Rules that
work element by element (:attr:`chainer.UpdateRule.is_elementwise`: SGD, MomentumSGD, Adam, ...) give the
same bits on one long array as on its parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import chainer
import numpy as np
from chainer.optimizer_hooks import GradientClipping, GradientHardClipping, Lasso, WeightDecay

from trainer.runtime.training.activations import Activation
from trainer.runtime.training.losses import Array, ArrayModule, Loss

# What an iterator's converter gives: for a classifier, a pair of arrays.
Batch = Any

# Hooks that change each element of a gradient by itself, and with them those that change the gradients where they are.
_ELEMENTWISE_HOOKS = (GradientHardClipping, Lasso, WeightDecay)
_HOOKS = (*_ELEMENTWISE_HOOKS, GradientClipping)

# A step's loss and accuracy.
_OBSERVATIONS = 2
# Types in which any number of right answers is exact, and half of whose digits are more than enough for a quotient.
_EXACT = (np.float32, np.float64)


@dataclass(frozen=True)
class Layer:
    """An affine layer and its activation.

    Attributes:
        weight: Shape (units, inputs).
        bias: Shape (units,), or None.
        activation: What follows, if anything.
        dropout: The ratio of the dropout that follows on that, or None.
    """

    weight: chainer.Parameter
    bias: chainer.Parameter | None
    activation: Activation | None
    dropout: float | None = None


class MLPStep:
    """Loss and gradients of ``layers``, for one batch shape.

    Args:
        layers: From input to output; at least one. All parameters share one floating-point type.
        batch: Examples in a batch, B.
        make_loss: Makes the loss for outputs of a type and shape on NumPy or CuPy.
        accuracy: Whether :meth:`run` computes the batch's accuracy too.
    """

    def __init__(
        self,
        layers: tuple[Layer, ...],
        batch: int,
        make_loss: Callable[[ArrayModule, np.dtype[Any], tuple[int, int]], Loss],
        accuracy: bool,
    ) -> None:
        self.layers = layers
        self.accuracy = accuracy
        weight = layers[0].weight
        self.xp: ArrayModule = weight.device.xp
        self.dtype: np.dtype[Any] = weight.dtype
        with chainer.using_device(weight.device):
            xp, shapes = self.xp, [(batch, layer.weight.shape[0]) for layer in layers]
            self._outputs = [xp.empty(shape, self.dtype) for shape in shapes]
            # The last layer's gradient is made by the loss.
            self._gradients = [xp.empty(shape, self.dtype) for shape in shapes[:-1]]
            self._scratch = [
                xp.empty(shape, bool if layer.activation and layer.activation.mask else self.dtype)
                for layer, shape in zip(layers[:-1], shapes, strict=False)
            ]
            self._dropped = [
                None if layer.dropout is None else xp.empty(shape, self.dtype)
                for layer, shape in zip(layers, shapes, strict=True)
            ]
            self._loss = make_loss(xp, self.dtype, shapes[-1])
            self._zeros = [xp.zeros(shape[1], self.dtype) for shape in shapes]

    def fits(self, x: Array, t: Array) -> bool:
        """Whether :meth:`run` takes inputs and labels or targets of these shapes and types."""
        shape = len(self._outputs[0]), self.layers[0].weight.shape[1]
        return bool(x.shape == shape and x.dtype == self.dtype and self._loss.fits(t))

    def run(self, x: Array, t: Array, masks: list[Array] | None = None) -> tuple[Array, Array | None]:
        """Compute the loss, and write every parameter's gradient into its ``grad``.

        Args:
            x: Inputs, shape (B, inputs), of the parameters' type.
            t: What the loss compares the outputs with: labels, shape (B,), or targets, shape (B, outputs).
            masks: What dropout multiplies each layer's outputs by; None to draw it, from NumPy's global generator as
                Chainer does.

        Returns:
            The loss and, if asked for, the accuracy: arrays without dimensions, on the device.
        """
        xp, layers = self.xp, self.layers
        inputs = []
        hidden = x
        masks = list(masks or [None] * len(layers))
        for index, (layer, output) in enumerate(zip(layers, self._outputs, strict=True)):
            inputs.append(hidden)
            xp.dot(hidden, layer.weight.array.T, out=output)
            if layer.bias is not None:
                xp.add(output, layer.bias.array, out=output)
            if layer.activation is not None:
                layer.activation.forward(xp, output, self._zeros[index])
            hidden = output
            if layer.dropout is not None:
                if masks[index] is None:
                    masks[index] = self._mask(output.shape, layer.dropout)
                hidden = xp.multiply(output, masks[index], out=self._dropped[index])

        loss, gradient = self._loss(hidden, t)
        accuracy = self._right(hidden, t) if self.accuracy else None

        for index in range(len(layers) - 1, -1, -1):
            layer = layers[index]
            xp.dot(gradient.T, inputs[index], out=_gradient_array(layer.weight))
            if layer.bias is not None:
                gradient.sum(axis=0, out=_gradient_array(layer.bias))
            if index:
                below = self._gradients[index - 1]
                xp.dot(gradient, layer.weight.array, out=below)
                if masks[index - 1] is not None:
                    xp.multiply(below, masks[index - 1], out=below)
                activation = layers[index - 1].activation
                if activation is not None:
                    activation.backward(xp, below, self._outputs[index - 1], self._scratch[index - 1])
                gradient = below
        return loss, accuracy

    def _mask(self, shape: tuple[int, ...], ratio: float) -> Array:
        scale = self.dtype.type(1.0 / (1 - ratio))
        # The same generator, and as many of its numbers, as in Chainer's functions/noise/dropout.py.
        return scale * (np.random.rand(*shape) >= ratio)

    def _right(self, scores: Array, t: Array) -> Array:
        right = scores.argmax(axis=1) == t
        if self.xp is np and self.dtype in _EXACT:
            # What the mean is; that of booleans makes an array of numbers first.
            return self.dtype.type(np.count_nonzero(right) / len(right))
        return right.mean(dtype=self.dtype)


def _gradient_array(parameter: chainer.Parameter) -> Array:
    gradient = parameter.grad
    if gradient is None:
        with chainer.using_device(parameter.device):
            gradient = parameter.grad = parameter.device.xp.empty_like(parameter.array)
    return gradient


class FusedUpdate:
    """Moves an optimizer's parameters, gradients and states into one array each, and updates those.

    The parameters keep their own arrays: views into the long ones. Serializers, links and anything
    else that reads ``param.array``, ``param.grad`` or ``param.update_rule.state`` sees no difference.

    Args:
        optimizer: Set up, with every state initialised (that is, after one update or after
            loading); see :meth:`applies_to`.

    Attributes:
        gradients: All gradients in the order of the target's ``params()``, and room for some numbers behind them.
    """

    def __init__(self, optimizer: chainer.GradientMethod) -> None:
        self.optimizer = optimizer
        self._params = list(optimizer.target.params())
        self._rules = [param.update_rule for param in self._params]
        device = self._params[0].device
        with chainer.using_device(device):
            xp = device.xp
            size = sum(param.size for param in self._params)
            dtype = self._params[0].dtype
            self._all = chainer.Parameter(xp.empty(size, dtype))
            self.gradients = xp.empty(size + _OBSERVATIONS, dtype)
            self._all.grad = self.gradients[:size]
            self._rule = optimizer.create_update_rule()
            names = [] if self._rules[0].state is None else list(self._rules[0].state)
            states = {name: xp.empty(size, dtype) for name in names}
            self._rule._state = states

            start = 0
            self._arrays, self._grads = [], []
            for param, rule in zip(self._params, self._rules, strict=True):
                part = slice(start, start := start + param.size)
                param.array = _moved(param.array, self._all.array[part])
                gradient = xp.zeros_like(param.array) if param.grad is None else param.grad
                param.grad = _moved(gradient, self._all.grad[part])
                for name in names:
                    rule.state[name] = _moved(rule.state[name], states[name][part])
                self._arrays.append(param.array)
                self._grads.append(param.grad)

    @staticmethod
    def applies_to(optimizer: chainer.Optimizer) -> bool:
        """Whether one update over everything does what ``optimizer`` does parameter by parameter."""
        if not isinstance(optimizer, chainer.GradientMethod):
            return False
        params = list(optimizer.target.params())
        rules = [param.update_rule for param in params]
        return bool(
            params
            and _hooks_are_known(optimizer)
            and optimizer._loss_scale is None
            and all(
                rule is not None
                and type(rule) is type(rules[0])
                and rule.is_elementwise
                and rule.enabled
                and rule.t == rules[0].t
                and not rule._use_fp32_update
                and not (rule._hookable._pre_update_hooks or rule._hookable._post_update_hooks)
                # A hyperparameter of its own would be in the instance beside the parent.
                and set(vars(rule.hyperparam)) == {"_parent"}
                and rule.hyperparam.parent is optimizer.hyperparam
                and param.array is not None
                and (param.dtype, param.device) == (params[0].dtype, params[0].device)
                and rule.state is not None
                and all(getattr(s, "shape", None) == param.shape for s in rule.state.values())
                for param, rule in zip(params, rules, strict=True)
            )
        )

    def intact(self) -> bool:
        """Whether every parameter still has its view, and the optimizer no hooks but those that are known here."""
        return (
            _hooks_are_known(self.optimizer)
            and all(p.array is a for p, a in zip(self._params, self._arrays, strict=True))
            and all(p.grad is g for p, g in zip(self._params, self._grads, strict=True))
        )

    def update(self) -> None:
        """Do what ``optimizer.update()`` would: one step with the gradients that are there."""
        rule = self._rule
        for hook in self.optimizer._hookable._pre_update_hooks.values():
            if type(hook) in _ELEMENTWISE_HOOKS:
                hook(rule, self._all)
            else:
                hook(self.optimizer)
        rule.t = self._rules[0].t + 1
        rule.update_core(self._all)
        for each in self._rules:
            each.t = rule.t
        self.optimizer.t += 1


def _hooks_are_known(optimizer: chainer.GradientMethod) -> bool:
    hooks = optimizer._hookable
    return not hooks._post_update_hooks and all(type(each) in _HOOKS for each in hooks._pre_update_hooks.values())


def _moved(source: Array, into: Array) -> Array:
    view = into.reshape(source.shape)
    view[...] = source
    return view
