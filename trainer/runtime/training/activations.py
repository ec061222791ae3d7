"""The activations that a compiled step knows: Chainer's function, and what it does there and back in place.

The arithmetic is that of Chainer's ``forward_cpu``, call for call (Chainer 7.8.1, ``functions/activation/``), and so
are the bits on NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from chainer.functions.activation.relu import ReLU
from chainer.functions.activation.sigmoid import Sigmoid
from chainer.functions.activation.tanh import Tanh

# NumPy's and CuPy's arrays and modules share an interface that neither can name.
Array = Any
ArrayModule = Any


@dataclass(frozen=True)
class Activation:
    """One function, element by element.

    Attributes:
        forward: Is given NumPy or CuPy, the inputs, which become the outputs, and zeros, one per column.
        backward: Is given NumPy or CuPy, the gradient of the outputs, which becomes that of the inputs, the outputs,
            and an array of their shape to write to.
        mask: Whether that array is one of booleans; else it has the outputs' type.
    """

    forward: Callable[[ArrayModule, Array, Array], None]
    backward: Callable[[ArrayModule, Array, Array, Array], None]
    mask: bool = False


def _relu(xp: ArrayModule, y: Array, zeros: Array) -> None:
    # NumPy compares two arrays in a quarter of the time that it takes for an array and a number.
    xp.maximum(y, zeros, out=y)


def _relu_gradient(xp: ArrayModule, gradient: Array, y: Array, active: Array) -> None:
    xp.greater(y, 0, out=active)
    xp.multiply(gradient, active, out=gradient)


def _sigmoid(xp: ArrayModule, y: Array, zeros: Array) -> None:  # noqa: ARG001  # see Activation
    half = y.dtype.type(0.5)
    xp.multiply(y, half, out=y)
    xp.tanh(y, out=y)
    xp.multiply(y, half, out=y)
    xp.add(y, half, out=y)


def _sigmoid_gradient(xp: ArrayModule, gradient: Array, y: Array, rest: Array) -> None:
    xp.subtract(y.dtype.type(1), y, out=rest)
    xp.multiply(gradient, y, out=gradient)
    xp.multiply(gradient, rest, out=gradient)


def _tanh(xp: ArrayModule, y: Array, zeros: Array) -> None:  # noqa: ARG001  # see Activation
    xp.tanh(y, out=y)


def _tanh_gradient(xp: ArrayModule, gradient: Array, y: Array, rest: Array) -> None:
    xp.multiply(y, y, out=rest)
    xp.subtract(y.dtype.type(1), rest, out=rest)
    xp.multiply(gradient, rest, out=gradient)


ACTIVATIONS: Mapping[type, Activation] = {
    ReLU: Activation(_relu, _relu_gradient, mask=True),
    Sigmoid: Activation(_sigmoid, _sigmoid_gradient),
    Tanh: Activation(_tanh, _tanh_gradient),
}
