"""``trainer tune``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from trainer.cli.context import backend_of, configured
from trainer.cli.jobs import add_how_it_runs, add_ranks
from trainer.cli.parsing import Parser, add_backend, add_dataset, add_json, complete_with, tag
from trainer.cli.studies import follow_study, remember
from trainer.console.download import DownloadProgress
from trainer.console.output import warn
from trainer.console.study import make_view, print_plan
from trainer.errors import UsageError
from trainer.home import find_home
from trainer.submission import JobRequest
from trainer.tune import request
from trainer.tune.client import ClientDriver
from trainer.tune.service import ServiceDriver, refuse_to_resume
from trainer.tune.study import SERVICE, StudyFolder, find_study

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.home import Home

_SPACE = (
    "Values of a flag of the script; can be repeated. A,B,C is a choice; log:LOW..HIGH, uniform:LOW..HIGH and "
    "int:LOW..HIGH[:STEP] are ranges; trainer docs tuning has the other kinds."
)
# What each trial runs, which a study keeps.
_JOB = (
    *("script", "source", "dataset", "experiment", "model_name"),
    *("max_restarts", "checkpoints", "kernels", "nodes", "processes_per_node"),
)


def add_tune(parser: Parser) -> None:
    """Declare ``trainer tune``."""
    what = parser.add_argument_group("what is searched")
    what.add_argument("--space", metavar="NAME=VALUES", action="append", help=_SPACE)
    what.add_argument("--try", dest="tries", metavar="NAME=VALUE,...", action="append", help="Try these values first.")
    settings = {option.name: option for option in request.SETTINGS}
    for name in ("trials", "sampler", "seed", "metric", "goal", "best"):
        _add_setting(what, settings[name])
    what.add_argument("--warm-start", metavar="STUDY", action="append", help="Learn from an earlier study's trials.")
    how = parser.add_argument_group("how it is run")
    for name in ("parallel", "stop", "max_minutes", "driver", "isolated"):
        _add_setting(how, settings[name])
    how.add_argument(
        "--resume", metavar="STUDY", help="Go on with a study that was interrupted, or give it more trials."
    )
    how.add_argument("--dry-run", action="store_true", help="Show the first trials; start nothing, use no network.")
    add_json(how, "Print one JSON object at the end, and nothing else, on standard output.")
    job = parser.add_argument_group("what each trial runs")
    job.add_argument("--script", metavar="FILE", help="The training script (default: the one that is included).")
    job.add_argument("--source", metavar="DIR", help="The directory that travels with it (default: the script's).")
    add_dataset(job, "As for trainer run.")
    add_how_it_runs(job)
    add_ranks(parser, "1")
    record = parser.add_argument_group("what is recorded")
    record.add_argument("--experiment", metavar="NAME", help="Experiment of the runs (default: as for trainer run).")
    record.add_argument("--model-name", metavar="NAME", help="Name for the best model (default: as for trainer run).")
    record.add_argument("--no-register", action="store_true", help="Don't register the best trial's model.")
    record.add_argument("--tag", dest="tags", metavar="NAME=VALUE", type=tag, action="append", help="Tag to record.")
    add_backend(parser, "Where the trials run")
    parser.pass_on_rest()


def tune_command(
    *,
    space: list[str] | None,
    tries: list[str] | None,
    warm_start: list[str] | None,
    resume: str | None,
    dry_run: bool,
    as_json: bool,
    no_register: bool,
    tags: list[tuple[str, str]] | None,
    script_args: tuple[str, ...],
    **options: Any,
) -> int:
    """Run a study, or go on with one."""
    given = {option.name: options.pop(option.name) for option in request.SETTINGS}
    home = find_home()
    if resume is not None:
        fixed = {**given, **dict.fromkeys(request.RESUMABLE), "no_register": no_register or None}
        job = {name: options[name] for name in _JOB}
        other = {"space": space, "try": tries, "warm_start": warm_start, "tag": tags, **fixed, **job}
        found = [f"--{name.replace('_', '-')}" for name, value in other.items() if value is not None]
        found += ["The script's arguments"] if script_args else []
        if found:
            raise UsageError(
                f"{found[0]}: what a study is doesn't change with --resume.",
                "Of a study that is resumed, --trials, --parallel and --max-minutes can be given.",
            )
        if dry_run:
            raise UsageError("--dry-run shows a new study, not one that is resumed.", "Leave out one of the two.")
        return _resume(home, resume, given, options, as_json=as_json)
    values, table_ = request.settings(home, given, os.environ)
    home, config = configured(options)
    backend = backend_of(home, config)
    words = (*(table_.get("try") or ()), *(tries or ()))
    definition, prepared = request.plan(
        JobRequest.from_config(config, script_args=script_args, tags=dict(tags or ())),
        values,
        request.space_of(space or (), table_.get("space")),
        words,
        warm_start or (),
        config=config,
        backend=backend,
        home=home,
        progress=DownloadProgress(),
        register=not no_register,
        offline=dry_run,
    )
    if prepared.job.dataset_note:
        warn(prepared.job.dataset_note)
    for text in backend.check_ranks(prepared.job) if prepared.job.ranks > 1 and not dry_run else ():
        warn(text)
    if dry_run:
        print_plan(definition, as_json=as_json)
        return 0
    study = request.create(definition, prepared, home)
    return _drive(study, home, config, values, as_json=as_json)


def _resume(home: Home, reference: str, given: dict[str, Any], options: dict[str, Any], *, as_json: bool) -> int:
    study = find_study(home.studies, reference)
    definition = study.definition()
    options = {name: value for name, value in options.items() if value is not None}
    if options.get("backend", definition.backend) != definition.backend:
        raise UsageError(f"Study {study.study_id} is on {definition.backend}.", "Leave out --backend.")
    _, config = configured({**definition.options, **options, "backend": definition.backend})
    values = {
        option.name: option.parse(text) if isinstance(text, str) else text
        for option in request.SETTINGS
        if option.name in request.RESUMABLE
        for text in [given[option.name]]
    }
    if definition.driver == SERVICE:
        refuse_to_resume(study.study_id, values)
    return _drive(study, home, config, values, as_json=as_json)


def _drive(study: StudyFolder, home: Home, config: Config, values: dict[str, Any], *, as_json: bool) -> int:
    minutes, backend, submitted = values.get("max_minutes"), backend_of(home, config), remember(config)
    view = make_view(study, trials=values.get("trials"), parallel=values.get("parallel"))
    driver: ClientDriver | ServiceDriver
    if study.definition().driver == SERVICE:
        driver = ServiceDriver(study, backend, home, view, submitted=submitted)
    else:
        driver = ClientDriver(
            study,
            backend,
            home,
            view,
            trials=values.get("trials"),
            parallel=values.get("parallel"),
            seconds=None if minutes is None else minutes * 60,
            submitted=submitted,
        )
    return follow_study(driver, view, as_json=as_json)


def _add_setting(group: Any, option: Any) -> None:  # noqa: ANN401  # argparse's group
    if option.is_switch:
        group.add_argument(option.flag, action="store_true", default=None, help=option.help)
        return
    choices = option.choices
    shown = option.default_text or option.default
    text = f"{option.help.removesuffix('.')}{': ' + ', '.join(choices) if choices else ''} (default: {shown})."
    action = group.add_argument(option.flag, metavar=option.metavar or "NAME", help=text.replace("%", "%%"))
    if choices:
        complete_with(action, lambda **_: list(choices))
