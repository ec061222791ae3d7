"""What to do about a script's failure, where its last line tells."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from trainer.runtime.hints import hint_on
from trainer.runtime.layout import OUTPUTS_DIR

if TYPE_CHECKING:
    from trainer.job import TrainingJob

_MISSING_FILE = re.compile(r"(?:\w+\.)*(?:FileNotFoundError|OSError|NotADirectoryError): .*?'(?P<path>[^']+)'[^']*$")
_MISSING_MODULE = re.compile(r"ModuleNotFoundError: No module named '(?P<name>[^'.]+)")
_TEXT_AND_NUMBER = re.compile(
    r"TypeError: '[<>]=?' not supported between instances of '(?:str' and 'int|int' and 'str)'"
)


def advice(message: str, job: TrainingJob, snapshot: Path) -> str | None:
    """Return a sentence on what to do, or None.

    Args:
        message: The failure's, ``ValueError: text``.
        job: What failed.
        snapshot: The folder with what travelled.
    """
    return next((found for rule in _RULES if (found := rule(message, job, snapshot))), None)


def _missing_file(message: str, job: TrainingJob, snapshot: Path) -> str | None:
    match = _MISSING_FILE.match(message)
    if match is None or "No module named" in message:
        return None
    path = PurePosixPath(match["path"])
    if path.is_absolute() or ".." in path.parts:
        below = job.script.rpartition("/")[0]
        if path.is_absolute() or not below:
            return None
        return _own_folder(below)
    if (snapshot / path).exists():
        return None
    return (
        f"{path} did not travel with the script. If .gitignore names it, write an .amlignore, which replaces it; else "
        "put it below --source, use --dataset, or give the script an absolute path. See: trainer package."
    )


def _missing_module(message: str, job: TrainingJob, snapshot: Path) -> str | None:
    match = _MISSING_MODULE.match(message)
    if match is None:
        return None
    name, below = match["name"], job.script.rpartition("/")[0]
    here = [snapshot / name, snapshot / f"{name}.py"]
    if below and any(path.exists() for path in here):
        return _own_folder(below)
    if name == "pkg_resources":
        return "A library uses pkg_resources, which setuptools has no more: install 'setuptools<82' beside it."
    return None


def _own_folder(below: str) -> str:
    up = "../" * (below.count("/") + 1)
    return (
        f"A job starts in the top folder of what travels. A script that is meant to start in {below}/ begins with "
        f"os.chdir(os.path.dirname(os.path.abspath(__file__))), and leaves what is to be kept in {up}{OUTPUTS_DIR}."
    )


def _newer_numpy(message: str, job: TrainingJob, snapshot: Path) -> str | None:  # noqa: ARG001
    return hint_on(message)


def _text_for_a_number(message: str, job: TrainingJob, snapshot: Path) -> str | None:  # noqa: ARG001
    if _TEXT_AND_NUMBER.match(message) is None or not any(word.startswith("-") for word in job.arguments):
        return None
    return "An option that is declared without a type gives the script a text: add_argument(..., type=int)."


_RULES: tuple[Callable[[str, TrainingJob, Path], str | None], ...] = (
    _missing_file,
    _missing_module,
    _newer_numpy,
    _text_for_a_number,
)
