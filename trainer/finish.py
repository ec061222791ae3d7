"""The end of a run, the same on every backend: outputs collected, model registered, record closed.

A backend whose job has ended says how, and :func:`finish` does the rest::

    finish(folder, self.store, Outcome.from_exit_code(folder, process.wait()))
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from trainer import divergence
from trainer.artifacts import ArtifactStore, environment_problems
from trainer.errors import RefusedError
from trainer.failures import FULL, LINES, failure, reason
from trainer.recordfile import kind_of
from trainer.records import ModelRef, RunFailure, RunInfo, RunStatus
from trainer.runfolder import RunFolder
from trainer.runtime.layout import MODEL_FILE

_LOCK = "finish"
_MOST_WARNINGS = 50
# Two names of 255 bytes that are no UTF-8 are written with four characters per byte.
_LONGEST_WARNING = 4000
# Bytes. A buffered write of Python's has 8,192.
_LEAST_ROOM = 64 << 10


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        status: Completed, Failed or Canceled.
        failure: Why it failed, or None.
        ended: When it ended, in seconds since the epoch; None for the time at which the record is closed.

    Raises:
        ValueError: The status is none of the three.
    """

    status: RunStatus
    failure: RunFailure | None = None
    ended: float | None = None

    def __post_init__(self) -> None:
        if not self.status.terminal:
            raise ValueError(f"a job can't end {self.status}")

    @classmethod
    def from_exit_code(
        cls,
        folder: RunFolder,
        exit_code: int,
        log: Sequence[str] | None = None,
        whose: str = "",
        *,
        out_of_memory: bool = False,
    ) -> Outcome:
        """Judge a job by its process: 0 is Completed, anything else Failed, with the reason that the log gives.

        Args:
            folder: The run, with its log up to date.
            exit_code: The process's exit status; negative for a signal.
            log: The last lines of the log that says why, where it is not the run's.
            whose: Put before the reason: ``rank 1: ``.
            out_of_memory: Whether the system is known to have killed a process for want of memory meanwhile.
        """
        if exit_code == 0:
            return cls(RunStatus.COMPLETED)
        lines = folder.log_tail(LINES) if log is None else log[-LINES:]
        found = failure(exit_code, lines, out_of_memory=out_of_memory)
        found = msgspec.structs.replace(found, message=f"{whose}{found.message}")
        if _disk_is_full(folder.path) and FULL not in found.message:
            # The log ends where the disk was full, most often before the script's own words about it.
            found = msgspec.structs.replace(found, message=f"{found.message.rstrip('.')}: {FULL}.")
        return cls(RunStatus.FAILED, found)

    @classmethod
    def over_cap(cls, folder: RunFolder, ended: float | None = None) -> Outcome:
        """Describe a job that was stopped because it reached its ``max_minutes``.

        Args:
            folder: The run, with its log up to date.
            ended: When it was stopped, in seconds since the epoch; None for now.
        """
        message = f"It was stopped after {folder.job().max_minutes} min, the cap that it was submitted with."
        return cls(RunStatus.FAILED, RunFailure(message=message, log_tail=folder.log_tail()), ended)


