"""From a trial of a study to a run: its job, its folder, its submission, and what its metric came to."""

from __future__ import annotations

from typing import Any

import msgspec

from trainer.backend import Backend
from trainer.errors import TrainerError
from trainer.home import Home
from trainer.job import TrainingJob
from trainer.records import Metric, RunFailure, RunStatus
from trainer.runfolder import SUBMISSION_LOCK, RunFolder
from trainer.tune.space import Value, arguments, plain
from trainer.tune.study import StudyDefinition, StudyFolder, Trial

STUDY_TAG = "study"
TRIAL_TAG = "trial"


def trial_job(definition: StudyDefinition, number: int, values: dict[str, Value]) -> TrainingJob:
    """Return what a trial runs: the study's job with the trial's values after its own arguments.

    Parsers of command lines take the last of two values. The tags say study, trial and values on the run, and on the
    model version that is registered from it.
    """
    tags = {STUDY_TAG: definition.study, TRIAL_TAG: str(number), **{name: plain(v) for name, v in values.items()}}
    job = definition.job
    return msgspec.structs.replace(
        job,
        arguments=(*job.arguments, *arguments(values)),
        tags={**job.tags, **tags},
        study=definition.study,
        trial=number,
        model_name=None,  # the driver registers the best
    )


def start(home: Home, study: StudyFolder, definition: StudyDefinition, trial: Trial, backend: Backend) -> RunFolder:
    """Make a trial's run, unless it is there, and hand it to its backend, unless that has it.

    The run's ``snapshot`` is a link to the study's.

    Raises:
        ConfigError: The run's folder can't be written.
        TrainerError: The backend doesn't take it. The run's record says why, with the status Failed.
    """
    folder = RunFolder(home.runs / trial.run_id)
    if folder.path.is_dir():
        with folder.locked(SUBMISSION_LOCK):
            if folder.info().status is RunStatus.NOT_STARTED:
                _hand_over(folder, backend)
        return folder
    job = trial_job(definition, trial.number, trial.values)
    with RunFolder.submitting(
        home.runs,
        job,
        backend=definition.backend,
        snapshot=definition.snapshot,
        run_id=trial.run_id,
        shared=study.snapshot,
    ) as folder:
        _hand_over(folder, backend)
    return folder


def adopt(
    home: Home, study: StudyFolder, definition: StudyDefinition, trial: Trial, detail: dict[str, Any]
) -> RunFolder:
    """Make the folder of a trial's run that a service has started, unless it is there.

    Args:
        home: Where runs are kept.
        study: The study.
        definition: What it is.
        trial: The trial.
        detail: The backend's notes, by which it finds the run.

    Raises:
        ConfigError: The run's folder can't be written.
    """
    folder = RunFolder(home.runs / trial.run_id)
    if folder.path.is_dir():
        return folder
    job = trial_job(definition, trial.number, trial.values)
    with RunFolder.submitting(
        home.runs,
        job,
        backend=definition.backend,
        snapshot=definition.snapshot,
        run_id=trial.run_id,
        shared=study.snapshot,
        detail=detail,
    ) as folder:
        return folder


def _hand_over(folder: RunFolder, backend: Backend) -> None:
    try:
        backend.submit(folder)
    except TrainerError as error:
        folder.update(status=RunStatus.FAILED, failure=RunFailure(message=error.message))
        raise


def curve_of(metrics: list[Metric], name: str) -> list[float | None]:
    """Return the values of one metric in the order in which they were logged; None for NaN."""
    return [metric.value for metric in metrics if metric.name == name]


def objective(definition: StudyDefinition, curve: list[float | None]) -> tuple[float | None, int | None]:
    """Return a trial's value and at which of the metric's values it was, counted from 1.

    With ``last``, a metric that ended as NaN has no value; with ``any``, values that are not finite don't count.
    """
    if definition.best == "last":
        return (curve[-1] if curve else None), (len(curve) or None)
    best: tuple[float | None, int | None] = (None, None)
    for step, value in enumerate(curve, 1):
        if value is not None and (best[0] is None or definition.better(value, best[0])):
            best = (value, step)
    return best
