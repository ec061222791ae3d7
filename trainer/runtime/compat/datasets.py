"""``chainer.datasets.get_mnist()`` and ``get_fashion_mnist()`` without their dead addresses.

Chainer downloads from yann.lecun.com, which answers 403, without a checksum. What these functions
return is still built by Chainer's own code; only where the bytes come from changes: the data set
that travelled with the job, else a file that Chainer has cached before, else the verified cache and
mirrors of :mod:`trainer.runtime.datasets`.
"""

# ruff: noqa: ANN401  # Chainer has no types
from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from trainer.runtime.compat.patch import Patch

# The folder, set by whoever starts the job, of the data set that travelled with it.
TRAVELLED = "TRAINER_DATASET"
_MNIST = "mnist"
_FASHION = "fashion-mnist"


def _replace_retrieval(name: str, prefix: str, module: ModuleType) -> None:
    for part, suffix in (("train", "training"), ("test", "test")):
        attribute = f"{prefix}_{suffix}"
        original = getattr(module, attribute)
        retrieve = functools.partial(_retrieve, original, name, part)
        setattr(module, attribute, functools.update_wrapper(retrieve, original))


def _retrieve(original: Callable[[], Any], name: str, part: str) -> Any:
    """Stands for Chainer's ``_retrieve_*``.

    Returns:
        A mapping with "x", uint8 of shape (N, 784), and "y", uint8 of shape (N,).
    """
    data = _load_travelled(name, os.environ.get(TRAVELLED, ""))
    if data is None:
        if _chainers_own_cache(name, part).is_file():
            return original()
        data = _load_here(name)
    images = getattr(data, f"{part}_images")
    return {"x": images.reshape(len(images), -1), "y": getattr(data, f"{part}_labels")}


# Both parts are retrieved one after the other; reading and verifying the files once is enough.
@functools.lru_cache(maxsize=1)
def _load_travelled(name: str, folder: str) -> Any:
    if not folder:
        return None
    from trainer.runtime import datasets

    data = datasets.load(folder)
    # Digits must not pass for clothes. A sample of MNIST or the user's own files are what the job
    # was told to train on.
    return None if (data.name == _FASHION) != (name == _FASHION) and data.name.endswith(_MNIST) else data


@functools.lru_cache(maxsize=1)
def _load_here(name: str) -> Any:
    from trainer.runtime import datasets

    data = datasets.load("auto" if name == _MNIST else name)
    if data.name != name:
        warnings.warn(
            f"get_mnist() returns {data.name} ({len(data.train_images)} training images): "
            "the full MNIST is not cached and no mirror answers",
            stacklevel=5,
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
