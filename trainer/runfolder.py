"""A run on disk: plain files that can be read, copied and rsynced.

.trainer/runs/.new-*/       a run that is being made, until its records are whole; its lock is held meanwhile
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
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from trainer import recordfile, runmetrics
from trainer.errors import ConfigError, DamagedRecordError, NotFoundError
from trainer.host import elsewhere, this_host
from trainer.job import TrainingJob
from trainer.locks import is_locked, locked
from trainer.records import Metric, Progress, RunInfo, RunStatus
from trainer.runids import unused_run_id
from trainer.runtime.atomic import make_directory, sync_directory, write_bytes
from trainer.runtime.layout import (
    ATTEMPT_VARIABLE,
    AZURE_RUN_ID_VARIABLE,
    METRICS_FILE,
    OUTPUTS_DIR,
    PROGRESS_FILE,
    RESUME_DIR_VARIABLE,
    RUN_DIR_VARIABLE,
    RUN_ID_VARIABLE,
    rank_log,
)
from trainer.trees import remove_tree

JOB_FILE = "job.json"
STATUS_FILE = "status.json"
USER_FILE = "user.json"
NEW_PREFIX = ".new-"
"""Begins the name of a run's folder until its records are whole."""
_T = TypeVar("_T")
# Held while a run is being submitted; see RunFolder.locked.
SUBMISSION_LOCK = "submission"
_TAIL_BYTES = 64 << 10
# A line without an end may be hundreds of megabytes long.
_LONGEST_TAIL_LINE = 2000
# Detail is the only part of a record without a fixed shape.
_DEEPEST_DETAIL = 16


