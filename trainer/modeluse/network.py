"""The network that a model file holds, run in NumPy."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import RunFailedError, UsageError

# A plain model, one inside a Classifier, and the model inside a checkpoint of a chainer.training.Trainer.
_PREFIXES = ("", "predictor/", "updater/model:main/predictor/", "updater/model:main/")
_KEY = re.compile(r"l([1-9][0-9]{0,2})/(W|b)")


@dataclass(frozen=True)
class Network:
    """Fully connected layers with ReLU between them, as the training script's ``MLP``.

    Attributes:
        layers: Weights of shape (units out, units in) and biases of shape (units out,) of each layer, float32.
    """

    layers: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]

    @property
    def inputs(self) -> int:
        """How many numbers it takes: an image's pixels."""
        return int(self.layers[0][0].shape[1])

    @property
    def classes(self) -> int:
        """How many classes it tells apart."""
        return int(self.layers[-1][0].shape[0])

    @property
    def image_size(self) -> int:
        """Rows, and columns, of the square images that it takes.

        Raises:
            UsageError: Its inputs are no square image.
        """
        side = math.isqrt(self.inputs)
        if side * side != self.inputs:
            raise UsageError(
                f"The model takes {self.inputs} inputs, which is not a square image.", "Use another model."
            )
        return side

    def scores_of(self, examples: NDArray[Any]) -> NDArray[np.float32]:
        """Scores before the softmax, of shape (B, classes), of examples as a data set has them."""
        return self.scores(scaled(examples.reshape(len(examples), -1)))

    def scores(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores before the softmax.

        Args:
            images: Shape (B, inputs), 0 (paper) to 1 (ink).

        Returns:
            Shape (B, classes).
        """
        hidden = images
        for weights, bias in self.layers[:-1]:
            hidden = np.maximum(hidden @ weights.T + bias, np.float32(0))
        weights, bias = self.layers[-1]
        return hidden @ weights.T + bias

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], source: str) -> Network:
        """Build the network from the arrays of an npz file.

        Args:
            arrays: ``l1/W``, ``l1/b``, ``l2/W``, ... as ``serializers.save_npz`` writes them, also inside a
                ``Classifier`` (``predictor/l1/W``) or a trainer's checkpoint. A layer without a bias lacks its b.
            source: What to call the file in messages.

        Raises:
            UsageError: These are not the arrays of such a network.
            RunFailedError: The weights are not finite.
        """
        found = _layers(arrays, source)
        layers, width = [], None
        for number, layer in enumerate(found, 1):
            weights = _float32(layer["W"], f"l{number}/W", 2, source)
            bias = _float32(layer.get("b", np.zeros(len(weights))), f"l{number}/b", 1, source)
            if weights.size == 0 or len(bias) != len(weights):
                raise _odd(source, f"l{number}/W has shape {weights.shape} and l{number}/b {bias.shape}")
            if width is not None and weights.shape[1] != width:
                raise _odd(source, f"l{number}/W takes {weights.shape[1]} inputs and l{number - 1} gives {width}")
            width = len(weights)
            layers.append((weights, bias))
        return cls(tuple(layers))


def scaled(examples: NDArray[Any]) -> NDArray[np.float32]:
    """The training script's own arithmetic: chainer.datasets.get_mnist multiplies by 1/255 in float32.

    Args:
        examples: uint8, or float32, which stays as it is; of any shape.
    """
    values = examples.astype(np.float32)
    return np.asarray(values * np.float32(1 / 255)) if examples.dtype == np.uint8 else values


def probabilities(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Softmax over the classes, in float64; shifted by the largest score, so that nothing overflows.

    Args:
        scores: Shape (B, classes).

    Returns:
        Shape (B, classes); each row sums to 1.
    """
    exponentials = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def cross_entropy(scores: NDArray[np.float32], labels: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Softmax cross-entropy of each example, in float64: log(sum(exp(s))) - s[label].

    Args:
        scores: Shape (B, classes).
        labels: Shape (B,).

    Returns:
        Shape (B,), in nats.
    """
    shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels])


def _layers(arrays: Mapping[str, NDArray[Any]], source: str) -> list[dict[str, NDArray[Any]]]:
    prefix = next((prefix for prefix in _PREFIXES if f"{prefix}l1/W" in arrays), None)
    if prefix is None:
        raise _odd(source, f"there is no l1/W among {_some(list(arrays))}")
    found: dict[int, dict[str, NDArray[Any]]] = {}
    unknown = []
    for key in arrays:
        match = _KEY.fullmatch(key.removeprefix(prefix)) if key.startswith(prefix) else None
        if match:
            found.setdefault(int(match[1]), {})[match[2]] = arrays[key]
        elif not prefix.startswith("updater/") or key.startswith(prefix):
            unknown.append(key)  # a checkpoint also holds the optimizer's state and its like
    if unknown:
        raise _odd(source, f"it also holds {_some(unknown)}")
    for number in range(1, max(found) + 1):
        if "W" not in found.get(number, {}):
            raise _odd(source, f"there is no l{number}/W")
    return [found[number] for number in range(1, max(found) + 1)]


def _float32(array: NDArray[Any], key: str, dimensions: int, source: str) -> NDArray[np.float32]:
    if array.dtype.kind != "f" or array.ndim != dimensions:
        raise _odd(source, f"{key} is {array.dtype} of shape {array.shape}")
    if not np.isfinite(array).all():
        raise RunFailedError(
            f"{source} holds weights that are not finite ({key}): its training diverged.",
            "Train again with a lower learning rate: --lr 0.001",
        )
    return np.ascontiguousarray(array, dtype=np.float32)


def _some(keys: list[str]) -> str:
    return ", ".join(repr(key[:40]) for key in keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _odd(source: str, why: str) -> UsageError:
    return UsageError(
        f"{source} is not a network that trainer can run: {why}.",
        "It runs fully connected layers named l1, l2, ... with ReLU between them, as chainer_mnist.py makes.",
    )
