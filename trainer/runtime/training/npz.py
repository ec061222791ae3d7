"""npz files: written atomically and reproducibly, read without trusting them.

:func:`chainer.serializers.load_npz` unpickles, so a crafted file runs code, and it unpacks whatever
a zip archive holds. :func:`read` does neither. The files themselves are plain npz: both NumPy and
Chainer read what :func:`write` wrote.
"""

from __future__ import annotations

import io
import math
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import chainer
import numpy as np
from chainer.serializers import DictionarySerializer
from numpy.typing import NDArray

from trainer.runtime.faults import RuntimeFault

MAX_BYTES = 2 << 30
MAX_MEMBERS = 10_000

# The earliest date that a zip archive can hold: the bytes depend on nothing but the arrays.
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def write(path: Path, arrays: Mapping[str, NDArray[Any]], *, compress: bool = True) -> None:
    """Writes ``arrays`` to ``path``: whole or not at all, and the same bytes for the same arrays.

    Args:
        path: the file; its folder must exist.
        arrays: name to array. Names may hold slashes, as Chainer's serializer makes them.
        compress: deflate the members. Weights shrink by about 8 %; a checkpoint is written sooner
            without.

    Raises:
        RuntimeFault: the file cannot be written, or an array holds Python objects.
    """
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w") as archive:
        # Chainer's serializers walk sets, whose order changes from process to process.
        for name, array in sorted(arrays.items()):
            if array.dtype.hasobject:
                raise RuntimeFault(
                    f"{path.name}: {name} holds Python objects, which npz files of ours never do",
                    "store numbers, or text as a NumPy string",
                )
            member = zipfile.ZipInfo(f"{name}.npy", _ZIP_EPOCH)
            member.external_attr = 0o644 << 16
            member.compress_type = method
            with archive.open(member, "w", force_zip64=array.nbytes > 1 << 30) as stream:
                np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)
    _replace(path, buffer.getbuffer())


def save(path: Path, link: chainer.Link) -> None:
    """Writes a link's parameters under the keys of ``chainer.serializers.save_npz(path, link)``.

    Raises:
        RuntimeFault: the file cannot be written.
    """
    serializer = DictionarySerializer()
    serializer.save(link)
    write(path, serializer.target)


def _replace(path: Path, content: memoryview) -> None:
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchmod(descriptor, 0o644)
            # On disk before it has its name: a crash leaves the old file or the new one.
            os.fsync(descriptor)
        Path(name).replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        Path(name).unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> RuntimeFault:
    return RuntimeFault(
        f"cannot write {path}: {error.strerror or error}", "free some space there, or choose another --output_dir"
    )


def read(path: Path, *, max_bytes: int = MAX_BYTES) -> dict[str, NDArray[Any]]:
    """Reads every array of an npz file that may come from anyone.

    Nothing is unpacked before the archive's own table says that all of it fits, no array is
    allocated that is larger than its member, and nothing is unpickled.

    Args:
        path: the file.
        max_bytes: the most that all members together may unpack to.

    Raises:
        RuntimeFault: the file is missing, damaged, too large, or holds pickled objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if len(members) > MAX_MEMBERS or total > max_bytes:
                raise RuntimeFault(
                    f"{path} unpacks to {total:,} bytes in {len(members):,} arrays, more than the "
                    f"{max_bytes:,} bytes and {MAX_MEMBERS:,} arrays allowed",
                    "use a file that this program wrote",
                )
            arrays: dict[str, NDArray[Any]] = {}
            for member in members:
                with archive.open(member) as stream:
                    arrays[member.filename.removesuffix(".npy")] = _read_array(stream, member, path)
            return arrays
    except FileNotFoundError as error:
        raise RuntimeFault(f"there is no file {path}", "check the path") from error
    except OSError as error:
        raise RuntimeFault(
            f"cannot read {path}: {error.strerror or error}", "check the path and its permissions"
        ) from error
    # zipfile raises NotImplementedError for compression methods that it lacks, RuntimeError for
    # encrypted members, EOFError and zlib.error for damaged ones.
    except (zipfile.BadZipFile, ValueError, RuntimeError, EOFError, zlib.error) as error:
        raise RuntimeFault(
            f"{path} is not a sound npz file: {error}", "it is damaged or was not written by NumPy: use another copy"
        ) from error


def _read_array(stream: IO[bytes], member: zipfile.ZipInfo, path: Path) -> NDArray[Any]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"{member.filename} has npy format version {version}")
    if dtype.hasobject:
        raise RuntimeFault(
            f"{path} holds pickled Python objects ({member.filename}), which can run any code",
            "do not load it; use a file that was saved with chainer.serializers.save_npz",
        )
    count = math.prod(shape)
    if min(shape, default=0) < 0 or count * dtype.itemsize > member.file_size:
        raise ValueError(f"{member.filename} claims more data than it has")
    data = stream.read(count * dtype.itemsize)
    array: NDArray[Any] = np.frombuffer(bytearray(data), dtype=dtype, count=count)
    return array.reshape(shape, order="F" if fortran else "C")
