"""What is known of a run: its status, its record, and what its script logged."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec

from trainer.redaction import redact

# Years 1 to 9999: what a calendar can show.
Time = Annotated[float, msgspec.Meta(ge=-62135596800, le=253402300799)]
"""Seconds since the epoch, UTC."""


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
        lost: Whether the script itself may be without fault: whoever watched over it, or its machine, went down.
    """

    message: str
    log_tail: tuple[str, ...] = ()
    exit_code: int | None = None
    lost: bool = False

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "message", redact(self.message))


class ModelRef(msgspec.Struct, frozen=True, kw_only=True):
    """Which model version a run registered."""

    name: str
    version: int
    sha256: str


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """Why a trial of a study was stopped before its end.

    Attributes:
        by: The policy: ``bandit``, ``median``, ``truncation`` or ``asha``.
        step: The interval at which it was judged: the number of values of the metric.
        value: What it was judged by; None for NaN.
        bound: What that value is worse than, or None where the policy tells none.
    """

    by: str
    step: int
    value: float | None
    bound: float | None = None


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """Which machine a run belongs to; see :mod:`trainer.host`.

    Attributes:
        name: Its host name, for people.
        machine: Tells machines apart; empty where the system has nothing that does.
        boot: Tells its starts apart; likewise.
    """

    name: str
    machine: str = ""
    boot: str = ""


class Restart(msgspec.Struct, frozen=True, kw_only=True):
    """A further attempt at a run whose process or node was lost.

    Attributes:
        attempt: Its number, from 2.
        time: When it was noticed that the attempt before was lost.
        reason: What became of that.
        epoch: After which epoch it goes on, where that is known.
        checkpoint: The output that it goes on from; None for a new start.
    """

    attempt: int
    time: Time
    reason: str
    epoch: float | None = None
    checkpoint: str | None = None

    @property
    def text(self) -> str:
        """``attempt 2, from epoch 10: the node was lost``."""
        place = "the start" if self.checkpoint is None else self.checkpoint
        if self.epoch is not None:
            place = f"epoch {self.epoch:g}"
        return f"attempt {self.attempt}, from {place}: {self.reason}"


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a run. Stored as ``status.json``; times are seconds since the epoch, UTC.

    Attributes:
        run_id: Sorts by time; letters, digits and hyphens.
        backend: Name of the backend that runs it.
        status: Where it stands.
        experiment: The job's experiment.
        snapshot: SHA-256 digest of the files that travelled.
        dataset: Name of the data set that travelled, or None.
        host: The machine that submitted it; None in records of earlier versions.
        created: When it was submitted.
        started: When the script started, or None.
        ended: When the status became terminal, or None.
        failure: Why it failed, or None.
        model: The model version registered from it, or None.
        resumed_from: The run whose checkpoint it continued, or None.
        warnings: What the user should know though the run went on.
        detail: The backend's own notes, such as a process id; secrets never.
        study: The study that it is a trial of, or None.
        trial: Its number there.
        stopped: What stopped the trial, where it was not the user.
        restarts: The attempts after the first, in order.
    """

    run_id: str
    backend: str
    status: RunStatus
    experiment: str
    snapshot: str
    dataset: str | None = None
    host: Host | None = None
    created: Time
    started: Time | None = None
    ended: Time | None = None
    failure: RunFailure | None = None
    model: ModelRef | None = None
    resumed_from: str | None = None
    warnings: tuple[str, ...] = ()
    detail: dict[str, Any] = {}
    study: str | None = None
    trial: int | None = None
    stopped: Stopped | None = None
    restarts: tuple[Restart, ...] = ()


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One logged value. ``step`` is the epoch where the script gave one; NaN and infinities are None.

    ``text`` is what was logged where it is no finite number: ``nan``, or a string of the script's.
    ``iteration`` is the number of updates, where it is known. ``attempt`` counts from 1; see :class:`Restart`.
    """

    name: str
    value: float | None
    step: float | None = None
    time: float = 0.0
    text: str | None = None
    iteration: int | None = None
    attempt: int = 1


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a running script is, at its own rate of reporting."""

    epoch: float
    epochs: float
    images_per_second: float | None = None
    loss: float | None = None
    time: float = 0.0
