"""The formulas, in NumPy. Float64 throughout; clarity before speed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def softmax(x: Array, axis: int = 1) -> Array:
    """``exp(x) / sum(exp(x))`` along an axis."""
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def sigmoid(x: Array) -> Array:
    """``1 / (1 + exp(-x))``."""
    return 1 / (1 + np.exp(-x))


def cross_entropy(x: Array, t: Array, weight: Array | None = None, ignore: int = -1) -> Array:
    """Of each example, ``-weight[t] log softmax(x)[t]``; 0 where the label is ``ignore``. x: (N, C)."""
    logp = np.log(softmax(x))
    picked = -logp[np.arange(len(t)), np.where(t == ignore, 0, t)]
    if weight is not None:
        picked = picked * weight[np.where(t == ignore, 0, t)]
    return np.where(t == ignore, 0, picked)


def windows(x: Array, size: int, stride: int, pad: int, fill: float, cover_all: bool = False) -> Array:
    """Sliding windows of images: (N, C, H, W) to (N, C, out, out, size, size)."""
    extra = stride - 1 if cover_all else 0
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad + extra), (pad, pad + extra)), constant_values=fill)
    rows, columns = ((n + 2 * pad - size + extra) // stride + 1 for n in x.shape[2:])
    out = np.empty((*x.shape[:2], rows, columns, size, size))
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride, j * stride
            out[:, :, i, j] = padded[:, :, top : top + size, left : left + size]
    return out


def convolution(x: Array, w: Array, b: Array | None = None, stride: int = 1, pad: int = 0) -> Array:
    """Cross-correlation. x: (N, C, H, W), w: (out, C, k, k)."""
    y = np.einsum("ncijkl,ockl->noij", windows(x, w.shape[2], stride, pad, 0.0), w)
    return y if b is None else y + b[:, None, None]


def max_pooling(x: Array, size: int, stride: int, pad: int = 0, cover_all: bool = True) -> Array:
    """The largest of each window; with ``cover_all`` windows may hang over the edge."""
    return windows(x, size, stride, pad, -np.inf, cover_all).max(axis=(4, 5))


def average_pooling(x: Array, size: int, stride: int, pad: int = 0) -> Array:
    """The mean of each window, padding counted as zeros."""
    return windows(x, size, stride, pad, 0.0).mean(axis=(4, 5))


def local_response_normalization(x: Array, n: int = 5, k: float = 2, alpha: float = 1e-4, beta: float = 0.75) -> Array:
    """Krizhevsky et al. 2012, section 3.3: over ``n`` neighbouring channels."""
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        near = x[:, max(c - n // 2, 0) : c + n // 2 + 1]
        y[:, c] = x[:, c] / (k + alpha * (near**2).sum(axis=1)) ** beta
    return y


def batch_normalization(x: Array, gamma: Array, beta: Array, eps: float = 2e-5) -> Array:
    """Ioffe and Szegedy 2015, algorithm 1: over all axes but the second."""
    axes = (0, *range(2, x.ndim))
    shape = (1, -1, *(1,) * (x.ndim - 2))
    mean = x.mean(axis=axes, keepdims=True)
    variance = x.var(axis=axes, keepdims=True)
    return gamma.reshape(shape) * (x - mean) / np.sqrt(variance + eps) + beta.reshape(shape)


def lstm_step(c: Array, gates: Array) -> tuple[Array, Array]:
    """One step of ``F.lstm``: gates (N, 4 units) hold a, i, f, o of each unit side by side."""
    a, i, f, o = np.moveaxis(gates.reshape(len(gates), -1, 4), 2, 0)
    c = np.tanh(a) * sigmoid(i) + sigmoid(f) * c
    return c, sigmoid(o) * np.tanh(c)


def nstep_lstm_layer(h: Array, c: Array, ws: list[Array], bs: list[Array], x: Array) -> tuple[Array, Array, Array]:
    """One layer over one sequence x (T, in): the gates i, f, a, o in this order, as cuDNN has them."""
    ys = []
    for row in x:
        gate = [ws[k] @ row + ws[k + 4] @ h + bs[k] + bs[k + 4] for k in range(4)]
        i, f, a, o = sigmoid(gate[0]), sigmoid(gate[1]), np.tanh(gate[2]), sigmoid(gate[3])
        c = f * c + i * a
        h = o * np.tanh(c)
        ys.append(h)
    return h, c, np.array(ys)
