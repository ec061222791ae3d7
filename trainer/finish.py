"""The end of a run, the same on every backend: outputs collected, model registered, record closed.

A backend whose job has ended says how, and :func:`finish` does the rest::

    finish(folder, self.store, Outcome.from_exit_code(folder, process.wait()))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from trainer import divergence
from trainer.artifacts import ArtifactStore
from trainer.errors import RefusedError, TrainerError
from trainer.failures import LINES, failure, reason
from trainer.records import ModelRef, RunFailure, RunInfo, RunStatus
from trainer.runfolder import RunFolder
from trainer.runtime.layout import MODEL_FILE

_LOCK = "finish"


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
    def from_exit_code(cls, folder: RunFolder, exit_code: int) -> Outcome:
        """Judge a job by its process: 0 is Completed, anything else Failed, with the reason that the log gives.

        Args:
            folder: The run, with its log up to date.
            exit_code: The process's exit status; negative for a signal.
        """
        if exit_code == 0:
            return cls(RunStatus.COMPLETED)
        return cls(RunStatus.FAILED, failure(exit_code, folder.log_tail(LINES)))

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
    collect: Callable[[], Sequence[str] | None] | None = None,
    retry_on: tuple[type[Exception], ...] = (),
) -> RunInfo:
    """Close the record of a run whose job has ended.

    In this order: a run that succeeded becomes Finalizing; ``collect`` is called; if the run succeeded, its job has a
    model name and there is an ``outputs/model.npz``, that file is registered; the record takes the outcome's status,
    with the registered model. A run that succeeded becomes Failed if its outputs can't be collected or its model
    can't be registered. It stays Completed, with a warning, if the script left no model or one that
    holds NaN, or if the backend has no registry.

    What must hold before: the job's processes have ended, so that nothing writes to the outputs any more; the log is
    in ``folder.log_path``; the outputs are in ``folder.outputs``, or ``collect`` brings them there.

    It may be called again after it was killed at any point, and by several processes at once: the model is registered
    once, and a run whose record is closed is left as it is. After a kill, a run that is found Finalizing has succeeded:
    call this with Completed.

    Args:
        folder: The run.
        store: Gives the model registry; a backend passes its own ``store`` method. Called only if there is a model to
            register. ``RefusedError`` from it means that the backend has no registry.
        outcome: How the job ended.
        collect: Brings the outputs into ``folder.outputs``, and returns what was lost, one sentence for each.
            Called whatever the outcome, and again after a kill.
        retry_on: Errors of ``collect`` and of the registration that may pass. They are raised and the record stays
            open, for a backend that calls this again later. Any other ``OSError`` or ``TrainerError`` ends the run.

    Returns:
        The run's record, terminal.

    Raises:
        OSError: The record can't be written. So are the errors of ``retry_on``.
        NotFoundError: The run's folder is gone.
    """
    with folder.locked(_LOCK):
        info = folder.info()
        if info.status.terminal:
            return info
        model: ModelRef | None = None
        warnings: list[str] = []
        if outcome.status is RunStatus.COMPLETED:
            with suppress(OSError):  # on a full disk; collecting may make room
                folder.update(status=RunStatus.FINALIZING)
        try:
            if collect is not None:
                warnings.extend(collect() or ())
        except retry_on:
            raise
        except (OSError, TrainerError) as error:
            outcome = _lost(folder, outcome, "outputs could not be kept", error)
        if outcome.status is RunStatus.COMPLETED:
            warnings.extend(divergence.in_metrics(folder.metrics()))
            try:
                model, more = _register(folder, store)
                warnings.extend(more)
            except retry_on:
                raise
            except (OSError, TrainerError) as error:
                outcome = _lost(folder, outcome, "model could not be registered", error)
        return folder.update(
            lambda now: msgspec.structs.replace(
                now,
                status=outcome.status,
                failure=outcome.failure,
                ended=outcome.ended,
                model=model,
                warnings=(*now.warnings, *warnings),
            )
        )


def _register(folder: RunFolder, store: Callable[[], ArtifactStore]) -> tuple[ModelRef | None, tuple[str, ...]]:
    """Register the run's model, if there is one.

    Returns:
        The registered version or None, and warnings.
    """
    name = folder.job().model_name
    if name is None:
        return None, ()
    if not (folder.outputs / MODEL_FILE).is_file():
        return None, (f"The script left no outputs/{MODEL_FILE}, so no model was registered.",)
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


def _lost(folder: RunFolder, outcome: Outcome, what: str, error: OSError | TrainerError) -> Outcome:
    """The failure of a run that lost something at its end; the job's own failure is the better reason."""
    but = "The job succeeded, but its" if outcome.status is RunStatus.COMPLETED else "The run's"
    lost = RunFailure(message=f"{but} {what}: {reason(error)}", log_tail=folder.log_tail())
    return Outcome(RunStatus.FAILED, outcome.failure or lost, outcome.ended)
