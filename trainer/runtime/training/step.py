"""One training step of a multilayer perceptron as array calls on preallocated memory.

The arithmetic is Chainer's, call for call: on NumPy the results are equal bit for bit to those of
``LinearFunction``, ``ReLU`` and ``SoftmaxCrossEntropy`` and of their gradients (Chainer 7.8.1,
``functions/connection/linear.py``, ``functions/activation/relu.py``,
``functions/loss/softmax_cross_entropy.py``). What is left out is the graph around it, which takes
more time than the arithmetic at a hundred units a layer. On CuPy nothing here waits for the card.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import chainer
import numpy as np

# NumPy's and CuPy's arrays and modules share an interface that neither can name.
Array = Any
ArrayModule = Any
# What an iterator's converter gives: for a classifier, a pair of arrays.
Batch = Any


@dataclass(frozen=True)
class Layer:
    """An affine layer and its activation.

    Attributes:
        weight: shape (units, inputs).
        bias: shape (units,), or None.
        relu: whether ReLU follows.
    """

    weight: chainer.Parameter
    bias: chainer.Parameter | None
    relu: bool


class MLPStep:
    """Loss and gradients of ``layers`` under mean softmax cross-entropy, for one batch shape.

    Args:
        layers: from input to output; at least one. All parameters share one floating-point type.
        batch: examples a batch, B.
        ignore_label: the label whose examples count neither in the loss nor in its gradient.
        accuracy: whether :meth:`run` computes the batch's accuracy too.
    """

    def __init__(self, layers: tuple[Layer, ...], batch: int, ignore_label: int, accuracy: bool) -> None:
        self.layers = layers
        self.ignore_label = ignore_label
        self.accuracy = accuracy
        weight = layers[0].weight
        self.xp: ArrayModule = weight.device.xp
        self.dtype: np.dtype[Any] = weight.dtype
        with chainer.using_device(weight.device):
            xp, shapes = self.xp, [(batch, layer.weight.shape[0]) for layer in layers]
            self._outputs = [xp.empty(shape, self.dtype) for shape in shapes]
            # The last layer's gradient is made by the loss.
            self._gradients = [xp.empty(shape, self.dtype) for shape in shapes[:-1]]
            self._active = [xp.empty(shape, bool) for shape in shapes[:-1]]
            self._rows = xp.arange(batch)
            self._unit = xp.ones((), self.dtype)

    def run(self, x: Array, t: Array) -> tuple[Array, Array | None]:
        """Computes the loss, and writes every parameter's gradient into its ``grad``.

        Args:
            x: inputs, shape (B, inputs), of the parameters' type.
            t: labels, shape (B,), integers below the number of outputs, or ``ignore_label``.

        Returns:
            The loss and, if asked for, the accuracy: arrays without dimensions, on the device.
        """
        xp, layers = self.xp, self.layers
        inputs = []
        hidden = x
        for layer, output in zip(layers, self._outputs, strict=True):
            inputs.append(hidden)
            xp.dot(hidden, layer.weight.array.T, out=output)
            if layer.bias is not None:
                xp.add(output, layer.bias.array, out=output)
            if layer.relu:
                xp.maximum(output, 0, out=output)
            hidden = output

        loss, gradient = self._softmax_cross_entropy(hidden, t)
        accuracy = (hidden.argmax(axis=1) == t).mean(dtype=self.dtype) if self.accuracy else None

        for index in range(len(layers) - 1, -1, -1):
            layer = layers[index]
            xp.dot(gradient.T, inputs[index], out=_gradient_array(layer.weight))
            if layer.bias is not None:
                gradient.sum(axis=0, out=_gradient_array(layer.bias))
            if index:
                below = self._gradients[index - 1]
                xp.dot(gradient, layer.weight.array, out=below)
                if layers[index - 1].relu:
                    active = self._active[index - 1]
                    xp.greater(inputs[index], 0, out=active)
                    xp.multiply(below, active, out=below)
                gradient = below
        return loss, accuracy

    def _softmax_cross_entropy(self, scores: Array, t: Array) -> tuple[Array, Array]:
        # loss = -mean over valid rows of log softmax(scores)[t];
        # its gradient by the scores = (softmax(scores) - onehot(t)) / valid rows.
        xp = self.xp
        largest = scores.max(axis=1, keepdims=True)
        shifted = scores - largest
        xp.exp(shifted, out=shifted)
        total = shifted.sum(axis=1, keepdims=True)
        xp.log(total, out=total)
        total += largest
        log_probability = xp.subtract(scores, total, out=shifted)

        valid = t != self.ignore_label
        # An ignored row points at class 0 and is multiplied by zero.
        t = t * valid
        log_likelihood = log_probability[self._rows, t]
        log_likelihood *= valid
        scale = 1.0 / self._at_least_one(valid.sum())
        loss = (log_likelihood.sum(keepdims=True) * -scale).astype(self.dtype).reshape(())

        gradient = xp.exp(log_probability, out=log_probability)
        gradient[self._rows, t] -= 1
        gradient *= valid.reshape(-1, 1)
        # Not the scale alone: Chainer multiplies by the loss's own gradient first, and the type of
        # that product decides how the next line rounds.
        gradient *= self._unit * scale
        return loss, gradient

    def _at_least_one(self, count: Array) -> Array:
        # Python's max() would wait for a GPU; NumPy's maximum would make an array where Chainer has a
        # number, and with it another rounding.
        return max(count, 1) if self.xp is np else self.xp.maximum(count, 1).astype(self.dtype)


def _gradient_array(parameter: chainer.Parameter) -> Array:
    gradient = parameter.grad
    if gradient is None:
        with chainer.using_device(parameter.device):
            gradient = parameter.grad = parameter.device.xp.empty_like(parameter.array)
    return gradient
