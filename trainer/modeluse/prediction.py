"""Classify image files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from trainer.modeluse.images import read_digit
from trainer.modeluse.network import probabilities
from trainer.modeluse.source import LoadedModel


class Prediction(msgspec.Struct, frozen=True, kw_only=True, rename={"label": "class"}):
    """What a model takes an image for.

    Attributes:
        path: The image.
        label: The most probable class; ``class`` in JSON.
        probability: Its probability.
        probabilities: Of every class, summing to 1.
    """

    path: str
    label: int
    probability: float
    probabilities: tuple[float, ...]


def predict(model: LoadedModel, images: Sequence[Path]) -> list[Prediction]:
    """Classify images of single digits, prepared as :mod:`trainer.modeluse.images` says.

    Every image is read before the first is classified, so an unusable one is known before any result.

    Args:
        model: The model.
        images: PNG or JPEG files.

    Returns:
        One prediction an image, in their order.

    Raises:
        NotFoundError: A file is missing.
        UsageError: A file is not a readable PNG or JPEG image, or shows nothing; or the model takes no images.
    """
    size = model.network.image_size
    if not images:
        return []
    batch = np.stack([read_digit(path, size) for path in images]).reshape(len(images), -1)
    found = probabilities(model.network.scores(batch.astype(np.float32) * np.float32(1 / 255)))
    return [
        Prediction(
            path=str(path),
            label=int(row.argmax()),
            probability=float(row.max()),
            probabilities=tuple(float(part) for part in row),
        )
        for path, row in zip(images, found, strict=True)
    ]
