"""Attempts of a job: one whose process or node was lost is started again, and goes on from its last checkpoint.

The files that it goes on from are copied to ``_trainer_job/resume/``, under the names that they have in ``outputs/``,
and ``TRAINER_RESUME_DIR`` names that folder to the script. The included script, and any other that uses
:class:`trainer.runtime.training.checkpoint.Checkpoint` and has an option ``--resume``, is given that option.
What the lost attempt had logged after its checkpoint is logged again, so it is taken out of the run's metrics.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from trainer.runtime.atomic import write_bytes
from trainer.runtime.faults import RuntimeFault
from trainer.runtime.layout import ATTEMPT_VARIABLE, CHECKPOINT_FILE, RESUME_DIR

# Where Chainer's trainer keeps how many epochs its training set has been through.
_EPOCH = "updater/iterator:main/epoch"
_EXTENSION, _OPTION = b"Checkpoint(", (b'"--resume"', b"'--resume'")
# Logged at the start of every attempt.
_GIVEN = ("Batch size", "Epochs")
# Times of metrics are rounded to a millisecond.
_ROUNDING = 0.001
OUR_RESUME = ("--resume", f"{RESUME_DIR}/{CHECKPOINT_FILE}")
"""What is added to the arguments of a script that continues from our checkpoint."""


@dataclass(frozen=True)
class Checkpoint:
    """What an attempt goes on from.

    Attributes:
        files: Names relative to ``outputs/``, with the files.
        epoch: How many epochs were done, where that is known.
        time: When the last of the files was written, in seconds since the epoch, UTC.
    """

    files: Mapping[str, Path] = field(default_factory=dict)
    epoch: float | None = None
    time: float = 0.0

    @property
    def newest(self) -> str | None:
        """The name of the file that was written last; None if there is none."""
        return max(self.files, key=lambda name: (self.files[name].stat().st_mtime, name), default=None)


def this_attempt() -> int:
    """Return which attempt this process belongs to, from 1."""
    text = os.environ.get(ATTEMPT_VARIABLE, "")
    return max(1, int(text)) if text.isdecimal() and len(text) < 6 else 1


def continues_by_option(script: Path) -> bool:
    """Return whether a script writes our checkpoint and has an option to continue from one."""
    try:
        source = script.read_bytes()
    except OSError:
        return False
    return _EXTENSION in source and b"trainer" in source and any(option in source for option in _OPTION)


def is_pattern(pattern: str) -> bool:
    """Return whether a pattern names files below the outputs, as ``checkpoints/*`` does."""
    parts = PurePosixPath(pattern).parts
    return bool(parts) and not pattern.startswith("/") and ".." not in parts and not {"\0", "\\"} & set(pattern)


def pattern_for(script: Path, pattern: str | None) -> str | None:
    """Return the pattern of a script's checkpoints: the one that was given, else that of ours where it writes them."""
    if pattern is not None:
        return pattern
    return CHECKPOINT_FILE if continues_by_option(script) else None


def matching(outputs: Path, pattern: str) -> Iterator[Path]:
    """Find the regular files below ``outputs`` that a pattern names, links left out."""
    with suppress(OSError, ValueError):  # removed while we look
        for path in sorted(outputs.glob(pattern)):
            # What is being written by trainer.runtime.atomic has such a name.
            half = path.name.startswith(".") and path.name.endswith(".tmp")
            if path.is_file() and not path.is_symlink() and not half:
                yield path


def find_checkpoint(outputs: Path, pattern: str | None) -> Checkpoint:
    """Look for what an attempt can go on from; npz files that are cut short or damaged are left out.

    Args:
        outputs: The folder of the attempt before.
        pattern: Of the files' names below it; None for no files.
    """
    files = {}
    epoch = None
    for path in () if pattern is None else matching(outputs, pattern):
        name = path.relative_to(outputs).as_posix()
        if name == CHECKPOINT_FILE:
            try:
                epoch = epoch_of(path)
            except RuntimeFault:
                continue
        elif path.suffix == ".npz" and not _is_whole(path):
            continue
        files[name] = path
    return Checkpoint(files, epoch, max((path.stat().st_mtime for path in files.values()), default=0.0))


def epoch_of(path: Path) -> float | None:
    """Read from a checkpoint of ours how many epochs were done; None from one that does not say.

    Raises:
        RuntimeFault: The file is no sound npz.
    """
    from trainer.runtime import npz  # NumPy takes a tenth of a second, and few runs are restarted

    found = npz.read(path).get(_EPOCH)
    return None if found is None or found.ndim or found.dtype.kind not in "iuf" else float(found)


def lay(checkpoint: Checkpoint, root: Path) -> None:
    """Copy a checkpoint's files to where the next attempt looks for them.

    Args:
        checkpoint: What it goes on from.
        root: Its working directory.

    Raises:
        OSError: They can't be written.
    """
    for name, source in checkpoint.files.items():
        target = root / RESUME_DIR / name
        target.parent.mkdir(parents=True, exist_ok=True)
        half = target.with_name(f".{target.name}.{os.getpid()}.tmp")  # nodes may have one folder
        shutil.copyfile(source, half)
        shutil.copystat(source, half)
        half.chmod(0o644)
        half.replace(target)


def words_for(script: Path, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the arguments to add for a script that is told of its checkpoint by an option."""
    return OUR_RESUME if CHECKPOINT_FILE in checkpoint.files and continues_by_option(script) else ()


def kept_metrics(data: bytes, checkpoint: Checkpoint) -> bytes:
    """Return the lines of metrics that the next attempt will not log again.

    Args:
        data: The lines of all attempts before.
        checkpoint: What it goes on from; without files it begins anew, and nothing is kept.
    """
    if not checkpoint.files:
        return b""
    return b"".join(line + b"\n" for line in data.split(b"\n")[:-1] if _stays(line, checkpoint))


def trim_metrics(path: Path, checkpoint: Checkpoint) -> None:
    """Take out of a file of metrics what the next attempt will log again; see :func:`kept_metrics`.

    Raises:
        OSError: It can't be written.
    """
    try:
        data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
    except FileNotFoundError:
        return
    kept = kept_metrics(data, checkpoint)
    if kept != data:
        write_bytes(path, kept)


def _stays(line: bytes, checkpoint: Checkpoint) -> bool:
    try:
        metric: Any = json.loads(line)
        name, step, time = metric["name"], metric.get("step"), float(metric.get("time") or 0.0)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return True  # damaged: whoever reads it says so
    if name in _GIVEN:
        return False
    if checkpoint.epoch is not None and isinstance(step, int | float):
        return bool(step <= checkpoint.epoch)
    return time <= checkpoint.time + _ROUNDING


def _is_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, ValueError, RuntimeError, NotImplementedError, EOFError, zipfile.BadZipFile):
        return False
