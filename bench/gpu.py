"""The training part of one epoch on an NVIDIA GPU: PyTorch twice, Chainer's Trainer, and this program.

All but Chainer's Trainer keep the whole set on the card. Each waits for the card at the end of its epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.epochs import BATCH, OURS, TRAINER, chainer_trainer, load, ours
from bench.measuring import Samples, interleaved

if TYPE_CHECKING:
    from numpy.typing import NDArray

EAGER, GRAPH = "PyTorch, eager", "PyTorch, CUDA graph"


def measure(data: Path, units: int, repeats: int) -> tuple[dict[str, Samples], list[str]]:
    """Time one epoch of each on the first usable card.

    Args:
        data: Folder of the four IDX files.
        units: Units in each hidden layer.
        repeats: Epochs of each.

    Returns:
        Samples by name, none without a usable GPU; and lines that say what was used and what was left out.
    """
    from trainer.runtime import compat, devices

    report = devices.probe()
    if not report.usable:
        return {}, [f"No usable GPU, so nothing was measured on one: {report.reason}."]
    selected = devices.select("cuda")
    notes = [f"{selected.description}; CuPy {report.cupy}, CUDA {report.cuda_runtime}."]
    compat.apply()
    import chainer
    import cupy

    device = chainer.get_device(selected.chainer_name)
    device.use()
    found, floats, labels = load(data)
    subjects: dict[str, Callable[[], object]] = {}
    try:
        subjects |= _torch(floats, labels, units, selected.index)
    except ImportError:
        notes.append("PyTorch is not installed: its rows are left out (pip install torch).")
    if not subjects and len(notes) == 1:
        notes.append("The PyTorch that is installed can't use the card: its rows are left out.")
    wait = cupy.cuda.Device(selected.index).synchronize
    subjects[TRAINER] = _then(chainer_trainer(floats, labels, units, device), wait)
    subjects[OURS] = _then(ours(found.train_images, found.train_labels, units, device), wait)
    return interleaved(subjects, repeats, warm_up=2), notes


def images_per_second(samples: Mapping[str, Samples], images: int = 60_000) -> str:
    """One line of Markdown.

    Args:
        samples: Of one epoch each.
        images: Images per epoch; MNIST's.
    """
    return (
        "Images a second: " + ", ".join(f"{name} {images / each.median:,.0f}" for name, each in samples.items()) + "."
    )


def _torch(
    floats: NDArray[np.float32], labels: NDArray[np.int32], units: int, index: int
) -> dict[str, Callable[[], object]]:
    import torch

    from bench.peers import torch_mnist

    if not torch.cuda.is_available():
        return {}
    device = torch.device("cuda", index)
    images, targets = torch.from_numpy(floats).to(device), torch.from_numpy(labels.astype(np.int64)).to(device)
    subjects: dict[str, Callable[[], object]] = {}
    for name in (EAGER, GRAPH):
        torch.manual_seed(0)
        model = torch_mnist.make(units).to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        work = (model, optimizer, images, targets, BATCH)
        epoch = torch_mnist.graphed(*work) if name == GRAPH else partial(torch_mnist.train_epoch, *work)
        subjects[name] = _then(epoch, lambda: torch.cuda.synchronize(device))
    return subjects


def _then(first: Callable[[], object], second: Callable[[], object]) -> Callable[[], None]:
    def both() -> None:
        first()
        second()

    return both
