"""Convolutions whose patches are laid out for the matrix product from the start.

Chainer gathers an image's patches in one order and ``numpy.tensordot`` copies them into another, nine times the
image's size for a 3x3 kernel. Here they are gathered into the second order. The product is that of the same two
matrices in the same layout, so its bits are the same.

The gradient by the image adds the patches up again, row by row of each. Where the patches are as many as the image has
pixels, which is the usual convolution, one addition takes all rows: a patch's element lies in the image a fixed number
of elements away from its own pixel, and the few that would come to lie in the next row are made zero before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.runtime.compat.hook import With
from trainer.runtime.fast import ChainerObject

# Bytes of patches that are made together: they and what they are made from fit in the cache of one core.
_CACHED = 1 << 20


def im2col(
    img: NDArray[Any],
    kh: int,
    kw: int,
    sy: int,
    sx: int,
    ph: int,
    pw: int,
    pval: float = 0,
    cover_all: bool = False,
    dy: int = 1,
    dx: int = 1,
    out_h: int | None = None,
    out_w: int | None = None,
) -> NDArray[Any]:
    """``chainer.utils.conv.im2col_cpu``, with another order in memory.

    Args:
        img: Shape (N, C, H, W).
        kh: Kernel height, and ``kw`` its width.
        kw: See ``kh``.
        sy: Vertical stride, and ``sx`` the horizontal one.
        sx: See ``sy``.
        ph: Vertical padding, and ``pw`` the horizontal one.
        pw: See ``ph``.
        pval: Value of the padding.
        cover_all: Whether the last, incomplete patches count.
        dy: Vertical dilation, and ``dx`` the horizontal one.
        dx: See ``dy``.
        out_h: Output height, and ``out_w`` its width; computed if None.
        out_w: See ``out_h``.

    Returns:
        Shape (N, C, kh, kw, out_h, out_w), in memory ordered (N, out_h, out_w, C, kh, kw).
    """
    from chainer.utils.conv import get_conv_outsize

    n, c, h, w = img.shape
    out_h = get_conv_outsize(h, kh, sy, ph, cover_all, dy) if out_h is None else out_h
    out_w = get_conv_outsize(w, kw, sx, pw, cover_all, dx) if out_w is None else out_w
    assert out_h > 0, "Height in the output should be positive."
    assert out_w > 0, "Width in the output should be positive."
    padded = np.full((n, h + 2 * ph + sy - 1, w + 2 * pw + sx - 1, c), pval, img.dtype)
    padded[:, ph : ph + h, pw : pw + w] = img.transpose(0, 2, 3, 1)
    col = np.empty((n, out_h, out_w, c, kh, kw), img.dtype)
    # A few images at a time: each position in a window writes to all of the patches, which stay in the cache like this.
    images = max(1, _CACHED * n // max(col.nbytes, 1))
    for first in range(0, n, images):
        block = slice(first, first + images)
        for j in range(kh):
            rows = slice(j * dy, j * dy + sy * out_h, sy)
            for i in range(kw):
                col[block, ..., j, i] = padded[block, rows, i * dx : i * dx + sx * out_w : sx]
    return col.transpose(0, 3, 4, 5, 1, 2)


def col2im(
    col: NDArray[Any],
    sy: int,
    sx: int,
    ph: int,
    pw: int,
    h: int,
    w: int,
    dy: int = 1,
    dx: int = 1,
    *,
    chainers: Callable[..., NDArray[Any]],
) -> NDArray[Any]:
    """``chainer.utils.conv.col2im_cpu``; what is in ``col`` may be written over.

    Args:
        col: Shape (N, C, kh, kw, out_h, out_w).
        sy: Vertical stride, and ``sx`` the horizontal one.
        sx: See ``sy``.
        ph: Vertical padding, and ``pw`` the horizontal one.
        pw: See ``ph``.
        h: Height of the image, and ``w`` its width.
        w: See ``h``.
        dy: Vertical dilation, and ``dx`` the horizontal one.
        dx: See ``dy``.
        chainers: Chainer's function.

    Returns:
        Shape (N, C, H, W).
    """
    n, c, kh, kw, out_h, out_w = col.shape
    if (
        (sy, sx, out_h, out_w) != (1, 1, h, w)
        or type(col) is not np.ndarray
        or col.dtype.kind != "f"
        or not col.flags.writeable
        or col.strides[-2] != w * col.strides[-1]
        or kh * kw == 1
    ):
        return chainers(col, sy, sx, ph, pw, h, w, dy=dy, dx=dx)
    pixels = h * w
    flat = col.reshape(n, c, kh, kw, pixels)
    total = np.zeros((n, c, pixels), col.dtype)
    for j, i in np.ndindex(kh, kw):
        down, right = j * dy - ph, i * dx - pw
        if abs(down) >= h or abs(right) >= w:
            continue  # all of it lies in the padding
        # Zeros change nothing: what they are added to began as 0.0, and is never -0.0.
        if right:
            col[:, :, j, i, :, slice(-right) if right < 0 else slice(w - right, None)] = 0
        shift = down * w + right
        source = slice(max(-shift, 0), pixels - max(shift, 0))
        total[:, :, source.start + shift : source.stop + shift] += flat[:, :, j, i, source]
    # A part of a larger array as Chainer's is: in whose order a sum over it is made depends on that.
    img = np.empty((n, c, h + 2 * ph, w + 2 * pw), col.dtype)[:, :, ph : ph + h, pw : pw + w]
    img[...] = total.reshape(n, c, h, w)
    return img


def patch(module: ChainerObject) -> None:
    """Give ``chainer.functions.connection.convolution_2d`` the other ``im2col``."""
    # Only here, where tensordot copies either order to one and the same: elsewhere the order might
    # decide which kernel of BLAS is called, and that the rounding.
    module.conv = With(module.conv, im2col_cpu=im2col)


def patch_transposed(module: ChainerObject) -> None:
    """Give ``chainer.functions.connection.deconvolution_2d`` the other ``col2im``."""
    # There, the patches are always a product that nobody else has.
    shorter = functools.partial(col2im, chainers=module.conv.col2im_cpu)
    module.conv = With(module.conv, col2im_cpu=shorter)
