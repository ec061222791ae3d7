"""From a trial of a study to a run: its job, its folder, its submission, and what its metric came to."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import msgspec

from trainer.backend import Backend
from trainer.errors import ConfigError, TrainerError
from trainer.home import Home
from trainer.job import TrainingJob
from trainer.records import Metric, RunFailure, RunInfo, RunStatus
from trainer.runfolder import SUBMISSION_LOCK, RunFolder
from trainer.runtime.atomic import write_bytes
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


def make_run(home: Home, study: StudyFolder, definition: StudyDefinition, trial: Trial) -> RunFolder:
    """Make the folder of a trial's run, all at once, unless it is there.

    Its ``snapshot`` is a link to the study's.

    Raises:
        ConfigError: It can't be written.
    """
    folder = RunFolder(home.runs / trial.run_id)
    if folder.path.is_dir():
        return folder
    job = trial_job(definition, trial.number, trial.values)
    info = RunInfo(
        run_id=trial.run_id,
        backend=definition.backend,
        status=RunStatus.NOT_STARTED,
        experiment=job.experiment,
        snapshot=definition.snapshot,
        dataset=job.dataset,
        created=time.time(),
        study=definition.study,
        trial=trial.number,
    )
    try:
        home.runs.mkdir(parents=True, exist_ok=True)
        making = RunFolder(Path(tempfile.mkdtemp(prefix=".trial-", dir=home.runs)))
        try:
            for directory in (making.logs, making.outputs):
                directory.mkdir()
            making.snapshot.symlink_to(os.path.relpath(study.snapshot, folder.path))
            # Made again if the machine dies: the trial's line in the study is what is on the disk.
            write_bytes(making.path / "job.json", _encode(job), durable=False)
            write_bytes(making.path / "status.json", _encode(info), durable=False)
            making.path.chmod(0o755)
            making.path.rename(folder.path)
        finally:
            shutil.rmtree(making.path, ignore_errors=True)
    except OSError as error:
        raise ConfigError(
            f"Can't create a run folder in {home.runs}: {error.strerror}.",
            f"Free some space, then: trainer tune --resume {study.study_id}",
        ) from error
    return folder


def submit(folder: RunFolder, backend: Backend) -> None:
    """Hand a trial's run to its backend, if nobody has.

    Raises:
        TrainerError: The backend doesn't take it.
    """
    with folder.locked(SUBMISSION_LOCK):
        if folder.info().status is RunStatus.NOT_STARTED:
            backend.submit(folder)


def submission_failure(error: TrainerError) -> RunFailure:
    """Describe a submission that failed."""
    return RunFailure(message=error.message)


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


def _encode(record: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"
