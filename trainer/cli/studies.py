"""``trainer studies``, and what ``show``, ``attach``, ``cancel`` and ``register`` do with a study."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from trainer.cleanup import delete_study, own_size, runs_of
from trainer.cli.context import backend_of, configured
from trainer.cli.parsing import Parser, add_json
from trainer.console.output import moment, note, number, print_error, print_json, size, table
from trainer.console.study import make_view, print_study, study_object, study_size
from trainer.console.summary import FLAGS, relative
from trainer.errors import ConfigError, MissingExtraError, NotFoundError, RefusedError, TrainerError, UsageError
from trainer.failures import reason
from trainer.home import find_home
from trainer.request import JobRequest
from trainer.runfolder import RunFolder
from trainer.tune import plots
from trainer.tune.driver import NoView
from trainer.tune.optuna_study import importances
from trainer.tune.registration import register
from trainer.tune.service import ServiceDriver
from trainer.tune.study import SERVICE, StudyFolder, best_of, find_study, study_ids

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.home import Home
    from trainer.records import ModelRef
    from trainer.tune.client import ClientDriver
    from trainer.tune.driver import View

# How long ``cancel`` waits for a study's end, in looks of a fifth of a second.
_LOOKS = 50


def add_studies(parser: Parser) -> None:
    """Declare ``trainer studies``."""
    add_json(parser)


def studies_command(*, as_json: bool) -> None:
    """List the studies, newest first."""
    home = find_home()
    studies = []
    for name in study_ids(home.studies):
        study = find_study(home.studies, name)
        try:
            study_object(study, home, trials=False)
        except ConfigError as error:  # one that is damaged hides no other
            note(error.message)
        else:
            studies.append(study)
    if as_json:
        print_json([study_object(study, home, trials=False) for study in studies])
        return
    if not studies:
        note(f"No studies in {home.studies}. Start one: trainer tune --space lr=log:1e-3..0.3 --trials 12")
        return
    rows = []
    for study in studies:
        definition, trials = study.definition(), study.trials()
        done, best = sum(trial.state.finished for trial in trials.values()), best_of(definition, trials)
        outcome = study.outcome()
        model = outcome.model if outcome else None
        rows.append(
            (
                study.study_id,
                definition.backend,
                study.status,
                moment(definition.created),
                f"{done}/{study_size(definition, trials, outcome)}",
                definition.metric,
                "" if best is None else number(best.value),
                f"{model.name}:{model.version}" if model else "",
            )
        )
    head = ("STUDY", "BACKEND", "STATUS", "CREATED", "TRIALS", "METRIC", "BEST", "MODEL")
    table(head, rows, right=("TRIALS", "BEST"), drop=("CREATED", "BACKEND", "METRIC", "MODEL"), whole=("STUDY",))


def show_study(reference: str, *, plot: Path | None, as_json: bool) -> None:
    """Show everything that is known of a study."""
    home = find_home()
    study = find_study(home.studies, reference)
    _refresh(study, home)
    if plot is not None:
        definition, trials = study.definition(), study.trials()
        found: dict[str, float] = {}
        try:
            found = importances(definition, trials.values())
        except MissingExtraError as error:
            note(f"Without importances: {error.message}")
        plots.plot(definition, trials, plot, found)
        note(f"History and parallel coordinates: {relative(plot)}")
    if as_json:
        print_json(study_object(study, home))
    else:
        print_study(study, home, detailed=True)


def follow_study(driver: ClientDriver | ServiceDriver, view: View, *, as_json: bool) -> int:
    """Drive or follow a study to its end, and print what it came to."""
    study, home = driver.study, driver.home
    try:
        driver.run()
    except TrainerError as error:
        view.close()
        if not as_json:
            raise
        print_error(error.message, error.hint)
        print_json(study_object(study, home))
        return error.exit_code
    finally:
        view.close()
    if as_json:
        print_json(study_object(study, home))
    else:
        print_study(study, home)
    return 0


def remember(config: Config) -> Callable[[RunFolder], None]:
    """Return what keeps, in each trial's record, the flags with which a later command finds its registry."""
    flags = config.registry_flags()

    def keep(folder: RunFolder) -> None:
        if flags:
            folder.update(lambda info: msgspec.structs.replace(info, detail={**info.detail, FLAGS: flags}))

    return keep


def attach_study(reference: str, *, as_json: bool) -> int:
    """Follow a study that a service drives to its end.

    Raises:
        UsageError: This program drives it.
    """
    home = find_home()
    study = find_study(home.studies, reference)
    if study.definition().driver != SERVICE:
        go_on = f"Go on with it: trainer tune --resume {study.study_id}"
        raise UsageError(
            f"Study {study.study_id} is driven by the command that began it, not by a service.",
            f"See: trainer show {study.study_id}" if study.is_driven else go_on,
        )
    view = make_view(study)
    return follow_study(_service_driver(study, home, view), view, as_json=as_json)