def finish(
    folder: RunFolder,
    store: Callable[[], ArtifactStore],
    outcome: Outcome,
    *,
    collect: Callable[[], object] | None = None,
    retry_on: tuple[type[Exception], ...] = (),
) -> RunInfo:
    """Close the record of a run whose job has ended.

    In this order: a run that succeeded becomes Finalizing; ``collect`` is called; if the run succeeded, its job has a
    model name and there is an ``outputs/model.npz``, that file is registered; the record takes the outcome's status,
    with the registered model. A run that succeeded becomes Failed if its outputs can't be collected or its model
    can't be registered. It stays Completed, with a warning, if the script left no model or one that holds NaN, if
    single outputs were lost, if records that the script wrote are damaged, or if the backend has no registry.

    What must hold before: the job's processes have ended, so that nothing writes to the outputs any more; the log is
    in ``folder.log_path``; the outputs are in ``folder.outputs``, or ``collect`` brings them there.

    It may be called again after it was killed at any point, and by several processes at once: the model is registered
    once, and a run whose record is closed is left as it is. After a kill, a run that is found Finalizing has succeeded:
    call this with Completed. One that is found with a failure in its record has failed for that reason.

    Args:
        folder: The run.
        store: Gives the model registry; a backend passes its own ``store`` method. Called only if there is a model to
            register. ``RefusedError`` from it means that the backend has no registry.
        outcome: How the job ended.
        collect: Brings the outputs into ``folder.outputs``. A list that it returns says what was lost of them, one
            sentence for each. Called whatever the outcome, and again after a kill.
        retry_on: Errors of ``collect`` and of the registration that may pass. They are raised and the record stays
            open, for a backend that calls this again later. Any other exception ends the run.

    Returns:
        The run's record, terminal.

    Raises:
        OSError: The record can't be written. So are the errors of ``retry_on``.
        NotFoundError: The run's folder is gone.
        DamagedRecordError: The record is damaged, and this ``folder`` has not read it before.
    """
    with folder.locked(_LOCK):
        info = folder.update()
        if info.status.terminal:
            return info
        model: ModelRef | None = None
        warnings: list[str] = []
        with suppress(OSError):  # on a full disk; collecting may make room
            if outcome.status is RunStatus.COMPLETED:
                folder.update(status=RunStatus.FINALIZING)
            elif outcome.failure is not None:
                folder.update(failure=outcome.failure)
        try:
            if collect is not None:
                lost = collect()
                if isinstance(lost, list | tuple):
                    warnings.extend(map(str, lost))
        except retry_on:
            raise
        except Exception as error:  # outputs are anyone's: whatever is met there, the run must end
            outcome = _lost(folder, outcome, "outputs could not be kept", error)
        if outcome.status is RunStatus.COMPLETED:
            warnings.extend(divergence.in_metrics(folder.metrics()))
            try:
                model, more = _register(folder, store)
                warnings.extend(more)
            except retry_on:
                raise
            except Exception as error:
                outcome = _lost(folder, outcome, "model could not be registered", error)
        warnings.extend(_damaged_records(folder))
        return folder.update(
            lambda now: msgspec.structs.replace(
                now,
                status=outcome.status,
                failure=outcome.failure,
                ended=outcome.ended,
                model=model,
                warnings=_bounded([*now.warnings, *warnings]),
            )
        )


def _damaged_records(folder: RunFolder) -> list[str]:
    """What of the records that the script wrote can't be read, one sentence for each."""
    _, problems = folder.read_metrics()
    return [*problems, *environment_problems(folder)]


def _bounded(warnings: list[str]) -> tuple[str, ...]:
    different = list(dict.fromkeys(text[:_LONGEST_WARNING] for text in warnings))
    if len(different) > _MOST_WARNINGS:
        different[_MOST_WARNINGS:] = [f"{len(different) - _MOST_WARNINGS:,} more warnings are not kept."]
    return tuple(different)


def _register(folder: RunFolder, store: Callable[[], ArtifactStore]) -> tuple[ModelRef | None, tuple[str, ...]]:
    """Register the run's model, if there is one.

    Returns:
        The registered version or None, and warnings.
    """
    name = folder.job().model_name
    if name is None:
        return None, ()
    what = _what_is(folder.outputs / MODEL_FILE)
    if what != "a file":
        left = f"left {what} as" if what else "left no"
        return None, (f"The script {left} outputs/{MODEL_FILE}, so no model was registered.",)
    spoiled = divergence.in_model(folder.outputs / MODEL_FILE)
    if spoiled:
        return None, (spoiled,)
    try:
        registry = store()
    except RefusedError:
        backend = folder.info().backend
        return None, (f"outputs/{MODEL_FILE} was not registered: the {backend} backend has no model registry.",)
    model = registry.register(folder, name)
    return ModelRef(name=model.name, version=model.version, sha256=model.sha256), ()


def _disk_is_full(path: Path) -> bool:
    try:
        status = os.statvfs(path)
    except OSError:
        return False
    free = status.f_bfree if os.geteuid() == 0 else status.f_bavail
    return status.f_blocks > 0 and free * status.f_frsize < _LEAST_ROOM


def _what_is(path: Path) -> str:
    """Say what is at a path, links followed: ``a file``, ``a directory``, ...; empty for nothing."""
    try:
        return kind_of(path.stat().st_mode)
    except OSError:
        return "a link that leads nowhere" if os.path.lexists(path) else ""


def _lost(folder: RunFolder, outcome: Outcome, what: str, error: Exception) -> Outcome:
    """The failure of a run that lost something at its end; the job's own failure is the better reason."""
    but = "The job succeeded, but its" if outcome.status is RunStatus.COMPLETED else "The run's"
    lost = RunFailure(message=f"{but} {what}: {reason(error)}", log_tail=folder.log_tail())
    return Outcome(RunStatus.FAILED, outcome.failure or lost, outcome.ended)
