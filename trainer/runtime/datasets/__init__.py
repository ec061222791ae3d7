"""Data sets of images and labels, found and checked at run time.

::

    from trainer.runtime import datasets

    data = datasets.load("auto")
    data.train_images  # uint8 (60000, 28, 28)
"""

from __future__ import annotations

from trainer.runtime.datasets.dataset import FILES, Dataset, find_files, load, read_directory

__all__ = ["FILES", "Dataset", "find_files", "load", "read_directory"]
