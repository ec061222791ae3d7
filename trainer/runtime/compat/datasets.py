"""``chainer.datasets.get_mnist()`` and ``get_fashion_mnist()`` without their dead addresses.

Chainer downloads from yann.lecun.com, which answers 403, without a checksum. What these functions
return is still built by Chainer's own code; only where the bytes come from changes: the data set
that travelled with the job, else a file that Chainer has cached before, else the verified cache and
mirrors of :mod:`trainer.runtime.datasets`.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trainer.runtime.compat.hook import Patch
from trainer.runtime.faults import RuntimeFault

if TYPE_CHECKING:
    from trainer.runtime.datasets import Dataset

_MNIST = "mnist"
_FASHION = "fashion-mnist"


def _replace_retrieval(name: str, prefix: str, module: ModuleType) -> None:
    for part, suffix in (("train", "training"), ("test", "test")):
        attribute = f"{prefix}_{suffix}"
        original = getattr(module, attribute)
        retrieve = functools.partial(_retrieve, original, name, part)
        setattr(module, attribute, functools.update_wrapper(retrieve, original))


def _retrieve(original: Callable[[], Any], name: str, part: str) -> Any:  # noqa: ANN401  # Chainer's own return
    """Stand for Chainer's ``_retrieve_*``.

    Returns:
        A mapping with "x", uint8 of shape (N, 784), and "y", uint8 of shape (N,).
    """
    from trainer.runtime import layout

    travelled = layout.travelled_dataset()
    if travelled is None and _chainers_own_cache(name, part).is_file():
        return original()
    data = _load(name, travelled, f"get_{name.replace('-', '_')}()")
    images = data.train_images if part == "train" else data.test_images
    labels = data.train_labels if part == "train" else data.test_labels
    return {"x": images.reshape(len(images), -1), "y": labels}


def mnist(asked_by: str) -> Dataset:
    """Return what stands for MNIST in this job.

    Args:
        asked_by: What the script calls, for messages.

    Raises:
        RuntimeFault: There is none, or its images have another size.
    """
    from trainer.runtime import layout

    return _load(_MNIST, layout.travelled_dataset(), asked_by)


# Chainer retrieves both parts one after the other; reading and checking the files once is enough.
@functools.lru_cache(maxsize=1)
def _load(name: str, travelled: Path | None, asked_by: str) -> Dataset:
    from trainer.runtime import datasets

    # A sample of MNIST, or the user's own digits, is what a job was told to train on. Clothes are
    # no digits, nor the other way round: then load() says which data set to submit.
    own_choice = name == _MNIST and (travelled is None or travelled.name != _FASHION)
    data = datasets.load("auto" if own_choice else name)
    if data.train_images.shape[1:] != (28, 28):
        rows, columns = data.train_images.shape[1:]
        raise RuntimeFault(
            f"{asked_by} gives images of 28x28, and {data.name!r} has images of {rows}x{columns}.",
            "Submit with --dataset mnist, or read this data set with trainer.runtime.datasets.load() in the script.",
        )
    if data.name != name:
        warnings.warn(
            f"{asked_by} returns the data set {data.name!r} ({len(data.train_images):,} training images), "
            "not the full MNIST",
            stacklevel=4,
        )
    return data


def _chainers_own_cache(name: str, part: str) -> Path:
    from chainer.dataset import download

    folder = download.get_dataset_directory(f"pfnet/chainer/{name}", create_directory=False)
    return Path(folder) / f"{part}.npz"


PATCHES = (
    Patch(
        name="get-mnist",
        module="chainer.datasets.mnist",
        reason="chainer.datasets.get_mnist() downloads from an address that answers 403",
        versions="any",
        after=functools.partial(_replace_retrieval, _MNIST, "_retrieve_mnist"),
    ),
    Patch(
        name="get-fashion-mnist",
        module="chainer.datasets.fashion_mnist",
        reason="chainer.datasets.get_fashion_mnist() downloads over HTTP without a checksum",
        versions="any",
        after=functools.partial(_replace_retrieval, _FASHION, "_retrieve_fashion_mnist"),
    ),
)
