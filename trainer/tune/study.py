"""A study on disk: a folder of plain files beside the runs.

.trainer/studies/<study id>/
    study.json      the frozen StudyDefinition
    snapshot/       exactly what travels with every trial, staged once; the trials' folders link to it
    trials.jsonl    one JSON object per line, a Trial; the last line of a trial's number counts
    outcome.json    how the study ended, once it has
    optuna.jsonl    with Optuna, its journal, made again from trials.jsonl at every start
    service.json    of a study that a backend's service drives, a ServiceRecord: its name there

A trial is a run under ``.trainer/runs/``. Its line is written, and on the disk, before its run is made, and the run's
id stands in it; whoever takes the study up again finds every run that may have been started.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from trainer import recordfile
from trainer.errors import ConfigError, DamagedRecordError, NotFoundError, UsageError
from trainer.job import TrainingJob
from trainer.locks import is_locked, locked
from trainer.records import ModelRef, Stopped
from trainer.runids import new_run_id
from trainer.runtime.atomic import write_bytes
from trainer.tune.space import Parameter, Value
from trainer.tune.stopping import Policy

STUDY_ID = re.compile(r"study-[0-9]{8}-[0-9]{6}-[a-z2-7]{6}")
CLIENT, SERVICE = "client", "service"
"""Who drives a study: this program, or the backend's own service."""
_DRIVER_LOCK = ".driver.lock"
_SERVICE_LOCK = ".service.lock"
_LARGEST_TRIALS = 512 << 20


class TrialState(StrEnum):
    """Where a trial stands. ``Stopped`` is a policy's doing, ``Canceled`` a user's.

    ``Interrupted`` trials were under way when their study was interrupted, ran out of time or lost its machine. They
    run again, with the same values, when the study is taken up.
    """

    RUNNING = "Running"
    COMPLETED = "Completed"
    STOPPED = "Stopped"
    FAILED = "Failed"
    CANCELED = "Canceled"
    INTERRUPTED = "Interrupted"

    @property
    def finished(self) -> bool:
        """Whether the trial won't run again."""
        return self not in (TrialState.RUNNING, TrialState.INTERRUPTED)


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One trial.

    Attributes:
        number: Counted from 0.
        run_id: Its run.
        values: What it was given, by flag.
        state: Where it stands.
        value: The objective: the metric's last or best value; None if there is none, or it is not finite.
        step: At which of the metric's values that was, counted from 1.
        stopped: What stopped it, if a policy did.
        reason: Why it failed, or was interrupted.
        started: When it was submitted, in seconds since the epoch.
        ended: When it ended.
    """

    number: int
    run_id: str
    values: dict[str, Value]
    state: TrialState = TrialState.RUNNING
    value: float | None = None
    step: int | None = None
    stopped: Stopped | None = None
    reason: str = ""
    started: float = 0.0
    ended: float | None = None


class StudyDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """What a study is; never changed. Stored as ``study.json``.

    Attributes:
        study: The study's id.
        created: When it was begun, in seconds since the epoch.
        backend: Where its trials run.
        options: The backend's options that a later command needs to reach it.
        driver: Who asks, submits and stops: ``client`` is this program, ``service`` the backend's service.
        job: What each trial runs, without its values.
        model_name: The best trial's model is registered under this name; None registers none.
        space: The search space.
        sampler: One of :data:`trainer.tune.sampling.SAMPLERS`.
        seed: Of every draw.
        trials: How many.
        parallel: How many at once.
        metric: The metric that counts.
        goal: ``max`` or ``min``.
        best: Which of its values is a trial's: ``last`` or ``any``, the best.
        stop: The stopping policy, or None.
        tries: Values that are tried before the sampler's.
        warm_start: Earlier studies whose trials the sampler knows.
        isolated: Whether every trial is a fresh process.
        max_minutes: When the service is to end it; None for the service's own cap. The client's cap is the command's.
        snapshot: The snapshot's digest.
    """

    study: str
    created: float
    backend: str
    options: dict[str, Any] = {}
    driver: str = CLIENT
    job: TrainingJob
    model_name: str | None
    space: tuple[Parameter, ...]
    sampler: str
    seed: int
    trials: int
    parallel: int
    metric: str
    goal: str
    best: str
    stop: Policy | None = None
    tries: tuple[dict[str, Value], ...] = ()
    warm_start: tuple[str, ...] = ()
    isolated: bool = False
    max_minutes: int | None = None
    snapshot: str

    def better(self, one: float, other: float) -> bool:
        """Whether one value of the metric is better than another."""
        return one > other if self.goal == "max" else one < other


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a study ended. Stored as ``outcome.json``; removed when the study is taken up again.

    Attributes:
        status: ``Completed``, ``Failed``, ``Interrupted`` or, where a service drove it, ``Canceled``.
        reason: Why it ended early, or an empty text.
        trials: How many trials it was to have.
        best: The best trial's number, or None.
        model: The model version registered from it, or None.
        seconds: How long the command that ended it took.
    """

    status: str
    reason: str = ""
    trials: int = 0
    best: int | None = None
    model: ModelRef | None = None
    seconds: float = 0.0


class ServiceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a study at the service that drives it. Stored as ``service.json`` before anything is sent.

    Attributes:
        run: The id under which the service has it.
        sent: When it was last sent, in seconds since the epoch.
        canceled: Whether a command has asked for its end.
        detail: The backend's own notes, from which any later process finds it; secrets never.
    """

    run: str
    sent: float = 0.0
    canceled: bool = False
    detail: dict[str, Any] = {}


class StudyFolder:
    """One study's folder. Reading needs no lock; only the driver writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.study_id = path.name
        self.snapshot = path / "snapshot"
        self.journal = path / "optuna.jsonl"

    @classmethod
    def new_id(cls) -> str:
        """An id that sorts by time (UTC) and can be typed: ``study-20261123-180501-k3xq2m``."""
        return f"study-{new_run_id()}"

    def definition(self) -> StudyDefinition:
        """What the study is.

        Raises:
            NotFoundError: There is no such study.
            ConfigError: ``study.json`` is damaged.
        """
        try:
            return recordfile.read(self.path / "study.json", _DEFINITION)
        except FileNotFoundError as error:
            raise _no_such_study(self.study_id) from error
        except DamagedRecordError as error:
            raise ConfigError(error.message, f"Restore it, or remove the folder {self.path}.") from error

    def trials(self) -> dict[int, Trial]:
        """Every trial by its number, as it stands on disk. A line that was being written is left out.

        Raises:
            DamagedRecordError: Something that can't be read is in the place of the file.
        """
        path = self.path / "trials.jsonl"
        try:
            data = recordfile.read_bytes(path, _LARGEST_TRIALS)
        except FileNotFoundError:
            return {}
        found: dict[int, Trial] = {}
        for line in data.split(b"\n"):
            try:
                trial = recordfile.decode(line, _TRIAL, path)
            except DamagedRecordError:
                continue  # a machine that lost power may leave half a line
            found[trial.number] = trial
        return dict(sorted(found.items()))

    def append(self, trial: Trial, *, durable: bool = True) -> None:
        """Write a trial's line, on the disk before this returns.

        Args:
            trial: The trial.
            durable: Wait for the disk.

        Raises:
            ConfigError: It can't be written.
        """
        path = self.path / "trials.jsonl"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                size = os.fstat(descriptor).st_size
                torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
                os.write(descriptor, (b"\n" if torn else b"") + msgspec.json.encode(trial) + b"\n")
                if durable:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ConfigError(
                f"{path} can't be written: {error.strerror}.", "Free some space, then --resume."
            ) from error

    def outcome(self) -> Outcome | None:
        """How it ended, or None."""
        try:
            return recordfile.read(self.path / "outcome.json", _OUTCOME)
        except (FileNotFoundError, DamagedRecordError):
            return None

    def write_outcome(self, outcome: Outcome | None) -> None:
        """Write how it ended; None for a study that goes on."""
        path = self.path / "outcome.json"
        if outcome is None:
            path.unlink(missing_ok=True)
        else:
            write_bytes(path, msgspec.json.format(msgspec.json.encode(outcome), indent=2) + b"\n")

    def service(self) -> ServiceRecord | None:
        """What is kept of it at the service that drives it; None before it is sent.

        Raises:
            DamagedRecordError: ``service.json`` is damaged.
        """
        try:
            return recordfile.read(self.path / "service.json", _SERVICE_RECORD)
        except FileNotFoundError:
            return None

    def write_service(self, record: ServiceRecord) -> None:
        """Write what is kept of it at the service."""
        write_bytes(self.path / "service.json", msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")

    @contextmanager
    def brought_up_to_date(self) -> Iterator[None]:
        """Be the one that brings a service's study up to date; wait for another that does."""
        with locked(self.path / _SERVICE_LOCK):
            yield

    @contextmanager
    def driven(self) -> Iterator[None]:
        """Be the one that drives the study.

        Raises:
            UsageError: Another process does.
        """
        try:
            with locked(self.path / _DRIVER_LOCK, blocking=False):
                yield
        except BlockingIOError:
            raise UsageError(
                f"Study {self.study_id} is being driven by another command.", f"See: trainer show {self.study_id}"
            ) from None

    @property
    def is_driven(self) -> bool:
        """Whether a living process drives it."""
        return is_locked(self.path / _DRIVER_LOCK)

    @property
    def status(self) -> str:
        """``Running`` while it is driven, else how it ended; ``Interrupted`` if its driver was killed.

        One that a service drives is ``Running`` until a command has seen its end.
        """
        if self.is_driven:
            return "Running"
        outcome = self.outcome()
        if outcome is not None:
            return outcome.status
        # Again: a driver that takes it up removes the outcome once it has the lock.
        goes_on = self.is_driven or self.definition().driver == SERVICE
        return "Running" if goes_on else (self.outcome() or Outcome(status="Interrupted")).status


def create_study(studies: Path, definition: StudyDefinition) -> StudyFolder:
    """Write a new study's definition into its folder, which may exist already with a staged snapshot.

    Raises:
        ConfigError: It can't be written.
    """
    folder = StudyFolder(studies / definition.study)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        encoded = msgspec.json.format(msgspec.json.encode(definition), indent=2) + b"\n"
        write_bytes(folder.path / "study.json", encoded)
    except OSError as error:
        raise ConfigError(
            f"Can't create a study in {studies}: {error.strerror}.",
            "Make it writable with space to spare, or set TRAINER_HOME to a directory that is.",
        ) from error
    return folder


def best_of(definition: StudyDefinition, trials: Mapping[int, Trial]) -> Trial | None:
    """Return the best of the completed trials, the earliest of equals; None if none has a value."""
    found: Trial | None = None
    for trial in trials.values():
        if trial.state is not TrialState.COMPLETED or trial.value is None:
            continue
        if found is None or found.value is None or definition.better(trial.value, found.value):
            found = trial
    return found


def why_no_best(trials: Mapping[int, Trial]) -> str:
    """Return why none of a study's trials is the best."""
    if any(trial.state is TrialState.COMPLETED for trial in trials.values()):
        return "none of those that completed has a finite value"
    return "none completed"


def study_ids(studies: Path) -> list[str]:
    """Every study's id, newest first. A folder whose making was cut off, before there was a definition, is none."""
    try:
        names = sorted(filter(STUDY_ID.fullmatch, os.listdir(studies)), reverse=True)  # noqa: PTH208  # as run_ids
    except FileNotFoundError:
        return []
    return [name for name in names if (studies / name / "study.json").exists()]


def find_study(studies: Path, reference: str) -> StudyFolder:
    """Return the study that ``reference`` names: an id, a beginning or end of one, or ``latest``.

    Raises:
        NotFoundError: No study fits.
        UsageError: More than one fits.
    """
    known = study_ids(studies)
    if reference == "latest" and known:
        return StudyFolder(studies / known[0])
    fitting = [each for each in known if reference and (each.startswith(reference) or each.endswith(reference))]
    if reference in known:
        fitting = [reference]
    if not fitting:
        raise _no_such_study(reference)
    if len(fitting) > 1:
        raise UsageError(
            f"{reference!r} fits {len(fitting)} studies: {', '.join(fitting[:3])}.", "Give more of the id."
        )
    return StudyFolder(studies / fitting[0])


_DEFINITION = msgspec.json.Decoder(StudyDefinition)
_TRIAL = msgspec.json.Decoder(Trial)
_OUTCOME = msgspec.json.Decoder(Outcome)
_SERVICE_RECORD = msgspec.json.Decoder(ServiceRecord)


def _no_such_study(study_id: str) -> NotFoundError:
    return NotFoundError(f"There is no study {study_id!r} here.", "See: trainer studies")
