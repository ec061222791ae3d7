"""One execution of a job: its status, its record, and the handle that follows it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from trainer.errors import NotFoundError

if TYPE_CHECKING:
    from trainer.backend import Backend
    from trainer.job import TrainingJob
    from trainer.runfolder import RunFolder


class RunStatus(StrEnum):
    """Azure ML's own words, on every backend.

    The documentation's phases map to them: preparing is Preparing, scaling is Queued, running is
    Running, post-processing is Finalizing.
    """

    NOT_STARTED = "NotStarted"
    PREPARING = "Preparing"
    QUEUED = "Queued"
    RUNNING = "Running"
    FINALIZING = "Finalizing"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELED = "Canceled"

    @property
    def terminal(self) -> bool:
        """Whether nothing more will happen."""
        return self in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELED)


class RunFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run failed.

    Attributes:
        message: The reason in one line, for example the exception's last line.
        log_tail: The last lines of the log.
        exit_code: The process's exit status where there was one; negative for a signal.
    """

    message: str
    log_tail: tuple[str, ...] = ()
    exit_code: int | None = None


class ModelRef(msgspec.Struct, frozen=True, kw_only=True):
    """Which model version a run registered."""

    name: str
    version: int
    sha256: str


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a run. Stored as ``status.json``; times are seconds since the epoch, UTC.

    Attributes:
        run_id: Sorts by time; letters, digits and hyphens.
        backend: Name of the backend that runs it.
        status: Where it stands.
        experiment: The job's experiment.
        snapshot: SHA-256 digest of the files that travelled.
        dataset: Name of the data set that travelled, or None.
        created: When it was submitted.
        started: When the script started, or None.
        ended: When the status became terminal, or None.
        failure: Why it failed, or None.
        model: The model version registered from it, or None.
        resumed_from: The run whose checkpoint it continued, or None.
        warnings: What the user should know though the run went on.
        detail: The backend's own notes, such as a process id; secrets never.
    """

    run_id: str
    backend: str
    status: RunStatus
    experiment: str
    snapshot: str
    dataset: str | None = None
    created: float
    started: float | None = None
    ended: float | None = None
    failure: RunFailure | None = None
    model: ModelRef | None = None
    resumed_from: str | None = None
    warnings: tuple[str, ...] = ()
    detail: dict[str, Any] = {}


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One logged value. ``step`` is the epoch where the script gave one; NaN and infinities are None."""

    name: str
    value: float | None
    step: float | None = None
    time: float = 0.0


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a running script is, at its own rate of reporting."""

    epoch: float
    epochs: float
    images_per_second: float | None = None
    loss: float | None = None
    time: float = 0.0


class Run:
    """A handle on a run: a folder here, and the backend that knows how it really stands.

    Picking a run up again after the terminal is gone is making this object again.
    """

    def __init__(self, folder: RunFolder, backend: Backend) -> None:
        self.folder = folder
        self.backend = backend

    @property
    def run_id(self) -> str:
        """The run's id, which is its folder's name."""
        return self.folder.run_id

    @property
    def job(self) -> TrainingJob:
        """What it runs."""
        return self.folder.job()

    def info(self) -> RunInfo:
        """Bring the folder up to date with the backend and return the record."""
        return self.backend.refresh(self.folder)

    def status(self) -> RunStatus:
        """Where the run stands now."""
        return self.info().status

    def metrics(self) -> list[Metric]:
        """Every value logged so far, in order."""
        return self.folder.metrics()

    def latest_metrics(self) -> dict[str, float | None]:
        """The last value of each metric."""
        return {metric.name: metric.value for metric in self.folder.metrics()}

    def progress(self) -> Progress | None:
        """How far the script is, if it says so."""
        return self.folder.progress()

    def logs(self, *, follow: bool = False, poll_seconds: float = 0.2) -> Iterator[str]:
        """The log's lines without their line ends; with ``follow``, until the run ends."""
        offset, pending = 0, b""
        while True:
            ended = self.status().terminal if follow else True
            chunk = self.folder.read_log(offset)
            offset += len(chunk)
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                yield line.decode("utf-8", "replace")
            if ended:
                if pending:
                    yield pending.decode("utf-8", "replace")
                return
            time.sleep(poll_seconds)

    def files(self) -> list[str]:
        """Paths of the run's outputs, relative to ``outputs/``."""
        root = self.folder.outputs
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())

    def file(self, name: str) -> Path:
        """The path of one output.

        Raises:
            NotFoundError: The run has no such output.
        """
        if name not in self.files():
            raise NotFoundError(f"Run {self.run_id} has no output {name!r}.", f"See: trainer show {self.run_id}")
        return self.folder.outputs / name

    def wait(self, timeout: float | None = None, poll_seconds: float = 0.2) -> RunInfo:
        """Block until the run has ended.

        Args:
            timeout: Seconds to wait at most; None waits for ever.
            poll_seconds: Seconds between looks.

        Returns:
            The record; not terminal if the time ran out first.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            info = self.info()
            if info.status.terminal or (deadline is not None and time.monotonic() >= deadline):
                return info
            time.sleep(poll_seconds)

    def cancel(self) -> None:
        """Ask for the run to stop. Does nothing to a run that has ended."""
        self.backend.cancel(self.folder)
