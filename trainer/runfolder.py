"""A run on disk: plain files that can be read, copied and rsynced.

.trainer/runs/<run id>/
    job.json        the frozen TrainingJob
    status.json     RunInfo, replaced whole at every change
    metrics.jsonl   one JSON object a line: name, value, step, time
    user.json       the name, note and tags that people gave it, if they did
    progress.json   how far the script is, while it runs
    logs/           std_log.txt is what the script printed
    snapshot/       exactly what travelled
    outputs/        what the script wrote under ./outputs
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from trainer.errors import ConfigError, NotFoundError, UsageError
from trainer.job import TrainingJob
from trainer.locks import is_locked, locked
from trainer.records import Metric, Progress, RunInfo, RunStatus
from trainer.runtime.atomic import write_bytes
from trainer.runtime.layout import (
    AZURE_RUN_ID_VARIABLE,
    METRICS_FILE,
    OUTPUTS_DIR,
    PROGRESS_FILE,
    RUN_DIR_VARIABLE,
    RUN_ID_VARIABLE,
)

RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[a-z2-7]{6}")
_T = TypeVar("_T")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
# Held while a run is being submitted; see RunFolder.locked.
SUBMISSION_LOCK = "submission"
# More than lies between making a run's folder and taking its submission lock.
_FOLDER_TO_LOCK_SECONDS = 5.0
_LOG_NAME = "std_log.txt"
USER_FILE = "user.json"


def new_run_id(now: float | None = None) -> str:
    """An id that sorts by time (UTC) and can be typed: ``20261123-180501-k3xq2m``."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    return f"{stamp}-{''.join(_ALPHABET[byte % 32] for byte in os.urandom(6))}"