class RunFolder:
    """One run's folder. Reading needs no lock; ``update`` takes one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run_id = path.name
        self.logs = path / "logs"
        self.snapshot = path / "snapshot"
        self.outputs = path / OUTPUTS_DIR
        self._known: RunInfo | None = None
        self._known_job: TrainingJob | None = None

    @classmethod
    def create(cls, runs: Path, job: TrainingJob, *, backend: str, snapshot: str) -> RunFolder:
        """Make a new run's folder, as :meth:`submitting` does, for a run that nobody is submitting."""
        with cls.submitting(runs, job, backend=backend, snapshot=snapshot) as folder:
            return folder

    @classmethod
    @contextmanager
    def submitting(
        cls,
        runs: Path,
        job: TrainingJob,
        *,
        backend: str,
        snapshot: str,
        run_id: str | None = None,
        shared: Path | None = None,
        detail: dict[str, Any] | None = None,
    ) -> Iterator[RunFolder]:
        """Make a new run's folder with its job and its first record, and hold its submission lock for the block.

        The folder gets its name when both are written and the lock is held, so that nobody sees a run without a
        record, or takes one that is being submitted for a dead one. What a killed process left is removed.

        Args:
            runs: The directory of all runs; made if missing.
            job: What will run.
            backend: Name of the backend that will run it.
            snapshot: The snapshot's digest.
            run_id: The run's id, which is unused; None for a new one.
            shared: A staged snapshot that the run's ``snapshot`` is to be a link to; None for an empty directory.
            detail: The backend's notes of a run that it has already.

        Raises:
            ConfigError: The directory can't be written, or has no locks.
        """
        with ExitStack() as stack:
            try:
                make_directory(runs)
                clean_new(runs)
                draft = stack.enter_context(_draft(runs))
                info = RunInfo(
                    run_id=run_id or unused_run_id(runs),
                    backend=backend,
                    status=RunStatus.NOT_STARTED,
                    experiment=job.experiment,
                    snapshot=snapshot,
                    dataset=job.dataset,
                    host=this_host(),
                    created=time.time(),
                    resumed_from=job.resumed_from,
                    study=job.study,
                    trial=job.trial,
                    detail=detail or {},
                )
                for directory in (draft.logs, draft.outputs):
                    directory.mkdir()
                if shared is None:
                    draft.snapshot.mkdir()
                else:
                    draft.snapshot.symlink_to(os.path.relpath(shared, runs / info.run_id))
                write_bytes(draft.path / JOB_FILE, _encode(job))
                write_bytes(draft.path / STATUS_FILE, _encode(info))
                draft.path.chmod(0o755)
                folder = cls(draft.path.rename(runs / info.run_id))
                sync_directory(runs)
            except OSError as error:
                raise ConfigError(
                    f"Can't create a run folder in {runs}: {error.strerror}.",
                    "Make it writable with space to spare, or set TRAINER_HOME to a directory that is.",
                ) from error
            yield folder

    def job(self) -> TrainingJob:
        """The run's job.

        Raises:
            NotFoundError: There is no such run.
            DamagedRecordError: ``job.json`` is damaged, and this object has not read it before.
        """
        try:
            self._known_job = self._read(JOB_FILE, _JOB)
        except DamagedRecordError:
            if self._known_job is None:
                raise
        return self._known_job

    @property
    def last_read(self) -> RunInfo | None:
        """The record as this object last read or wrote it; None before."""
        return self._known

    def info(self) -> RunInfo:
        """The record as it stands on disk.

        Raises:
            NotFoundError: There is no such run.
            DamagedRecordError: ``status.json`` is damaged.
        """
        info = self._read(STATUS_FILE, _INFO)
        check_info(info, self.path / STATUS_FILE)
        self._known = info
        return info

    def update(self, change: Callable[[RunInfo], RunInfo] | None = None, /, **fields: Any) -> RunInfo:
        """Replace the record under the run's lock.

        A terminal status is final: a later change of ``status`` is ignored, so whoever is second
        to notice the end (the process itself, an observer, a cancel) changes nothing.

        A record that was damaged since this object read it, as by a script that writes to it, is set aside and
        written anew, with a warning.

        Args:
            change: Takes the record now on disk and gives the new one.
            fields: Or simply the fields to set.
        """
        with self.locked():
            on_disk, old = self._read_again()
            new = change(old) if change is not None else msgspec.structs.replace(old, **fields)
            if old.status.terminal and new.status is not old.status:
                new = old
            if new.status.terminal and new.ended is None:
                new = msgspec.structs.replace(new, ended=time.time())
            if new != on_disk:
                write_bytes(self.path / STATUS_FILE, _encode(new))
            self._known = new
            return new

    def mend(self) -> None:
        """Write the record anew if it was damaged since this object read it; see :meth:`update`.

        Raises:
            OSError: It can't be written.
            NotFoundError: The folder is gone.
        """
        try:
            self.info()
        except DamagedRecordError:
            self.update()

    def _read_again(self) -> tuple[RunInfo | None, RunInfo]:
        """Return the record on the disk, None if it is damaged, and what to go on from. The lock is held."""
        known = self._known
        try:
            info = self.info()
        except DamagedRecordError as error:
            if known is None:
                raise
            aside = recordfile.set_aside(self.path.parent.parent, self.path / STATUS_FILE)
            if self._known_job is not None and not (self.path / JOB_FILE).is_file():
                write_bytes(self.path / JOB_FILE, _encode(self._known_job))
            what = f"{STATUS_FILE} was damaged while the run went on ({error.why}) and was written anew"
            text = f"{what}; the damaged one is {aside}." if aside else f"{what}."
            return None, msgspec.structs.replace(known, warnings=(*known.warnings, text))
        return info, info

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
            raise no_such_run(self.run_id)
        with locked(self._lock_path(name), blocking=blocking):
            yield

    def is_locked(self, name: str) -> bool:
        """Whether a living process holds one of the run's locks."""
        return is_locked(self._lock_path(name))

    def being_submitted(self) -> bool:
        """Whether a client may still be handing the run to its backend: it holds the submission lock while it does.

        Of a run that another machine submits, its lock can't be seen, and it may be.
        """
        info = self.info()
        if info.status is not RunStatus.NOT_STARTED:
            return False
        return bool(elsewhere(info)) or self.is_locked(SUBMISSION_LOCK)

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
        environment.pop(ATTEMPT_VARIABLE, None)
        environment.pop(RESUME_DIR_VARIABLE, None)
        attempt = 1 + len((self._known or self.info()).restarts)
        if attempt > 1:
            environment[ATTEMPT_VARIABLE] = str(attempt)
        return environment

    def metrics(self) -> list[Metric]:
        """Every metric logged so far. A last line still being written is left out, and so is a damaged one."""
        return self.read_metrics()[0]

    def read_metrics(self) -> tuple[list[Metric], list[str]]:
        """Return every metric logged so far, and what is damaged in ``metrics.jsonl``, in a few sentences."""
        return runmetrics.read(self.path / METRICS_FILE)

    def progress(self) -> Progress | None:
        """The script's last word on how far it is; None also where that is damaged."""
        try:
            return recordfile.read(self.path / PROGRESS_FILE, _PROGRESS)
        except (FileNotFoundError, DamagedRecordError):
            return None

    @property
    def log_path(self) -> Path:
        """The file that holds what the script printed."""
        return self.rank_log(0)

    def rank_log(self, rank: int) -> Path:
        """The file that holds what one rank of the job printed; rank 0 prints into the run's log."""
        return self.path.joinpath(*rank_log(rank))

    def read_log(self, offset: int = 0, rank: int = 0) -> bytes:
        """What the log holds from byte ``offset`` on."""
        path = self.rank_log(rank)
        try:
            # O_NONBLOCK: the script may have put a pipe in its place, whose writer would be waited for.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as stream:
                stream.seek(offset)
                return stream.read() or b""
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise DamagedRecordError(path, f"it can't be read ({error.strerror or error})") from error

    def log_tail(self, lines: int = 20, rank: int = 0) -> tuple[str, ...]:
        """The log's last lines, each cut to 2,000 characters; none if the log can't be read."""
        try:
            size = self.rank_log(rank).stat().st_size
            tail = self.read_log(max(0, size - _TAIL_BYTES), rank).decode("utf-8", "replace")
        except (OSError, DamagedRecordError):
            return ()
        return tuple(line[-_LONGEST_TAIL_LINE:] for line in tail.splitlines()[-lines:])

    def _read(self, name: str, decoder: msgspec.json.Decoder[_T]) -> _T:
        path = self.path / name
        try:
            return recordfile.read(path, decoder)
        except FileNotFoundError as error:
            if self.path.is_dir():
                raise DamagedRecordError(path, "it is missing") from error
            raise no_such_run(self.run_id) from error


