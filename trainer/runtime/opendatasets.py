"""``from azureml.opendatasets import MNIST`` where azureml-opendatasets is not installed.

Azure's samples take MNIST from there: ``MNIST.get_file_dataset().download(folder, overwrite=True)`` leaves the four
gzipped IDX files in the folder. Here these hold the data set that travelled with the job, or the verified files of this
machine. The signatures follow azureml-opendatasets 1.60 and azureml-core 1.61.
"""

# ruff: noqa: ARG002, ARG004  # the SDK's signatures
from __future__ import annotations

import gzip
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.runtime.datasets.files import FILES
from trainer.runtime.faults import RuntimeFault

if TYPE_CHECKING:
    from trainer.runtime.datasets import Dataset

# 28x28 bytes have a magic number of their own in the IDX format: unsigned bytes of so many dimensions.
_UNSIGNED_BYTES = 0x800
_PARTS = ("train", "test")


class MNIST:
    """The MNIST data set of Azure Open Datasets."""

    @staticmethod
    def get_file_dataset(enable_telemetry: bool = True, **_: object) -> FileDataset:
        """Return the four files."""
        return FileDataset()

    @staticmethod
    def get_tabular_dataset(
        dataset_filter: object = "all", enable_telemetry: bool = True, **_: object
    ) -> TabularDataset:
        """Return one row per image.

        Args:
            dataset_filter: ``all``, ``train`` or ``test``; an enumeration with these values will do.
            enable_telemetry: Ignored: nothing is sent.
        """
        return TabularDataset(str(getattr(dataset_filter, "value", dataset_filter)).lower())


class FileDataset:
    """The four files, gzipped."""

    def to_path(self) -> list[str]:
        """Return the files' paths inside the data set."""
        return [f"/{name}.gz" for name in FILES]

    def download(
        self, target_path: str | os.PathLike[str] | None = None, overwrite: bool = False, ignore_not_found: bool = False
    ) -> list[str]:
        """Write the files into a folder and return their paths.

        Args:
            target_path: The folder; a new temporary one if None.
            overwrite: Replace files that are there.
            ignore_not_found: Ignored: all are there.

        Raises:
            RuntimeFault: A file is there already, or there is no MNIST here.
        """
        folder = Path(target_path or tempfile.mkdtemp(prefix="mnist-"))
        folder.mkdir(parents=True, exist_ok=True)
        data = _load()
        arrays = (data.train_images, data.train_labels, data.test_images, data.test_labels)
        paths = [folder / f"{name}.gz" for name in FILES]
        for path, array in zip(paths, arrays, strict=True):
            if path.exists() and not overwrite:
                raise RuntimeFault(f"{path} exists already.", "Pass overwrite=True, or another folder.")
            header = struct.pack(f">{1 + array.ndim}I", _UNSIGNED_BYTES + array.ndim, *array.shape)
            with gzip.open(path, "wb", compresslevel=1) as stream:
                stream.write(header)
                stream.write(array.data)
        return [str(path.absolute()) for path in paths]

    @contextmanager
    def mount(self, mount_point: str | None = None, **_: object) -> Iterator[_Mounted]:
        """Give a folder with the files for as long as the context lasts."""
        with tempfile.TemporaryDirectory(prefix="mnist-") as folder:
            self.download(mount_point or folder, overwrite=True)
            yield _Mounted(mount_point or folder)

    def __getattr__(self, name: str) -> object:
        raise AttributeError(f"FileDataset.{name} needs Azure ML's own data sets, and this one is made here")


class _Mounted:
    def __init__(self, mount_point: str) -> None:
        self.mount_point = mount_point


class TabularDataset:
    """One row per image: 784 columns of pixels, named by their number, and ``label``."""

    def __init__(self, part: str) -> None:
        if part not in ("all", *_PARTS):
            raise ValueError(f"dataset_filter is 'all', 'train' or 'test', not {part!r}")
        self._parts = _PARTS if part == "all" else (part,)

    def to_pandas_dataframe(self, **_: object) -> Any:  # noqa: ANN401  # pandas is not ours
        """Return the rows as a data frame.

        Raises:
            RuntimeFault: pandas is not installed, or there is no MNIST here.
        """
        import numpy as np

        try:
            import pandas as pd  # type: ignore[import-not-found, import-untyped, unused-ignore]
        except ImportError as error:
            raise RuntimeFault("to_pandas_dataframe() needs pandas.", "pip install pandas") from error
        data = _load()
        images = np.concatenate([getattr(data, f"{part}_images") for part in self._parts])
        labels = np.concatenate([getattr(data, f"{part}_labels") for part in self._parts])
        frame = pd.DataFrame(images.reshape(len(images), -1).astype(np.int64))
        frame.columns = [str(column) for column in frame.columns]
        frame["label"] = labels.astype(np.int64)
        return frame

    def __getattr__(self, name: str) -> object:
        raise AttributeError(f"TabularDataset.{name} needs Azure ML's own data sets, and this one is made here")


def _load() -> Dataset:
    from trainer.runtime.compat.datasets import mnist

    return mnist("azureml.opendatasets.MNIST")