class RunFolder:
    """One run's folder. Reading needs no lock; ``update`` takes one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run_id = path.name
        self.logs = path / "logs"
        self.snapshot = path / "snapshot"
        self.outputs = path / OUTPUTS_DIR

    @classmethod
    def create(cls, runs: Path, job: TrainingJob, *, backend: str, snapshot: str) -> RunFolder:
        """Make a new run's folder with its job and its first record.

        Args:
            runs: The directory of all runs; made if missing.
            job: What will run.
            backend: Name of the backend that will run it.
            snapshot: The snapshot's digest.

        Raises:
            ConfigError: The directory can't be written.
        """
        try:
            folder, created = cls._new(runs)
            for directory in (folder.logs, folder.snapshot, folder.outputs):
                directory.mkdir()
            write_bytes(folder.path / "job.json", _encode(job))
            info = RunInfo(
                run_id=folder.run_id,
                backend=backend,
                status=RunStatus.NOT_STARTED,
                experiment=job.experiment,
                snapshot=snapshot,
                dataset=job.dataset,
                created=created,
                resumed_from=job.resumed_from,
            )
            write_bytes(folder.path / "status.json", _encode(info))
        except OSError as error:
            raise ConfigError(
                f"Can't create a run folder in {runs}: {error.strerror}.",
                "Make it writable with space to spare, or set TRAINER_HOME to a directory that is.",
            ) from error
        return folder

    @classmethod
    def _new(cls, runs: Path) -> tuple[RunFolder, float]:
        while True:
            created = time.time()
            folder = cls(runs / new_run_id(created))
            try:
                folder.path.mkdir(parents=True)
            except FileExistsError:
                if not runs.is_dir():
                    raise
                continue
            return folder, created

    def job(self) -> TrainingJob:
        """The run's job.

        Raises:
            NotFoundError: There is no such run.
            ConfigError: ``job.json`` is damaged.
        """
        return self._read("job.json", TrainingJob)

    def info(self) -> RunInfo:
        """The record as it stands on disk.

        Raises:
            NotFoundError: There is no such run.
            ConfigError: ``status.json`` is damaged.
        """
        return self._read("status.json", RunInfo)

    def update(self, change: Callable[[RunInfo], RunInfo] | None = None, /, **fields: Any) -> RunInfo:
        """Replace the record under the run's lock.

        A terminal status is final: a later change of ``status`` is ignored, so whoever is second
        to notice the end (the process itself, an observer, a cancel) changes nothing.

        Args:
            change: Takes the record now on disk and gives the new one.
            fields: Or simply the fields to set.
        """
        with self.locked():
            old = self.info()
            new = change(old) if change is not None else msgspec.structs.replace(old, **fields)
            if old.status.terminal and new.status is not old.status:
                return old
            if new.status.terminal and new.ended is None:
                new = msgspec.structs.replace(new, ended=time.time())
            if new != old:
                write_bytes(self.path / "status.json", _encode(new))
            return new

    @contextmanager
    def locked(self, name: str = "status", *, blocking: bool = True) -> Iterator[None]:
        """Hold one of the run's locks, against other processes too. The kernel frees it if this process dies.

        Args:
            name: Which lock.
            blocking: Wait for it.

        Raises:
            BlockingIOError: Another holds it, and ``blocking`` is false.
            NotFoundError: There is no such run.
        """
        if not self.path.is_dir():
            raise _no_such_run(self.run_id)
        with locked(self._lock_path(name), blocking=blocking):
            yield

    def is_locked(self, name: str) -> bool:
        """Whether a living process holds one of the run's locks."""
        return is_locked(self._lock_path(name))

    def being_submitted(self) -> bool:
        """Whether a client may still be handing the run to its backend.

        It holds the submission lock while it does, and a moment passes between making the folder and taking the lock.
        """
        info = self.info()
        if info.status is not RunStatus.NOT_STARTED:
            return False
        return self.is_locked(SUBMISSION_LOCK) or time.time() - info.created < _FOLDER_TO_LOCK_SECONDS

    def _lock_path(self, name: str) -> Path:
        return self.path / f".{name}.lock"

    def job_environment(self) -> dict[str, str]:
        """Return the environment for a job on this machine: this process's, with where the job reports to."""
        environment = os.environ | {
            RUN_DIR_VARIABLE: str(self.path),
            RUN_ID_VARIABLE: self.run_id,
            "PYTHONUNBUFFERED": "1",
        }
        # Started from inside an Azure ML run, this job must not report as that one.
        environment.pop(AZURE_RUN_ID_VARIABLE, None)
        return environment

    def metrics(self) -> list[Metric]:
        """Every metric logged so far. A last line still being written is left out."""
        try:
            data = (self.path / METRICS_FILE).read_bytes()
        except FileNotFoundError:
            return []
        found = []
        for line in data.split(b"\n")[:-1]:
            try:
                found.append(_METRIC.decode(line))
            except msgspec.DecodeError:
                continue  # the script owns this file; a line it spoiled must not hide the others
        return found

    def progress(self) -> Progress | None:
        """The script's last word on how far it is."""
        try:
            return _PROGRESS.decode((self.path / PROGRESS_FILE).read_bytes())
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    @property
    def log_path(self) -> Path:
        """The file that holds what the script printed."""
        return self.logs / _LOG_NAME

    def read_log(self, offset: int = 0) -> bytes:
        """What the log holds from byte ``offset`` on."""
        try:
            with self.log_path.open("rb") as stream:
                stream.seek(offset)
                return stream.read()
        except FileNotFoundError:
            return b""

    def log_tail(self, lines: int = 20) -> tuple[str, ...]:
        """The log's last lines."""
        size = self.log_path.stat().st_size if self.log_path.exists() else 0
        tail = self.read_log(max(0, size - 64 * 1024)).decode("utf-8", "replace")
        return tuple(tail.splitlines()[-lines:])

    def _read(self, name: str, kind: type[_T]) -> _T:
        try:
            data = (self.path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _no_such_run(self.run_id) from error
        except OSError as error:
            raise ConfigError(f"{self.path / name} can't be read: {error.strerror}.", "Make it readable.") from error
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError as error:
            raise ConfigError(
                f"{self.path / name} is damaged: {error}.",
                f"Restore it from a copy, or remove the folder {self.path}.",
            ) from error


class LogReader:
    """Reads a run's log as it grows, line by line.

    Args:
        folder: The run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._offset = 0
        self._pending = b""

    def lines(self, *, final: bool) -> list[str]:
        """Return the lines that were completed since the last call, without their line ends.

        Args:
            final: Nothing more is written: return a last line that has no line end, too.
        """
        chunk = self._folder.read_log(self._offset)
        self._offset += len(chunk)
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        if final and self._pending:
            lines.append(self._pending)
            self._pending = b""
        return [line.decode("utf-8", "replace") for line in lines]


class _Named(msgspec.Struct):
    name: str | None = None


_NAMED = msgspec.json.Decoder(_Named)
_METRIC = msgspec.json.Decoder(Metric)
_PROGRESS = msgspec.json.Decoder(Progress)


def _encode(record: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def _no_such_run(run_id: str) -> NotFoundError:
    return NotFoundError(f"There is no run {run_id!r} here.", "See: trainer runs")


def run_ids(runs: Path) -> list[str]:
    """Every run's id, newest first."""
    try:
        # Not Path.iterdir: ten thousand Path objects take longer than everything else that listing does.
        return sorted(filter(RUN_ID.fullmatch, os.listdir(runs)), reverse=True)  # noqa: PTH208
    except FileNotFoundError:
        return []


def run_named(runs: Path, name: str, known: list[str]) -> list[str]:
    """The ids, among those ``known``, of the runs that people have given this name."""
    found = []
    for run_id in known:
        try:
            user = _NAMED.decode((runs / run_id / USER_FILE).read_bytes())
        except (OSError, msgspec.DecodeError):
            continue
        if user.name == name:
            found.append(run_id)
    return found


def find_run(runs: Path, reference: str) -> RunFolder:
    """The run that ``reference`` names.

    Args:
        runs: The directory of all runs.
        reference: A run id, an unambiguous beginning or ending of one, a name given by ``trainer runs rename``, or
            ``latest``.

    Raises:
        NotFoundError: No run fits.
        UsageError: More than one fits.
    """
    known = run_ids(runs)
    if reference == "latest":
        if not known:
            raise NotFoundError("There are no runs here.", "Start one: trainer run")
        return RunFolder(runs / known[0])
    if reference in known:
        return RunFolder(runs / reference)
    fitting = [run_id for run_id in known if reference and (run_id.startswith(reference) or run_id.endswith(reference))]
    if not fitting and reference:
        fitting = run_named(runs, reference, known)
    if not fitting:
        raise _no_such_run(reference)
    if len(fitting) > 1:
        raise UsageError(f"{reference!r} fits {len(fitting)} runs: {', '.join(fitting[:3])}.", "Give more of the id.")
    return RunFolder(runs / fitting[0])
