"""Convolution, pooling, batch normalization and ReLU of Chainer scripts on PyTorch's CPU kernels, if asked for.

``trainer run --kernels torch`` and ``TRAINER_KERNELS=torch`` make the launcher call :func:`install`. Chainer's
functions then hand the memory of their NumPy arrays to PyTorch's kernels; graph, gradients of gradients, links and
scripts stay Chainer's. Results differ from Chainer's in the last bits, so nothing here is ever in use unasked. What is
not float32 on the CPU, and what PyTorch computes otherwise, Chainer's own code does, or that of
:mod:`trainer.runtime.fast`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

from trainer.runtime import threads
from trainer.runtime.compat import hook
from trainer.runtime.compat.hook import Patch
from trainer.runtime.faults import RuntimeFault
from trainer.runtime.layout import KERNELS, KERNELS_EXPECTED, KERNELS_VARIABLE, MISSING_TORCH, TORCH_HINT
from trainer.runtime.versions import installed_version

# What both libraries hold is said in words.
ChainerObject = Any
Tensor = Any


def _later(module: str) -> Callable[[ChainerObject], None]:
    # For every script that asks; only one that imports Chainer pays for PyTorch's import.
    def call(patched: ChainerObject) -> None:
        importlib.import_module(f"{__name__}.{module}").patch(patched)

    return call


_REASON = "NumPy needs many passes, on one thread, where PyTorch has a kernel"
PATCHES = (
    Patch(
        name="torch-convolution",
        module="chainer.functions.connection.convolution_2d",
        reason=_REASON,
        versions="7.8.1",
        after=_later("convolution"),
    ),
    Patch(
        name="torch-deconvolution",
        module="chainer.functions.connection.deconvolution_2d",
        reason=_REASON,
        versions="7.8.1",
        after=_later("deconvolution"),
    ),
    Patch(
        name="torch-pooling",
        module="chainer.functions.pooling.max_pooling_nd",
        reason=_REASON,
        versions="7.8.1",
        after=_later("pooling"),
    ),
    Patch(
        name="torch-averaging",
        module="chainer.functions.pooling.average_pooling_2d",
        reason=_REASON,
        versions="7.8.1",
        after=_later("averaging"),
    ),
    Patch(
        name="torch-normalization",
        module="chainer.functions.normalization.batch_normalization",
        reason=_REASON,
        versions="7.8.1",
        after=_later("normalization"),
    ),
    Patch(
        name="torch-relu",
        module="chainer.functions.activation.relu",
        reason=_REASON,
        versions="7.8.1",
        after=_later("activation"),
    ),
    Patch(
        name="weights-gradients-as-one-product",
        module="chainer",
        reason="the gradients of a weight that is used in many steps are as many small products, each as large as it",
        versions="7.8.1",
        # Waits for all of Chainer, and comes after the means of trainer.runtime.fast: it wraps theirs.
        after=_later("linear"),
    ),
)


def install(choice: str | None = None) -> str | None:
    """Arrange for the kernels to be used when Chainer is imported, if they are asked for. Safe to call again.

    Has to come after :func:`trainer.runtime.fast.install`, whose functions do what the kernels leave.

    Args:
        choice: ``torch`` or ``off``; None for what ``TRAINER_KERNELS`` says, else ``off``.

    Returns:
        Whose kernels, such as ``"torch 2.13.0"``; None for Chainer's own.

    Raises:
        RuntimeFault: The choice is none of these, or PyTorch is not installed.
    """
    if choice is None:
        choice = os.environ.get(KERNELS_VARIABLE, "").strip() or "off"
    if choice not in KERNELS:
        raise RuntimeFault(f"{KERNELS_VARIABLE} is {choice!r}; it must be {KERNELS_EXPECTED}", "set it to one of them")
    if choice == "off":
        return None
    version = installed_version("torch")
    if version is None:
        raise RuntimeFault(MISSING_TORCH, TORCH_HINT)
    count = threads.asked_for()
    torch = _torch()
    torch.set_num_threads(count)
    threads.FOLLOWERS.append(torch.set_num_threads)
    hook.install(PATCHES)
    return f"torch {version}"


def _torch() -> Any:  # noqa: ANN401  # the module
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise RuntimeFault(f"--kernels torch: PyTorch can't be imported: {error}", TORCH_HINT) from error
