"""Decompressed copies of gzipped IDX files, made once and mapped into memory afterwards.

A copy is named after the SHA-256 of the gzipped file, and its CRC-32 is compared with the one in that
file's trailer (RFC 1952) on every use, so a damaged copy is made again and never trained on.
The folder is one of this machine's; on a node there is none, and files are decompressed into memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.runtime.atomic import replacing
from trainer.runtime.datasets import idx
from trainer.runtime.faults import RuntimeFault

_CHUNK = 1 << 20
# Smaller files decompress faster than their copy is found.
_SMALLEST = 1 << 20
_KEPT = 16


def read(path: Path, dimensions: int | None, folder: Path | None) -> NDArray[Any]:
    """Return the values of one IDX file, as :func:`idx.read` gives them, through a copy in ``folder``.

    Args:
        path: The file, gzipped or not.
        dimensions: As :func:`idx.read_header` takes it.
        folder: Where copies lie, or None for no copies.

    Raises:
        RuntimeFault: The file is malformed.
    """
    if folder is None:
        return idx.read(path, dimensions)
    with idx.open_content(path) as content:
        if not content.compressed or content.stored_size < _SMALLEST:
            return idx.read(path, dimensions)
        copy = folder / f"{hashlib.file_digest(content.file, 'sha256').hexdigest()}.idx"
        content.file.seek(-8, os.SEEK_END)
        crc, size = struct.unpack("<II", content.file.read(8))
        content.file.seek(0)
        mapped = _mapped(copy, dimensions, crc, size)
        if mapped is not None:
            return mapped
    try:
        _write(path, dimensions, copy)
    except OSError:
        # A full disk or a read-only folder costs time, not the run.
        return idx.read(path, dimensions)
    mapped = _mapped(copy, dimensions, crc, size)
    if mapped is None:
        # Damaged, which reading reports; or of several gzip members, whose last trailer says nothing of the rest.
        copy.unlink(missing_ok=True)
        return idx.read(path, dimensions)
    return mapped


def _mapped(copy: Path, dimensions: int | None, crc: int, size: int) -> NDArray[Any] | None:
    try:
        with idx.open_content(copy) as content:
            if content.compressed or content.stored_size != size:
                return None
            header = idx.read_header(content, dimensions)
            values = idx.memory_map(content.file, header)
    except RuntimeFault:
        return None
    if (
        zlib.crc32(
            np.ascontiguousarray(values, header.dtype).reshape(-1).view(np.uint8).data, zlib.crc32(header.encode())
        )
        != crc
    ):
        return None
    with contextlib.suppress(OSError):
        os.utime(copy)
    return values


def _write(path: Path, dimensions: int | None, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    with replacing(copy, mode=0o600, durable=False) as target, idx.open_content(path) as content:
        header = idx.read_header(content, dimensions)
        target.write(header.encode())
        left = header.size - header.length
        while left:
            chunk = content.read(min(left, _CHUNK))
            if not chunk:
                break
            target.write(chunk)
            left -= len(chunk)
    _prune(copy.parent)


def _prune(folder: Path) -> None:
    # A file that is mapped somewhere stays readable there after it is unlinked.
    with contextlib.suppress(OSError):
        copies = sorted(folder.glob("*.idx"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in copies[_KEPT:]:
            path.unlink(missing_ok=True)
