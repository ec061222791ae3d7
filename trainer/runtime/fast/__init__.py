"""Make Chainer scripts faster on the CPU without changing what they compute.

The launcher calls :func:`install`. Every means is a general one, works on scripts that know nothing
of this package, and gives the results of Chainer's own code bit for bit; where one does not apply (GPUs,
debug mode, function hooks, subclasses with ideas of their own) Chainer's own code runs.

``TRAINER_FAST`` chooses: ``0`` is none of them, ``-batches,-imports`` all but these, ``batches`` only this one.
``docs/performance.md`` has what each is worth.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from trainer.runtime.compat import hook
from trainer.runtime.compat.hook import Patch
from trainer.runtime.faults import RuntimeFault

VARIABLE = "TRAINER_FAST"

# Chainer has hardly any annotations; what is said of its objects in this package is said in words.
ChainerObject = Any


def _later(module: str, function: str) -> Callable[..., Any]:
    # The launcher installs the means for every script; only one that imports Chainer pays for them.
    def call(*arguments: object) -> object:
        return getattr(importlib.import_module(f"{__name__}.{module}"), function)(*arguments)

    return call


_patch_functions = _later("applying", "patch")

MEANS: Mapping[str, tuple[Patch, ...]] = {
    "imports": (
        Patch(
            name="deferred-imports",
            module="chainer",
            reason="import chainer imports SciPy, Pillow and filelock where they are installed",
            versions="any",
            around=_later("importing", "deferred"),
        ),
    ),
    "batches": (
        Patch(
            name="mapped-batches",
            module="chainer.iterators.serial_iterator",
            reason="SerialIterator makes a Python call per example",
            versions="any",
            after=_later("batches", "patch_iterator"),
        ),
        Patch(
            name="plain-concatenation",
            module="chainer.dataset.convert",
            reason="concat_examples makes an array per example before it concatenates them",
            versions="any",
            after=_later("batches", "patch_convert"),
        ),
    ),
    "functions": (
        Patch(
            name="plain-functions",
            module="chainer",
            reason="most of a small function's time goes to checks that NumPy arrays always pass",
            versions="7.8.1",
            # Waits for all of Chainer: function_node, optimizer and variable import each other.
            after=lambda chainer: _patch_functions(chainer.function_node),
        ),
    ),
    "convolutions": (
        Patch(
            name="patches-copied-once",
            module="chainer.functions.connection.convolution_2d",
            reason="the patches of an image are copied twice",
            versions="any",
            after=_later("convolution", "patch"),
        ),
        Patch(
            name="patches-added-at-once",
            module="chainer.functions.connection.deconvolution_2d",
            reason="the patches of a gradient are added up row by row",
            versions="any",
            after=_later("convolution", "patch_transposed"),
        ),
    ),
    "pooling": (
        Patch(
            name="windows-compared-in-place",
            module="chainer.functions.pooling.max_pooling_nd",
            reason="max pooling copies all windows, twice, and searches them along an axis in the middle",
            versions="7.8.1",
            after=_later("pooling", "patch"),
        ),
    ),
    "normalization": (
        Patch(
            name="mean-taken-once",
            module="chainer.functions.normalization.batch_normalization",
            reason="batch normalization computes mean and difference twice and makes an array of each step",
            versions="7.8.1",
            after=_later("normalization", "patch"),
        ),
    ),
    "activations": (
        Patch(
            name="converted-mask",
            module="chainer.functions.activation.relu",
            reason="the gradient of ReLU multiplies floats by booleans",
            versions="any",
            after=_later("activation", "patch"),
        ),
    ),
    "collections": (
        Patch(
            name="library-not-collected",
            module="chainer",
            reason="the garbage collector walks all of Chainer's functions and classes, three times at the end alone",
            versions="any",
            around=_later("importing", "uncollected"),
        ),
    ),
    "accumulation": (
        Patch(
            name="gradients-added-in-place",
            module="chainer",
            reason="the sum of a variable's gradients is a new array with every further use of the variable",
            versions="7.8.1",
            # Waits for all of Chainer: the modules of backpropagation import each other.
            after=_later("accumulation", "patch"),
        ),
    ),
    "memory": (
        Patch(
            name="freed-memory-kept",
            module="chainer",
            reason="the arrays of a step go back to the system, and come from it again in the next",
            versions="any",
            after=_later("memory", "keep"),
        ),
    ),
}


def install(disabled: frozenset[str] | None = None) -> frozenset[str]:
    """Arrange for the means to take effect when Chainer is imported. Safe to call again.

    Args:
        disabled: Means to leave out; None for what ``TRAINER_FAST`` says.

    Returns:
        The means in use.

    Raises:
        RuntimeFault: ``TRAINER_FAST`` names something else.
    """
    disabled = disabled_by(os.environ.get(VARIABLE, "")) if disabled is None else disabled
    used = frozenset(MEANS) - disabled
    hook.install(patch for name, patches in MEANS.items() if name in used for patch in patches)
    return used


def disabled_by(choice: str) -> frozenset[str]:
    """The means that a value of ``TRAINER_FAST`` leaves out.

    Raises:
        RuntimeFault: It names a means that does not exist, or mixes names with and without "-".
    """
    words = [word.strip() for word in choice.split(",") if word.strip()]
    if words in ([], ["1"], ["all"]):
        return frozenset()
    if words in (["0"], ["none"]):
        return frozenset(MEANS)
    names = {word.removeprefix("-") for word in words}
    signs = {word.startswith("-") for word in words}
    if not names <= set(MEANS) or len(signs) != 1:
        raise RuntimeFault(
            f"{VARIABLE} is {choice!r}, which is no choice of means",
            f"use 0, or names out of {', '.join(MEANS)}, or such names each with a minus sign",
        )
    return frozenset(names if signs == {True} else set(MEANS) - names)
