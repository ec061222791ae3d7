"""Patches for what Chainer's functions and classes do wrong on newer NumPy and SciPy.

None copies Chainer's code: each changes the one value that NumPy treats differently. The names of
Chainer's that they use are private, which is safe because Chainer 7.8.1 is the last release.
"""

# ruff: noqa: ANN401  # Chainer has no types
from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

from trainer.runtime.compat.hook import Patch, With, numpy_at_least, version_tuple
from trainer.runtime.compat.importing import sctypes
from trainer.runtime.versions import installed_version


def _seeing(function: FunctionType, **names: Any) -> FunctionType:
    """The same function with other values for some of the global names that it uses.

    NumPy itself stays as it is: a name set there would be seen by every other library, and Chainer
    compares modules (``xp is numpy``), so its modules must keep the real one.
    """
    changed = FunctionType(
        function.__code__, {**function.__globals__, **names}, function.__name__, function.__defaults__
    )
    changed.__kwdefaults__ = function.__kwdefaults__
    functools.update_wrapper(changed, function)
    return changed


def _as_strided_backward(module: ModuleType) -> None:
    grad = module.AsStridedGrad
    grad.forward = _seeing(grad.forward, np=With(module.np, sctypes=sctypes()))


def _resize_images(module: ModuleType) -> None:
    module.compute_indices_and_weights = _seeing(  # type: ignore[attr-defined]
        module.compute_indices_and_weights, numpy=With(module.numpy, float=float)
    )


def _categorical_log_prob(module: ModuleType) -> None:
    def meshgrid(*axes: Any, **options: Any) -> list[Any]:
        return list(module.numpy.meshgrid(*axes, **options))

    categorical = module.Categorical
    categorical.log_prob = _seeing(categorical.log_prob, numpy=With(module.numpy, meshgrid=meshgrid))


def _deconvolution_cover_all(module: ModuleType) -> None:
    function = module.Deconvolution2DFunction
    original = function._set_cover_all

    @functools.wraps(original)
    def set_cover_all(self: Any, x_shape: Any, w_shape: Any) -> None:
        # For the gradient by the weights alone it is called with the variables themselves.
        original(self, getattr(x_shape, "shape", x_shape), getattr(w_shape, "shape", w_shape))

    function._set_cover_all = set_cover_all


def _pad_sequence(module: ModuleType) -> None:
    import numpy

    original = module.PadSequence.forward

    @functools.wraps(original)
    def forward(self: Any, xs: tuple[Any, ...]) -> Any:
        padding = self.padding
        if isinstance(padding, int) and xs[0].dtype.kind in "iu":
            # NumPy 1 and C convert modulo 2 to the number of bits; so does astype() on any NumPy.
            self.padding = numpy.asarray(padding).astype(xs[0].dtype)[()]
        try:
            return original(self, xs)
        finally:
            self.padding = padding

    module.PadSequence.forward = forward


def _debug_print(module: ModuleType) -> None:
    import numpy

    original: Callable[[Any], str] = module.Variable.debug_print

    @functools.wraps(original)
    def debug_print(self: Any) -> str:
        text = original(self)
        if isinstance(self.array, numpy.ndarray):
            text = text.replace("\n- device: cpu\n", "\n- device: CPU\n", 1)
        return text

    module.Variable.debug_print = debug_print


def _summary_in_float64(module: ModuleType) -> None:
    import numpy

    original = module.Summary.add

    @functools.wraps(original)
    def add(self: Any, value: Any, weight: Any = 1) -> None:
        # A Python float no longer makes NumPy compute in float64; one of NumPy's does. GPU arrays
        # are left to CuPy, as they were.
        if isinstance(value, (numpy.generic, numpy.ndarray)):
            if type(self._x) is float:
                self._x = numpy.float64(self._x)
            if type(self._x2) is float:
                self._x2 = numpy.float64(self._x2)
        original(self, value, weight)

    module.Summary.add = add


def _sparse_matmul(module: ModuleType) -> None:
    if not hasattr(module, "sparse"):  # SciPy is installed but can't be imported: Chainer goes on without
        return

    def coo_matrix(arguments: tuple[Any, Any], **options: Any) -> Any:
        data, indices = arguments
        # As in Chainer's GPU code. SciPy multiplied float16 in float32 while it took it.
        data = data.astype("float32") if data.dtype == "float16" else data
        return module.sparse.coo_matrix((data, indices), **options)

    module._coo_matmul_cpu = _seeing(  # type: ignore[attr-defined]
        module._coo_matmul_cpu, sparse=With(module.sparse, coo_matrix=coo_matrix)
    )


def _scipy_refuses_float16() -> bool:
    scipy = installed_version("scipy")
    return scipy is not None and version_tuple(scipy) >= (1, 15)


def _numpy_1_24() -> bool:
    return numpy_at_least(1, 24)


def _numpy_2() -> bool:
    return numpy_at_least(2)


PATCHES = (
    Patch(
        name="as-strided-backward",
        module="chainer.functions.array.as_strided",
        reason="the backward of F.as_strided looks types up in numpy.sctypes, which NumPy 2 removed",
        versions="NumPy >= 2",
        needed=_numpy_2,
        after=_as_strided_backward,
    ),
    Patch(
        name="resize-images",
        module="chainer.functions.array.resize_images",
        reason="F.resize_images uses numpy.float, which NumPy 1.24 removed",
        versions="NumPy >= 1.24",
        needed=_numpy_1_24,
        after=_resize_images,
    ),
    Patch(
        name="categorical-log-prob",
        module="chainer.distributions.categorical",
        reason="Categorical.log_prob adds a list to the result of numpy.meshgrid, a tuple since NumPy 2",
        versions="NumPy >= 2",
        needed=_numpy_2,
        after=_categorical_log_prob,
    ),
    Patch(
        name="pad-sequence",
        module="chainer.functions.array.pad_sequence",
        reason=(
            "F.pad_sequence(padding=-1) assigns -1 to an unsigned array, which NumPy 2 refuses with "
            "an OverflowError and NumPy 1.24 warns of; before, it wrapped around"
        ),
        versions="NumPy >= 1.24",
        needed=_numpy_1_24,
        after=_pad_sequence,
    ),
    Patch(
        name="deconvolution-weight-gradient",
        module="chainer.functions.connection.deconvolution_2d",
        reason=(
            "The gradient of F.deconvolution_2d by its weights alone, and with it that of a convolution's gradient by "
            "its input, takes arrays for their shapes and fails"
        ),
        versions="any",
        after=_deconvolution_cover_all,
    ),
    Patch(
        name="debug-print",
        module="chainer.variable",
        reason="Variable.debug_print and PrintHook say 'cpu' for 'CPU', as NumPy 2's arrays have a device of that name",
        versions="NumPy >= 2",
        needed=_numpy_2,
        after=_debug_print,
    ),
    Patch(
        name="summary-float64",
        module="chainer.reporter",
        reason=(
            "reporter.Summary, and so LogReport and Evaluator, would sum float32 observations in "
            "float32 under NumPy 2's promotion rules; NumPy 1 summed them in float64"
        ),
        versions="NumPy >= 2",
        needed=_numpy_2,
        after=_summary_in_float64,
    ),
    Patch(
        name="sparse-matmul-float16",
        module="chainer.functions.math.sparse_matmul",
        reason="F.sparse_matmul gives float16 to scipy.sparse, which takes it no more",
        versions="SciPy >= 1.15, where it is installed",
        needed=_scipy_refuses_float16,
        after=_sparse_matmul,
    ),
)
