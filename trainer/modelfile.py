"""A model's npz file as the client reads it: :mod:`trainer.runtime.npz`, with the errors of this side.

Importing this module imports no NumPy; reading a file does, and checking one whose headers NumPy has not written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import IntegrityError, NotFoundError
from trainer.runtime.faults import RuntimeFault

if TYPE_CHECKING:
    import numpy as np

    from trainer.runtime.npy_headers import ArrayInfo
    from trainer.runtime.npz import Limits


def is_path(reference: str) -> bool:
    """Return whether MODEL is a file, or the directory of a fetched model, rather than a registered name."""
    return os.sep in reference or reference.endswith(".npz") or Path(reference).is_file()


def check_npz(path: Path, limits: Limits | None = None) -> dict[str, ArrayInfo]:
    """Read a whole npz file, keeping nothing of it.

    Args:
        path: The file.
        limits: What it may ask for; the defaults of :class:`trainer.runtime.npz.Limits` if None.

    Returns:
        What each array is, by name, in the file's order.

    Raises:
        NotFoundError: There is no such file.
        IntegrityError: It is not an npz file, is damaged, holds Python objects, or asks for too much.
    """
    from trainer.runtime import npz

    with _our_errors():
        return npz.check(path, limits)


def read_npz(path: Path, limits: Limits | None = None) -> dict[str, np.ndarray[Any, Any]]:
    """Read the arrays of an npz file by name, in the file's order; arguments and errors as :func:`check_npz`."""
    from trainer.runtime import npz

    with _our_errors():
        return npz.read(path, limits)


def sums_are_finite(path: Path) -> bool:
    """Return whether each array's values have a finite sum, as they all are then; False also where NumPy must tell.

    Raises:
        NotFoundError, IntegrityError: As :func:`check_npz`.
    """
    from trainer.runtime import npz

    with _our_errors():
        return npz.sums_are_finite(path)


@contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeFault as fault:
        missing = isinstance(fault.__cause__, (FileNotFoundError, NotADirectoryError))
        raise (NotFoundError if missing else IntegrityError)(fault.message, fault.hint) from fault
