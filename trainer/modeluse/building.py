"""How a Chainer network of the user's own is named on the command line: ``--network``, or ``--model-file``."""

from __future__ import annotations

from pathlib import Path

import msgspec

from trainer.errors import UsageError, must_be

_DIMENSIONS_MAX = 8
_NUMBERS_MAX = 1 << 24


class NetworkChoice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What says how a model's network is built, where its record and its file don't.

    Attributes:
        network: ``FILE.py:NAME`` as ``trainer run --network`` takes it, or None.
        model_file: ``FILE.py:FUNCTION`` of a function without arguments, or None.
        input_shape: Shape of one input of ``model_file``'s network, or empty where it isn't told.
    """

    network: str | None = None
    model_file: str | None = None
    input_shape: tuple[int, ...] = ()

    @property
    def where(self) -> str | None:
        """The file and the name in it, or None where nothing is said."""
        return self.network or self.model_file

    @property
    def file(self) -> Path | None:
        """The file, or None where nothing is said."""
        return None if self.where is None else Path(self.where.rpartition(":")[0])

    @property
    def name(self) -> str | None:
        """The file's name and the name in it, or None where nothing is said."""
        return self.in_folder(Path()).where

    def in_folder(self, folder: Path) -> NetworkChoice:
        """Return the same choice, of the file of that name in a folder."""
        return NetworkChoice(
            network=_moved(self.network, folder),
            model_file=_moved(self.model_file, folder),
            input_shape=self.input_shape,
        )


NOTHING_SAID = NetworkChoice()


def check_choice(choice: NetworkChoice, script: Path | None) -> None:
    """Refuse options that exclude each other, and a ``--model-file`` that is none.

    Args:
        choice: The options.
        script: The user's score script, which builds its network itself, or None.

    Raises:
        UsageError: They can't be used.
    """
    if script is not None and choice.model_file is not None:
        raise UsageError("--script and --model-file exclude each other.", "A score script builds its own network.")
    if choice.network is not None and (script is not None or choice.model_file is not None):
        raise UsageError("--network excludes --script and --model-file.", "Each names the network; give one.")
    if choice.model_file is not None:
        split_model_file(choice.model_file)
    elif choice.input_shape:
        raise UsageError("--input-shape is for --model-file.", "Leave it out.")


def split_model_file(text: str, option: str = "--model-file") -> tuple[Path, str]:
    """Split ``FILE.py:FUNCTION``.

    Args:
        text: What was typed.
        option: After this option.

    Raises:
        UsageError: It is not of that form, or there is no such file.
    """
    name, colon, function = text.rpartition(":")
    path = Path(name)
    if not colon or not function.isidentifier() or path.suffix != ".py":
        raise UsageError(
            must_be(option, "FILE.py:FUNCTION", text), f"For example: {option} net.py:make, with a def make in it."
        )
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", f"Check the path in {option}.")
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


def _moved(where: str | None, folder: Path) -> str | None:
    if where is None:
        return None
    path, _, name = where.rpartition(":")
    return f"{folder / Path(path).name}:{name}"
