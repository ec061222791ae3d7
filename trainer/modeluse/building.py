"""How a Chainer network of the user's own is named on the command line: ``--model-file`` and ``--input-shape``."""

from __future__ import annotations

from pathlib import Path

from trainer.errors import UsageError, must_be

_DIMENSIONS_MAX = 8
_NUMBERS_MAX = 1 << 24


def split_model_file(text: str) -> tuple[Path, str]:
    """Split ``FILE.py:FUNCTION``.

    Raises:
        UsageError: It is not of that form, or there is no such file.
    """
    name, colon, function = text.rpartition(":")
    path = Path(name)
    if not colon or not function.isidentifier() or path.suffix != ".py":
        raise UsageError(
            must_be("--model-file", "FILE.py:FUNCTION", text), "For example: --model-file net.py:make, with def make()."
        )
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", "Check the path in --model-file.")
    return path, function


def input_shape(text: str) -> tuple[int, ...]:
    """Read a shape such as ``1,28,28``.

    Raises:
        ValueError: It is none.
    """
    parts = tuple(int(part) for part in text.split(","))
    numbers = 1
    for part in parts:
        numbers *= part
    if not parts or len(parts) > _DIMENSIONS_MAX or min(parts) < 1 or numbers > _NUMBERS_MAX:
        raise ValueError(f"{text!r} is no shape")
    return parts
