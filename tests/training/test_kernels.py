"""Chainer's functions on PyTorch's kernels beside Chainer's own; the command without PyTorch and with it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import chainer
import chainer.functions as F  # noqa: N812
import numpy as np
import pytest
from chainer.functions.activation import relu
from chainer.functions.connection import convolution_2d, deconvolution_2d
from chainer.functions.normalization import batch_normalization
from chainer.functions.pooling import average_pooling_2d, max_pooling_nd

from backends.azure.image import find_pins
from trainer.errors import ConfigError
from trainer.runtime import kernels
from trainer.runtime.faults import RuntimeFault
from trainer.runtime.versions import installed_version

ROOT = Path(__file__).resolve().parents[2]
needs_torch = pytest.mark.skipif(installed_version("torch") is None, reason="PyTorch is not installed")

# Of the largest absolute value of a result: what docs/performance.md promises for float32.
TOLERANCE = 2e-5

PATCHED: list[tuple[Any, str, tuple[tuple[Any, str], ...]]] = [
    (
        convolution_2d,
        "convolution",
        tuple(
            (getattr(convolution_2d, name), "forward_cpu") for name in ("Convolution2DFunction", "Convolution2DGradW")
        ),
    ),
    (deconvolution_2d, "deconvolution", ((deconvolution_2d.Deconvolution2DFunction, "forward_cpu"),)),
    (relu, "activation", ((relu.ReLU, "forward_cpu"), (relu.ReLUGrad2, "forward_cpu"))),
    (
        max_pooling_nd,
        "pooling",
        tuple((getattr(max_pooling_nd, name), "forward_cpu") for name in ("MaxPoolingND", "MaxPoolingNDGrad")),
    ),
    (
        average_pooling_2d,
        "averaging",
        tuple(
            (getattr(average_pooling_2d, name), "forward_cpu") for name in ("AveragePooling2D", "AveragePooling2DGrad")
        ),
    ),
    (
        batch_normalization,
        "normalization",
        tuple((batch_normalization.GeneralBatchNormalizationImpl, name) for name in ("forward", "backward")),
    ),
]


@contextmanager
def others(used: list[str]) -> Iterator[None]:
    """With all of PyTorch's in place. ``used`` gets the names of the functions of its that were called."""
    import importlib

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Calls(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            used.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    assert torch.get_num_threads() >= 1
    kept = [(where, name, getattr(where, name)) for _, _, names in PATCHED for where, name in names]
    try:
        for module, name, _ in PATCHED:
            importlib.import_module(f"trainer.runtime.kernels.{name}").patch(module)
        with Calls():
            yield
    finally:
        for where, name, value in kept:
            setattr(where, name, value)
        if "indexes" in vars(max_pooling_nd.MaxPoolingND):
            del max_pooling_nd.MaxPoolingND.indexes


def both(compute: Callable[[], list[Any]], expected_calls: set[str] | None = None) -> None:
    """What ``compute`` gives, with Chainer's own functions and with PyTorch's."""
    expected = compute()
    used: list[str] = []
    with others(used):
        found = compute()
    if expected_calls is not None:
        assert {name for name in used if name.startswith(("conv", "max_pool", "avg_pool", "native"))} == expected_calls
    for one, other in zip(found, expected, strict=True):
        assert type(one) is np.ndarray
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        finite = np.isfinite(other)
        scale = max(1.0, float(np.abs(other[finite]).max(initial=0)))
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE * scale)


