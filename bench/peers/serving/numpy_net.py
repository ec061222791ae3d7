"""The network of every server in this comparison: NumPy, from a model.npz."""

from __future__ import annotations

import os
from typing import Any

import numpy as np


class Net:
    """Three fully connected layers with ReLU between them, and a softmax."""

    def __init__(self) -> None:
        with np.load(os.environ["BENCH_MODEL"]) as arrays:
            self.layers = [(arrays[f"l{n}/W"].T.copy(), arrays[f"l{n}/b"]) for n in (1, 2, 3)]

    def predictions(self, rows: list[list[float]]) -> list[dict[str, Any]]:
        """Return class and probabilities of each row, as ``trainer serve`` does."""
        hidden = np.asarray(rows, np.float32)
        for weights, bias in self.layers[:-1]:
            hidden = np.maximum(hidden @ weights + bias, 0)
        scores = (hidden @ self.layers[-1][0] + self.layers[-1][1]).astype(np.float64)
        found = np.exp(scores - scores.max(axis=1, keepdims=True))
        found /= found.sum(axis=1, keepdims=True)
        best = found.argmax(axis=1).tolist()
        return [
            {"class": label, "probability": row[label], "probabilities": row}
            for label, row in zip(best, found.tolist(), strict=True)
        ]
