"""What can only be seen on a card. Skips by itself, with the reason, where there is none.

``docs/gpu.md`` says which of these have been seen to pass, and where.
"""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer.runtime import compat, devices

compat.apply()

import chainer  # noqa: E402
from chainer import functions as F  # noqa: E402, N812
from chainer import links as L  # noqa: E402, N812

from tests.chainer_numerics.checking import check, uniform  # noqa: E402
from tests.chainer_numerics.reference import cross_entropy  # noqa: E402
from tests.chainer_numerics.test_functions import CASES  # noqa: E402
from tests.chainer_numerics.test_types import LABELS, MODELS, OPTIMIZERS  # noqa: E402

REPORT = devices.probe()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not REPORT.usable, reason=f"no usable GPU: {REPORT.reason}"),
    # CuPy's own, of its first use of a card.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:cupy"),
]
GPU = "@cupy:0"
SCRIPT = Path(__file__).parents[2] / "chainer_mnist.py"
# Largest difference of a loss between CPU and GPU, relative: float32 sums in another order.
CURVE = 1e-3


def to_cpu(array: Any) -> Any:
    return chainer.get_device("@numpy").send(array)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("embed_id")])
def test_functions(name: str, dtype: str) -> None:
    function, reference, inputs = CASES[name]
    check(function, reference, inputs, dtype, GPU)


def test_softmax_cross_entropy() -> None:
    t = np.array([2, 0, -1, 1], np.int32)
    on_gpu = chainer.get_device(GPU).send(t)
    check(
        lambda x: F.softmax_cross_entropy(x, on_gpu),
        lambda x: cross_entropy(x, t).sum() / 3,
        [uniform(4, 3)],
        "float32",
        GPU,
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", MODELS)
def test_models_learn_as_on_the_cpu(name: str, optimizer: str) -> None:
    build, data = MODELS[name]
    x = data.astype(np.float32) if data.dtype.kind == "f" else data
    curves = []
    for device in map(chainer.get_device, ("@numpy", GPU)):
        np.random.seed(0)
        model = L.Classifier(build())
        with chainer.using_config("train", False):  # dropout draws other masks on a GPU
            model(x, LABELS)  # sizes and weights are settled on the CPU
            device.use()
            model.to_device(device)
            rule = OPTIMIZERS[optimizer]().setup(model)
            rule.add_hook(chainer.optimizer_hooks.WeightDecay(5e-4))
            rule.add_hook(chainer.optimizer_hooks.GradientClipping(5.0))
            batch, labels = device.send((x, LABELS))
            losses = []
            for _ in range(5):
                rule.update(model, batch, labels)
                losses.append(float(to_cpu(model.loss.array)))
        curves.append(losses)
        for path, parameter in model.namedparams():
            assert parameter.array.dtype == parameter.grad.dtype == np.float32, path
    np.testing.assert_allclose(curves[1], curves[0], rtol=CURVE)


def test_parameters_move_between_devices(tmp_path: Path) -> None:
    on_gpu, on_cpu, back = L.Linear(4, 3), L.Linear(4, 3), L.Linear(4, 3)
    on_gpu.to_device(GPU)
    chainer.serializers.save_npz(tmp_path / "gpu.npz", on_gpu)
    chainer.serializers.load_npz(tmp_path / "gpu.npz", on_cpu)
    np.testing.assert_array_equal(on_cpu.W.array, to_cpu(on_gpu.W.array))
    chainer.serializers.save_npz(tmp_path / "cpu.npz", on_cpu)
    back.to_device(GPU)
    chainer.serializers.load_npz(tmp_path / "cpu.npz", back)
    assert isinstance(back.W.array, chainer.backends.cuda.ndarray)
    np.testing.assert_array_equal(to_cpu(back.W.array), on_cpu.W.array)


def test_nothing_is_said_of_cudnn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chainer.get_device(GPU).use()
        chainer.backends.cuda.check_cuda_available()


def test_no_synchronisation_within_an_epoch() -> None:
    # Reporting may wait for the card; a step must not, or the card waits for Python.
    import cupyx
    from chainer.training.updaters import StandardUpdater

    from trainer.runtime.training.iterator import ArrayIterator, unit_range

    device = chainer.get_device(GPU)
    device.use()
    images = np.random.default_rng(0).integers(0, 255, (512, 28, 28), dtype=np.uint8)
    labels = (np.arange(512) % 10).astype(np.int32)
    iterator = ArrayIterator((images.reshape(512, -1), labels), 64, seed=0, device=device)
    model = L.Classifier(L.Linear(784, 10))
    model.to_device(device)
    optimizer = chainer.optimizers.MomentumSGD().setup(model)
    updater = StandardUpdater(iterator, optimizer, converter=unit_range, device=device)
    updater.update()  # compiles the kernels, and may wait
    with cupyx.allow_synchronize(False):
        for _ in range(5):
            updater.update()


def train(folder: Path, data: Path, *args: str) -> dict[str, list[float]]:
    """Runs the tutorial's script; returns its metrics, a value an epoch."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(SCRIPT), "--dataset", str(data), "--batchsize", "64", "--seed", "1", *args]
    env = {**os.environ, "TRAINER_RUN_DIR": str(folder), "TRAINER_RUN_ID": "gpu"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    metrics: dict[str, list[float]] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if "name" in entry:
            metrics.setdefault(entry["name"], []).append(entry["value"])
    return metrics


def test_the_tutorials_job_learns_as_on_the_cpu(tmp_path: Path, tiny_data: Path) -> None:
    on_cpu = train(tmp_path / "cpu", tiny_data, "--epochs", "3", "--device", "cpu")
    on_gpu = train(tmp_path / "gpu", tiny_data, "--epochs", "3", "--device", "cuda")
    for name in ("Loss", "Validation loss"):
        assert len(on_gpu[name]) == 3
        np.testing.assert_allclose(on_gpu[name], on_cpu[name], rtol=CURVE, err_msg=name)
    with np.load(tmp_path / "cpu/outputs/model.npz") as cpu, np.load(tmp_path / "gpu/outputs/model.npz") as gpu:
        assert set(cpu) == set(gpu)
        for key in cpu:
            assert gpu[key].dtype == np.float32
            np.testing.assert_allclose(gpu[key], cpu[key], atol=1e-3)


@pytest.mark.parametrize(("first", "second"), [("cuda", "cuda"), ("cuda", "cpu"), ("cpu", "cuda")])
def test_a_run_is_resumed_on_either_device(first: str, second: str, tmp_path: Path, tiny_data: Path) -> None:
    whole = train(tmp_path / "whole", tiny_data, "--epochs", "2", "--device", second)
    train(tmp_path / "half", tiny_data, "--epochs", "1", "--device", first)
    checkpoint = tmp_path / "half" / "outputs" / "checkpoint.npz"
    rest = train(tmp_path / "rest", tiny_data, "--epochs", "2", "--device", second, "--resume", str(checkpoint))
    np.testing.assert_allclose(rest["Loss"][-1], whole["Loss"][-1], rtol=CURVE)