def cancel_study(reference: str, *, as_json: bool) -> None:
    """Stop a study. One that has ended is left as it is.

    Raises:
        UsageError: Another command drives it.
    """
    home = find_home()
    study = find_study(home.studies, reference)
    definition, before = study.definition(), study.outcome()
    if study.is_driven:
        raise UsageError(
            f"Study {study.study_id} is driven by another command, which would start more trials.",
            "End that command with Ctrl-C.",
        )
    said = f"Study {study.study_id} has already ended ({study.status})."
    if definition.driver == SERVICE and before is None:
        driver = _service_driver(study, home, NoView(note))
        driver.cancel()
        for _ in range(_LOOKS):
            if driver.step() is not None:
                break
            time.sleep(0.2)
        said = f"Study {study.study_id}: {'stopping' if study.outcome() is None else study.status}."
    elif definition.driver != SERVICE:
        left = _cancel_trials(study, home)
        said = f"Study {study.study_id}: {left} trials canceled." if left else said
    if as_json:
        print_json(study_object(study, home, trials=False))
    else:
        note(said)


def _cancel_trials(study: StudyFolder, home: Home) -> int:
    """Cancel the trials that go on though the command that began them has ended."""
    backend = backend_of(home, _config_of(study))
    left = 0
    for trial in study.trials().values():
        folder = RunFolder(home.runs / trial.run_id)
        if not trial.state.finished and folder.path.is_dir() and not backend.refresh(folder).status.terminal:
            backend.cancel(folder)
            left += 1
    return left


def register_study(reference: str, *, model_name: str | None) -> tuple[ModelRef, str]:
    """Register the model of a study's best trial; again does no harm.

    Returns:
        The version, and the run that it is of.

    Raises:
        UsageError: The study goes on.
        NotFoundError: None of its trials is complete.
    """
    home = find_home()
    study = find_study(home.studies, reference)
    _refresh(study, home)
    definition, outcome = study.definition(), study.outcome()
    if outcome is None and study.status == "Running":
        raise UsageError(
            f"Study {study.study_id} is under way; its best trial is registered at its end.",
            "Or register one of its runs now: trainer register RUN",
        )
    best = best_of(definition, study.trials())
    if best is None:
        raise NotFoundError(
            f"No trial of study {study.study_id} is complete and has a value.", f"See: trainer show {study.study_id}"
        )
    name = model_name or definition.model_name or JobRequest().named(Path(definition.job.script)).model_name
    config = _config_of(study)
    model = register(RunFolder(home.runs / best.run_id), backend_of(home, config), str(name))
    if outcome is not None and outcome.model is None:
        study.write_outcome(msgspec.structs.replace(outcome, model=model))
    return model, best.run_id


def delete_a_study(reference: str, *, force: bool, as_json: bool) -> None:
    """Remove a study and the runs of its trials. What a service has of it stays there.

    Raises:
        NotFoundError: There is no such study.
        UsageError: It goes on, or more than one fits.
        RefusedError: A run's model is registered, and ``force`` is not given.
    """
    home = find_home()
    study = find_study(home.studies, reference)
    _refresh(study, home)
    if study.status == "Running":
        stop = f"Stop it first: trainer cancel {study.study_id}"
        raise UsageError(
            f"Study {study.study_id} is Running.", "End its command with Ctrl-C." if study.is_driven else stop
        )
    runs = runs_of(home, study)
    models = [model for run in runs if (model := run.info().model)]
    if models and not force:
        more = f" and {len(models) - 1} more" if len(models) > 1 else ""
        raise RefusedError(
            f"Study {study.study_id} made the registered model {models[0].name}:{models[0].version}{more}.",
            "The model stays in its registry, but not the trials' logs and curves:"
            f" trainer delete {study.study_id} --force",
        )
    held = sum(own_size(path) for path in (study.path, *(run.path for run in runs)))
    held += delete_study(home, study)
    if as_json:
        print_json({"study": study.study_id, "runs": [run.run_id for run in runs], "deleted": True})
    else:
        note(f"Deleted study {study.study_id} and its {len(runs):,} run{'s' * (len(runs) != 1)}, {size(held)}.")


def _refresh(study: StudyFolder, home: Home) -> None:
    """Bring a study up to date that a service drives; one that can't be is shown as it was last seen."""
    if study.definition().driver != SERVICE or study.outcome() is not None:
        return
    try:
        _service_driver(study, home, NoView(note)).step()
    except (TrainerError, OSError) as error:
        note(f"Showing the last known state: {reason(error)}")


def _service_driver(study: StudyFolder, home: Home, view: View) -> ServiceDriver:
    config = _config_of(study)
    return ServiceDriver(study, backend_of(home, config), home, view, submitted=remember(config))


def _config_of(study: StudyFolder) -> Config:
    definition = study.definition()
    return configured({**definition.options, "backend": definition.backend})[1]
