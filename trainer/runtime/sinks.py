"""Where reported values go when the run is on this machine: the run's folder, or stdout without one.

``metrics.jsonl`` has one JSON object per line, ``{"name", "value", "step", "time"}``. A value that JSON can't
hold as a number is null, and ``"text"`` says what it was (``"nan"``); ``"iteration"`` is there where it is known, and
``"attempt"`` where the job was started again.
A line is one ``write`` to a file opened for appending, so lines of several processes don't mix (POSIX, write:
O_APPEND).
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from trainer.runtime import ranks
from trainer.runtime.atomic import write_bytes
from trainer.runtime.attempts import this_attempt
from trainer.runtime.faults import RuntimeFault
from trainer.runtime.layout import METRICS_FILE, PROGRESS_FILE, RUN_DIR_VARIABLE

LONGEST_NAME = 255
LONGEST_TEXT = 1000
_PROGRESS_SECONDS = 0.3


class Sink(Protocol):
    """Takes what a script reports."""

    def log(self, name: str, value: float | str, step: float | None = None, iteration: int | None = None) -> None:
        """Record one value."""

    def progress(self, state: dict[str, float | None]) -> None:
        """Record how far the script is."""

    def close(self) -> None:
        """Write what is still held back."""


class FolderSink:
    """Writes into a run's folder, from the process that made it and from no worker process of it.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owner = os.getpid()
        self._attempt = this_attempt()
        self._descriptor: int | None = None
        self._pending: dict[str, float | None] | None = None
        self._written = -math.inf

    def log(self, name: str, value: float | str, step: float | None = None, iteration: int | None = None) -> None:
        """Append one line to ``metrics.jsonl``.

        Raises:
            RuntimeFault: It can't be written, as on a full disk.
        """
        if self._foreign():
            return
        now = round(time.time(), 3)
        record: dict[str, object] = {"name": name, "value": value, "step": _finite(step), "time": now}
        if isinstance(value, str) or not math.isfinite(value):
            record.update(value=None, text=str(value)[:LONGEST_TEXT])
        if iteration is not None:
            record["iteration"] = iteration
        if self._attempt > 1:
            record["attempt"] = self._attempt
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        path = self._folder / METRICS_FILE
        try:
            if self._descriptor is None:
                self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if os.write(self._descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise RuntimeFault(f"Can't write {path}: {error.strerror}.", "Free some space, then resume.") from error

    def progress(self, state: dict[str, float | None]) -> None:
        """Replace ``progress.json``, a few times per second at most; the last state is written by ``close``."""
        if self._foreign():
            return
        self._pending = {name: _finite(value) for name, value in state.items()} | {"time": time.time()}
        if time.monotonic() - self._written >= _PROGRESS_SECONDS:
            self._write_progress()

    def close(self) -> None:
        """Write the last progress."""
        if not self._foreign() and self._pending is not None:
            self._write_progress()

    def _write_progress(self) -> None:
        # Nobody's run should end because its progress bar can't be drawn.
        with contextlib.suppress(OSError):
            write_bytes(self._folder / PROGRESS_FILE, json.dumps(self._pending).encode() + b"\n", durable=False)
        self._pending, self._written = None, time.monotonic()

    def _foreign(self) -> bool:
        return self._owner != os.getpid() or is_worker()


class StdoutSink:
    """Prints values for people; progress is not printed."""

    def __init__(self) -> None:
        self._owner = os.getpid()

    def log(self, name: str, value: float | str, step: float | None = None, iteration: int | None = None) -> None:  # noqa: ARG002
        """Print one line."""
        if self._owner != os.getpid() or is_worker():
            return
        shown = value if isinstance(value, str) else f"{value:.6g}"
        sys.stdout.write(f"{name}: {shown}\n" if step is None else f"{name} ({step:g}): {shown}\n")
        sys.stdout.flush()

    def progress(self, state: dict[str, float | None]) -> None:
        """Print nothing."""

    def close(self) -> None:
        """Do nothing."""


def local_sink() -> Sink:
    """Return the sink of this process: its run's folder, or stdout where there is none.

    Raises:
        RuntimeFault: ``TRAINER_RUN_DIR`` is no directory.
    """
    named = os.environ.get(RUN_DIR_VARIABLE)
    if not named:
        return StdoutSink()
    folder = Path(named).absolute()
    if not folder.is_dir():
        raise RuntimeFault(f"{RUN_DIR_VARIABLE} is {named}, which is no directory.", "Start the run again.")
    return FolderSink(folder)


_by_script = False


def mark_script_reports() -> None:
    """Note that the script logs metrics by itself, so that nothing is recorded twice."""
    global _by_script
    _by_script = True


def script_reports() -> bool:
    """Return whether the script has logged a metric by itself."""
    return _by_script


def is_worker() -> bool:
    """Return whether this is a worker process of multiprocessing, forked or spawned."""
    return multiprocessing.parent_process() is not None


def mpi_rank() -> int:
    """This process's rank among those that MPI started, 0 without MPI."""
    return ranks.rank()


def clean_name(name: object) -> str:
    """Return a metric's name in printable characters, 255 at most; a bad one must not end hours of training."""
    text = "".join(character if character.isprintable() else " " for character in str(name))
    return text[:LONGEST_NAME].strip() or "unnamed"


def number(value: object) -> float | str:
    """Return what was logged as a float, an int, or the text that it is.

    Args:
        value: A number, a string, or an array of one element, on whatever device.

    Raises:
        TypeError: It is something else.
    """
    if isinstance(value, (str, float)):
        return value
    if isinstance(value, int):
        # Readers of JSON keep no more digits than a float has. int: True is 1.
        return int(value) if abs(value) < 2**53 else _as_float(value)
    # chainer.Variable keeps its array under this name.
    array: Any = getattr(value, "array", value)
    try:
        return number(array.item()) if hasattr(array, "item") else float(array.__float__())
    except (AttributeError, TypeError, ValueError) as error:
        raise TypeError(f"a logged value is a number or a string, not {type(value).__name__}") from error


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
