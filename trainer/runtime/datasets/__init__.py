"""Data sets of images and labels, found and checked at run time.

::

    from trainer.runtime import datasets

    data = datasets.load("auto")
    data.train_images  # uint8 (60000, 28, 28)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.runtime.datasets.files import FILES, NAMES, find_file, find_files

if TYPE_CHECKING:
    from trainer.runtime.datasets.dataset import Dataset, load, read_directory

__all__ = ["FILES", "NAMES", "Dataset", "find_file", "find_files", "load", "read_directory"]


def __getattr__(name: str) -> object:
    # The command line reads the names above; only what reads images imports NumPy.
    if name not in ("Dataset", "load", "read_directory"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from trainer.runtime.datasets import dataset

    return getattr(dataset, name)
