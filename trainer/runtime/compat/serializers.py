"""A warning before ``load_npz`` unpickles what could run code.

``chainer.serializers.load_npz`` allows pickles, because Chainer writes ``None`` (a parameter that is
not initialised yet) as a pickled array. A file from elsewhere can hold any other pickle, and loading
it runs whatever code it names. Such files keep loading, after a warning.
"""

# ruff: noqa: ANN401  # Chainer has no types
from __future__ import annotations

import functools
import io
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from trainer.runtime.compat.patch import Patch


class UnsafePickleWarning(UserWarning):
    """A file that is being loaded holds pickles which can run code."""


# All that the pickle of an array of None, strings or numbers refers to. NumPy 2 moved the private
# modules; files written by NumPy 1 name the old ones.
_HARMLESS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("_codecs", "encode"),
}
# A pickled None takes some 150 bytes. More than this is not what Chainer writes, and not read here.
_LARGEST_HARMLESS = 1 << 20

# How numpy.load tells the formats apart.
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_ARRAY = b"\x93NUMPY"


class _HarmlessUnpickler(pickle.Unpickler):
    # "Restricting Globals" in the documentation of pickle.
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module, name)


def pickled_members(file: str | os.PathLike[str] | IO[bytes]) -> list[str]:
    """What ``numpy.load(file, allow_pickle=True)`` would unpickle beyond arrays of plain values.

    Args:
        file: A path, or a file open for reading bytes that can seek; its position is kept.

    Returns:
        Names of members as in the archive, without ``.npy``. A file that is no archive is read
        whole by NumPy, as an array or, failing that, as a pickle: its one member is "the whole file".
    """
    if isinstance(file, (str, os.PathLike)):
        try:
            with Path(file).open("rb") as opened:
                return pickled_members(opened)
        except OSError:
            return []  # numpy.load() says so better
    position = file.tell()
    try:
        start = file.read(len(_ARRAY))
        file.seek(position)
        if not start.startswith(_ZIP):
            return ["the whole file"] if start and _can_run_code(file, otherwise=True) else []
        with zipfile.ZipFile(file) as archive:
            return [info.filename.removesuffix(".npy") for info in archive.infolist() if _is_unsafe(archive, info)]
    except Exception:  # zipfile raises a dozen things for damaged archives
        return []  # numpy.load() reads with zipfile too, and raises the same
    finally:
        file.seek(position)


def _is_unsafe(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(info) as member:
            # NumPy hands out a member that is no array as bytes.
            return _can_run_code(member, otherwise=False)
    except Exception:  # damaged, encrypted, compressed in an unknown way
        return False  # NumPy cannot read it either


def _can_run_code(file: IO[bytes], *, otherwise: bool) -> bool:
    """Whether the array in ``file`` is pickled and not harmless; ``otherwise`` if it is no array."""
    from numpy.lib import format as npy

    start = file.read(len(_ARRAY) + 2)
    if not start.startswith(_ARRAY):
        return otherwise
    read_header = npy.read_array_header_1_0 if start[-2:] == b"\x01\x00" else npy.read_array_header_2_0
    try:
        _, _, dtype = read_header(file)
    except ValueError:
        return True  # too long, perhaps, which NumPy does not mind where pickles are allowed
    if not dtype.hasobject:
        return False
    data = file.read(_LARGEST_HARMLESS + 1)
    if len(data) > _LARGEST_HARMLESS:
        return True
    try:
        _HarmlessUnpickler(io.BytesIO(data)).load()
    except Exception:  # a broken pickle raises anything
        return True
    return False


def _warn_of_pickles(module: ModuleType) -> None:
    original = module.load_npz

    @functools.wraps(original)
    def load_npz(file: Any, obj: Any, *args: Any, **kwargs: Any) -> None:
        seekable = isinstance(file, (str, os.PathLike)) or getattr(file, "seekable", lambda: False)()
        members = pickled_members(file) if seekable else []
        if members:
            path = file if isinstance(file, (str, os.PathLike)) else getattr(file, "name", repr(file))
            shown = ", ".join(members[:3]) + (", ..." if len(members) > 3 else "")
            warnings.warn(
                f"{os.fspath(path)} holds pickles ({shown}), and loading them can run any code. If the file "
                "is not your own, stop and load it without them: with numpy.load(file, allow_pickle=False) "
                "as npz: chainer.serializers.NpzDeserializer(npz).load(model)",
                UnsafePickleWarning,
                stacklevel=2,
            )
        original(file, obj, *args, **kwargs)

    module.load_npz = load_npz  # type: ignore[attr-defined]


PATCHES = (
    Patch(
        name="load-npz-pickles",
        module="chainer.serializers.npz",
        reason="load_npz unpickles, and so runs, whatever a file holds without a word",
        versions="any",
        after=_warn_of_pickles,
    ),
)