def normal(seed: int, *shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.random.RandomState(seed).standard_normal(shape).astype(dtype)


def gradients(y: chainer.Variable, x: chainer.Variable, w: chainer.Variable) -> list[Any]:
    """The first gradients, and those of their squares by the other."""
    gy = chainer.Variable(normal(9, *y.shape, dtype=y.dtype))
    gx, gw = chainer.grad([y], [x, w], [gy], enable_double_backprop=True)
    (by_x,) = chainer.grad([F.sum(gw * gw)], [x])
    (by_w,) = chainer.grad([F.sum(gx * gx)], [w])
    return [y.array, gx.array, gw.array, by_x.array, by_w.array]


CONVOLUTION = {"convolution", "convolution_backward"}


@needs_torch
@pytest.mark.parametrize(
    ("shape", "weights", "options", "dtype", "calls"),
    [
        ((4, 3, 9, 8), (5, 3, 3, 3), {"pad": 1}, np.float32, CONVOLUTION),
        ((2, 3, 9, 8), (5, 3, 3, 2), {"stride": (2, 3), "pad": (0, 1)}, np.float32, CONVOLUTION),
        ((2, 4, 9, 9), (6, 2, 3, 3), {"groups": 2, "pad": 1}, np.float32, CONVOLUTION),
        ((2, 3, 9, 9), (4, 3, 3, 3), {"dilate": 2}, np.float32, CONVOLUTION),
        ((2, 3, 5, 5), (4, 3, 1, 1), {}, np.float32, CONVOLUTION),
        ((2, 3, 9, 9), (4, 3, 3, 3), {"stride": 2, "cover_all": True}, np.float32, CONVOLUTION),
        ((2, 3, 8, 8), (4, 3, 3, 3), {"stride": 2, "cover_all": True}, np.float32, set()),
        ((2, 3, 8, 8), (4, 3, 3, 3), {"pad": 1}, np.float64, set()),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_convolution(
    shape: tuple[int, ...], weights: tuple[int, ...], options: dict[str, Any], dtype: Any, calls: set[str], bias: bool
) -> None:
    arrays = [normal(0, *shape, dtype=dtype), normal(1, *weights, dtype=dtype)]
    arrays += [normal(2, weights[0], dtype=dtype)] if bias else []

    def compute() -> list[Any]:
        variables = [chainer.Variable(each) for each in arrays]
        return gradients(F.convolution_2d(*variables, **options), *variables[:2])

    both(compute, calls)


@needs_torch
def test_deconvolution() -> None:
    arrays = [normal(0, 2, 4, 5, 6), normal(1, 4, 3, 3, 3), normal(2, 3)]

    def compute() -> list[Any]:
        return [F.deconvolution_2d(*arrays, stride=2, pad=1, outsize=(10, 11)).array]

    both(compute, {"convolution_backward"})


POOLING = {"max_pool2d_with_indices", "max_pool2d_with_indices_backward"}


@needs_torch
@pytest.mark.parametrize(
    ("shape", "options", "dtype", "calls"),
    [
        ((3, 4, 8, 6), {"ksize": 2}, np.float32, POOLING),
        ((3, 4, 9, 7), {"ksize": 3, "stride": 2}, np.float32, POOLING),
        ((3, 4, 9, 7), {"ksize": (3, 2), "stride": (2, 1), "pad": 1, "cover_all": False}, np.float32, POOLING),
        # The last window that Chainer has here begins behind the image.
        ((1, 1, 1, 1), {"ksize": 2, "pad": 1, "stride": 2}, np.float32, set()),
        ((3, 4, 8, 6), {"ksize": 2, "pad": 2}, np.float32, set()),
        ((3, 4, 8), {"ksize": 2}, np.float32, set()),
        ((3, 4, 8, 6), {"ksize": 2}, np.float64, set()),
    ],
)
def test_max_pooling(shape: tuple[int, ...], options: dict[str, Any], dtype: Any, calls: set[str]) -> None:
    x = np.round(normal(0, *shape, dtype=dtype), 1)  # many maxima twice: the first counts

    def compute() -> list[Any]:
        variable = chainer.Variable(x)
        y, indexes = F.max_pooling_nd(variable, **options, return_indices=True)
        gy = chainer.Variable(normal(1, *y.shape, dtype=dtype))
        (first,) = chainer.grad([y], [variable], [gy], enable_double_backprop=True)
        (second,) = chainer.grad([first], [gy], [chainer.Variable(x)])
        return [y.array, indexes, first.array, second.array]

    both(compute, calls)


AVERAGING = {"avg_pool2d", "avg_pool2d_backward"}


@needs_torch
@pytest.mark.parametrize(
    ("shape", "options", "dtype", "calls"),
    [
        ((3, 4, 8, 6), {"ksize": 2}, np.float32, AVERAGING),
        ((3, 4, 9, 7), {"ksize": (3, 2), "stride": (2, 1), "pad": 1}, np.float32, AVERAGING),
        ((3, 4, 7, 7), {"ksize": 7}, np.float32, AVERAGING),
        ((3, 4, 8, 6), {"ksize": 2, "pad": 2}, np.float32, set()),
        ((3, 4, 8, 6), {"ksize": 2}, np.float64, set()),
    ],
)
def test_average_pooling(shape: tuple[int, ...], options: dict[str, Any], dtype: Any, calls: set[str]) -> None:
    x = normal(0, *shape, dtype=dtype)

    def compute() -> list[Any]:
        variable = chainer.Variable(x)
        y = F.average_pooling_2d(variable, **options)
        gy = chainer.Variable(normal(1, *y.shape, dtype=dtype))
        (first,) = chainer.grad([y], [variable], [gy], enable_double_backprop=True)
        (second,) = chainer.grad([first], [gy], [chainer.Variable(x)])
        return [y.array, first.array, second.array]

    both(compute, calls)


NORMALIZATION = {"native_batch_norm", "native_batch_norm_backward"}


@needs_torch
@pytest.mark.parametrize(
    ("shape", "axis", "dtype", "calls"),
    [
        ((8, 3, 5, 4), None, np.float32, NORMALIZATION),
        ((16, 7), None, np.float32, NORMALIZATION),
        ((8, 5, 4, 3), (0, 1, 2), np.float32, set()),
        ((8, 3, 5, 4), None, np.float64, set()),
    ],
)
@pytest.mark.parametrize("running", [True, False])
def test_batch_normalization(
    shape: tuple[int, ...], axis: tuple[int, ...] | None, dtype: Any, calls: set[str], running: bool
) -> None:
    channels = shape[1 if axis is None else 3]
    arrays = [normal(0, *shape, dtype=dtype) + 3, normal(1, channels, dtype=dtype), normal(2, channels, dtype=dtype)]

    def compute() -> list[Any]:
        variables = [chainer.Variable(each) for each in arrays]
        kept = [np.full(channels, each, dtype) for each in (0.5, 2)] if running else [None, None]
        y = F.batch_normalization(*variables, axis=axis, running_mean=kept[0], running_var=kept[1], decay=0.8)
        gy = normal(5, *y.shape, dtype=dtype)
        found = chainer.grad([y], variables, [chainer.Variable(gy)])
        return [y.array, *(each for each in kept if each is not None), *(each.array for each in found)]

    both(compute, calls)


@needs_torch
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_relu(dtype: Any) -> None:
    x = normal(0, 4, 5, 3, dtype=dtype)
    x[0] = 0

    def compute() -> list[Any]:
        variable = chainer.Variable(x)
        y = F.relu(variable)
        gy = chainer.Variable(normal(1, *y.shape, dtype=dtype))
        (first,) = chainer.grad([y], [variable], [gy], enable_double_backprop=True)
        (second,) = chainer.grad([F.sum(first * first)], [gy])
        return [y.array, first.array, second.array]

    both(compute)


@needs_torch
def test_a_network_with_arrays_that_torch_cannot_describe() -> None:
    """Read-only images, a broadcast gradient, a reversed axis."""
    x = normal(0, 6, 3, 12, 12)[:, :, ::-1]
    x.flags.writeable = False
    weights = [normal(1, 8, 3, 3, 3), normal(2, 4, 8, 3, 3)]

    def compute() -> list[Any]:
        variables = [chainer.Variable(each) for each in (x, *weights, np.ones(8, "f"), np.zeros(8, "f"))]
        h = F.relu(F.batch_normalization(F.convolution_2d(variables[0], variables[1], pad=1), *variables[3:]))
        h = F.max_pooling_2d(h, 2)
        F.sum(F.convolution_2d(h, variables[2])).backward()
        return [*(each.grad for each in variables)]

    both(compute, CONVOLUTION | POOLING | NORMALIZATION)


def test_a_choice_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER_KERNELS", "mkl")
    with pytest.raises(RuntimeFault, match="torch or off"):
        kernels.install()
    monkeypatch.delenv("TRAINER_KERNELS")
    assert kernels.install() is None
    assert kernels.install("off") is None


SCRIPT = """
import numpy as np, sys
import chainer, chainer.functions as F
x = chainer.Variable(np.ones((2, 3, 8, 8), "f"))
F.sum(F.convolution_2d(x, np.ones((4, 3, 3, 3), "f"))).backward()
print("torch" in sys.modules, sys.modules["torch"].get_num_threads() if "torch" in sys.modules else 0)
"""


def launched(folder: Path, *settings: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The script through the launcher."""
    (folder / "script.py").write_text(SCRIPT)
    return subprocess.run(
        [sys.executable, ROOT / "trainer/runtime/launch.py", *settings, "script.py"],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_torch
def test_a_script_through_the_launcher(tmp_path: Path) -> None:
    done = launched(tmp_path, "--kernels=torch", TRAINER_THREADS="2")
    assert (done.returncode, done.stdout) == (0, "True 2\n"), done.stderr
    done = launched(tmp_path, TRAINER_KERNELS="torch", TRAINER_THREADS="1")
    assert (done.returncode, done.stdout) == (0, "True 1\n"), done.stderr


def test_off_is_the_default_and_overrides_the_variable(tmp_path: Path) -> None:
    assert launched(tmp_path).stdout == "False 0\n"
    assert launched(tmp_path, "--kernels=off", TRAINER_KERNELS="torch").stdout == "False 0\n"


@needs_torch
def test_the_image_of_a_remote_job_has_the_version_that_is_here() -> None:
    here = installed_version("torch")
    assert here is not None
    assert find_pins([], [], None, kernels="torch").packages["torch"] == here.partition("+")[0]
    assert "torch" not in find_pins([], [], None).packages


@pytest.mark.skipif(installed_version("torch") is not None, reason="PyTorch is installed")
def test_asked_for_but_not_installed(tmp_path: Path) -> None:
    done = launched(tmp_path, "--kernels=torch")
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: --kernels torch needs PyTorch, which isn't installed here",
        "hint: Install PyTorch, as 'trainer docs performance' says, or leave out --kernels torch",
    ]
    with pytest.raises(ConfigError, match="isn't installed here"):
        find_pins([], [], None, kernels="torch")
