"""Find what is damaged in the home; :mod:`trainer.damage` sets it aside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from trainer import recordfile
from trainer.artifacts import environment_problems
from trainer.damage import Damage, moved
from trainer.errors import DamagedRecordError, TrainerError
from trainer.home import Home
from trainer.host import elsewhere
from trainer.runfolder import NEW_PREFIX, SUBMISSION_LOCK, RunFolder
from trainer.runids import run_ids
from trainer.runmetrics import metric_lines
from trainer.runtime.atomic import write_bytes
from trainer.runtime.layout import ENVIRONMENT_FILE, LABELS_FILE, METRICS_FILE, PROGRESS_FILE

_ANY = msgspec.json.Decoder(Any)


def find(home: Home) -> Iterator[Damage]:
    """Look at the records of every run, and at those of the registries on this machine.

    Raises:
        ConfigError: A directory can't be read, or a backend can't be imported.
    """
    for run_id in run_ids(home.runs):
        yield from _in_run(home, RunFolder(home.runs / run_id))
    yield from _unfinished(home)
    from trainer.backend import backend_names, backend_type, load_backend

    for name in backend_names():
        if not backend_type(name).remote:
            yield from load_backend(name, home).damage()


def _in_run(home: Home, folder: RunFolder) -> Iterator[Damage]:
    try:
        info = folder.info()
        folder.job()
    except DamagedRecordError as error:
        # A run without its record or its job is none; what it left goes with it.
        alive = _is_alive(folder)
        yield Damage(folder.run_id, error.message, None if alive else lambda: moved(home, folder.path))
        return
    except TrainerError:
        return  # removed meanwhile
    busy = not info.status.terminal and bool(elsewhere(info) or _is_alive(folder))
    _, problems = folder.read_metrics()
    if problems:
        yield Damage(folder.run_id, problems[0], None if busy else lambda: _without_damaged_lines(home, folder))
    for path in (folder.path / PROGRESS_FILE, folder.path / LABELS_FILE):
        with suppress(FileNotFoundError):
            try:
                recordfile.read(path, _ANY)
            except DamagedRecordError as error:
                yield Damage(folder.run_id, error.message, None if busy else _mover(home, path))
    for problem in environment_problems(folder):
        path = folder.outputs / ENVIRONMENT_FILE
        yield Damage(folder.run_id, problem, None if busy else _mover(home, path))


def _unfinished(home: Home) -> Iterator[Damage]:
    """What submissions left that were killed while they made a run's folder."""
    for path in sorted(home.runs.glob(f"{NEW_PREFIX}*")):
        with suppress(TrainerError, OSError):
            if not RunFolder(path).is_locked(SUBMISSION_LOCK):
                yield Damage(path.name, f"{path} was left by a submission that was killed.", _mover(home, path))


def _mover(home: Home, path: Path) -> Callable[[], str]:
    return lambda: moved(home, path)


def _is_alive(folder: RunFolder) -> bool:
    """Whether some process on this machine works on the run: it holds one of its locks."""
    for path in folder.path.glob(".*.lock"):
        with suppress(TrainerError, OSError):
            if folder.is_locked(path.name[1:].removesuffix(".lock")):
                return True
    return False


def _without_damaged_lines(home: Home, folder: RunFolder) -> str:
    path = folder.path / METRICS_FILE
    try:
        whole = metric_lines(recordfile.read_bytes(path))
    except (DamagedRecordError, FileNotFoundError):
        whole = []
    done = moved(home, path)
    write_bytes(path, b"".join(line + b"\n" for line in whole))
    return f"{done} The {len(whole):,} whole lines are in {path}."
