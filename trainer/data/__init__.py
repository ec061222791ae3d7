"""This machine's side of data sets: the catalogue, mirrors, the cache, and what ``--dataset`` means.

Importing this package imports neither NumPy nor requests.
"""

from __future__ import annotations

from trainer.data.cache import DATA_DIR_VARIABLE, Cache
from trainer.data.catalogue import CATALOGUE, CatalogueEntry, CatalogueFile
from trainer.data.inventory import DatasetStatus, FileReport, VerifyReport, catalogue_status, download, verify
from trainer.data.mirrors import MIRRORS_VARIABLE, Patience
from trainer.data.resolution import ResolvedDataset, own_name, resolve, resolve_for_script
from trainer.data.transfer import ProgressDisplay, Silent

__all__ = [
    "CATALOGUE",
    "DATA_DIR_VARIABLE",
    "MIRRORS_VARIABLE",
    "Cache",
    "CatalogueEntry",
    "CatalogueFile",
    "DatasetStatus",
    "FileReport",
    "Patience",
    "ProgressDisplay",
    "ResolvedDataset",
    "Silent",
    "VerifyReport",
    "catalogue_status",
    "decoded_dir",
    "download",
    "own_name",
    "resolve",
    "resolve_for_script",
    "verify",
]


def decoded_dir() -> str:
    """Return the folder of decompressed copies, empty without one; a local run gets it as ``TRAINER_DECODED_DIR``."""
    return str(Cache.from_environment().decoded or "")