def check_info(info: RunInfo, path: str | Path) -> None:
    """Check of a record what its type does not say.

    Args:
        info: The record.
        path: Its file, in the run's folder.

    Raises:
        DamagedRecordError: It is another run's, or no record of ours.
    """
    if info.run_id != os.path.basename(os.path.dirname(path)):  # noqa: PTH119, PTH120  # for ten thousand of them
        raise DamagedRecordError(path, f"it describes the run {info.run_id[:60]!r}")
    level: list[object] = list(info.detail.values())
    for _ in range(_DEEPEST_DETAIL):
        if not level:
            return
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
    raise DamagedRecordError(path, "it is nested too deeply")


_PROGRESS = msgspec.json.Decoder(Progress)
_INFO = msgspec.json.Decoder(RunInfo)
_JOB = msgspec.json.Decoder(TrainingJob)


def _encode(record: msgspec.Struct) -> bytes:
    try:
        data = msgspec.json.encode(record)
    except UnicodeEncodeError:  # a file's name that is not UTF-8 (PEP 383)
        data = msgspec.json.encode(_as_utf8(msgspec.to_builtins(record)))
    return msgspec.json.format(data, indent=2) + b"\n"


def _as_utf8(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_as_utf8(key): _as_utf8(item) for key, item in value.items()}
    return [_as_utf8(item) for item in value] if isinstance(value, list | tuple) else value


@contextmanager
def _draft(runs: Path) -> Iterator[RunFolder]:
    """Make a folder that is no run yet, and hold its submission lock."""
    while True:
        draft = RunFolder(Path(tempfile.mkdtemp(prefix=NEW_PREFIX, dir=runs)))
        with ExitStack() as stack:
            try:
                stack.enter_context(draft.locked(SUBMISSION_LOCK, blocking=False))
            except (BlockingIOError, FileNotFoundError, NotFoundError):
                continue  # between its making and its locking another process took it for a leftover
            except Exception:  # there are no locks
                remove_tree(draft.path)
                raise
            if not draft.path.exists():
                continue
            try:
                yield draft
            except BaseException:
                if draft.path.exists():  # not a run yet
                    remove_tree(draft.path)
                raise
            return


def clean_new(runs: Path) -> None:
    """Remove what processes left that were killed while they made a run's folder."""
    for leftover in runs.glob(f"{NEW_PREFIX}*"):
        with suppress(OSError, NotFoundError), RunFolder(leftover).locked(SUBMISSION_LOCK, blocking=False):
            remove_tree(leftover)


def no_such_run(run_id: str) -> NotFoundError:
    """Return the error for a run that is not there."""
    return NotFoundError(f"There is no run {run_id!r} here.", "See: trainer runs")
