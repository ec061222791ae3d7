"""``trainer run``, ``resume``, ``rerun`` and ``package``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainer.cli.context import backend_of, configured, open_run
from trainer.cli.jobs import add_how_it_runs, add_ranks
from trainer.cli.parsing import (
    Parser,
    add_backend,
    add_dataset,
    add_json,
    add_reference,
    add_training,
    tag,
)
from trainer.console.download import DownloadProgress
from trainer.console.follow import follow_to_the_end, found_again, print_detached, remember_flags
from trainer.console.output import note, warn
from trainer.console.package import print_package, print_plan
from trainer.errors import UsageError
from trainer.provision import ensure_chainer
from trainer.submission import JobRequest, Prepared, prepare, rerun, resume, submit, with_ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trainer.backend import Backend
    from trainer.handle import Run
    from trainer.home import Home

_DATASETS = (
    "auto, mnist, fashion-mnist, mnist-5k, or none; or your own: a folder of pictures per class, a CSV or npz file, a "
    "directory of IDX files (default: auto, which is mnist if available, else mnist-5k; for a --script, the one that "
    "it asks Chainer for)."
)
# How a run that is started is followed: the options that run, resume and rerun share.
_FOLLOWING = ("detach", "dry_run", "logs")


def add_run(parser: Parser) -> None:
    """Declare ``trainer run``."""
    _add_job(parser)
    _add_following(parser)
    parser.pass_on_rest()


def add_resume(parser: Parser) -> None:
    """Declare ``trainer resume``."""
    parser.epilog = (
        "The included script continues from its checkpoint. A script of your own finds the earlier run's outputs in "
        "_trainer_job/resume/ and is told so by its own arguments: "
        "trainer resume RUN -- --resume _trainer_job/resume/snapshot_iter_100"
    )
    add_reference(parser, "to continue")
    add_backend(parser, "Where it continues", default="where it was")
    add_ranks(parser, "as before")
    _add_following(parser)
    parser.pass_on_rest()


def add_rerun(parser: Parser) -> None:
    """Declare ``trainer rerun``."""
    add_reference(parser, "to do again")
    add_backend(parser, "Where it runs", default="where it was")
    add_ranks(parser, "as before")
    _add_following(parser)
    parser.pass_on_rest()


def add_package(parser: Parser) -> None:
    """Declare ``trainer package``."""
    add_backend(parser, "Whose limits are shown")
    _add_what(parser)
    add_json(parser)


def run_command(*, tags: list[tuple[str, str]] | None, no_register: bool, as_json: bool, **options: Any) -> int:
    """Submit a job and follow it."""
    _check_following(options)
    following = {name: options.pop(name) for name in _FOLLOWING}
    script_args = options.pop("script_args")
    home, config = configured(options)
    backend = backend_of(home, config)
    request = JobRequest.from_config(config, script_args=script_args, tags=dict(tags or ()), register=not no_register)
    dry_run = following["dry_run"]
    prepared = prepare(
        request, home, progress=DownloadProgress(), backend=None if dry_run else backend, offline=dry_run
    )
    return _start(prepared, backend, home, as_json=as_json, registry_flags=config.registry_flags(), **following)


def resume_command(**options: Any) -> int:
    """Continue a run from its checkpoint, as a new run."""
    return _start_again(resume, **options)


def rerun_command(**options: Any) -> int:
    """Do again what a run did, as a new run."""
    return _start_again(rerun, **options)


def _start_again(
    prepare_again: Callable[[Run, Sequence[str]], Prepared],
    *,
    reference: str,
    backend: str | None,
    script_args: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> int:
    _check_following(options)
    following = {name: options.pop(name) for name in _FOLLOWING}
    run = open_run(reference)
    info = run.folder.info()
    there = found_again(info, options) if backend in (None, info.backend) else {}
    home, config = configured({**options, **there, "backend": backend or info.backend})
    chosen = backend_of(home, config)
    counts = [config[name] if config.is_flag(name) else None for name in ("nodes", "processes_per_node")]
    prepared = with_ranks(prepare_again(run, script_args), *counts)
    if not following["dry_run"]:
        ensure_chainer(note)
    return _start(prepared, chosen, home, as_json=as_json, registry_flags=config.registry_flags(), **following)


def package_command(*, as_json: bool, **options: Any) -> None:
    """Show what would travel."""
    home, config = configured(options)
    prepared = prepare(JobRequest.from_config(config), home, progress=DownloadProgress(), offline=True)
    print_package(prepared, backend_of(home, config).limits, as_json=as_json)


def _start(
    prepared: Prepared,
    backend: Backend,
    home: Home,
    *,
    detach: bool,
    dry_run: bool,
    logs: bool | None,
    as_json: bool,
    registry_flags: list[str],
) -> int:
    if prepared.job.dataset_note:
        warn(prepared.job.dataset_note)
    advice = backend.check_ranks(prepared.job) if prepared.job.ranks > 1 else ()
    for text in (*prepared.warnings, *(() if dry_run else advice)):
        warn(text)
    if dry_run:
        print_plan(backend.plan(prepared.job, prepared.snapshot), as_json=as_json)
        return 0
    for text in prepared.snapshot.notes:
        note(text)
    run = submit(prepared, backend, home)
    remember_flags(run, registry_flags)
    if detach:
        print_detached(run, as_json=as_json)
        return 0
    return follow_to_the_end(run, logs=logs, as_json=as_json)


def _check_following(options: dict[str, Any]) -> None:
    if options["detach"] and options["logs"]:
        raise UsageError(
            "--logs shows nothing with --detach.", "Leave one out, and see the output with: trainer logs -f"
        )


def _add_what(parser: Parser) -> None:
    group = parser.add_argument_group("what travels")
    group.add_argument("--script", metavar="FILE", help="The training script (default: the one that is included).")
    group.add_argument("--source", metavar="DIR", help="The directory that travels with it (default: the script's).")
    add_dataset(group, _DATASETS)
    group.add_argument(
        "--network", metavar="FILE.py:NAME", help="The function that makes the network (default: the included MLP)."
    )


def _add_job(parser: Parser) -> None:
    add_backend(parser, "Where it runs")
    _add_what(parser)
    training = parser.add_argument_group("training, with the script that is included")
    add_training(training)
    training.add_argument("--max-minutes", metavar="N", help="Stop the run after N minutes (default: no cap).")
    add_how_it_runs(training)
    add_ranks(parser, "1")
    record = parser.add_argument_group("what is recorded")
    record.add_argument(
        "--experiment",
        metavar="NAME",
        help="Experiment that the run belongs to (default: chainer-mnist, or the name of your script or data).",
    )
    record.add_argument(
        "--model-name",
        metavar="NAME",
        help="Name to register the model under (default: chainer-dnn-mnist, or the name of your script or data).",
    )
    record.add_argument(
        "--collect",
        metavar="SIZE",
        help="Keep so much of what the script writes outside outputs/: a size, off, or all (default: 2GB).",
    )
    record.add_argument("--no-register", action="store_true", help="Don't register the model.")
    record.add_argument(
        "--tag", dest="tags", metavar="NAME=VALUE", type=tag, action="append", help="Tag to record; can be repeated."
    )


def _add_following(parser: Parser) -> None:
    how = parser.add_argument_group("how it is run")
    how.add_argument("--detach", action="store_true", help="Return as soon as the run has been started.")
    how.add_argument("--dry-run", action="store_true", help="Show what would be done; start nothing, use no network.")
    logs = how.add_mutually_exclusive_group()
    shown = "Show the script's output (default: only for a --script of your own)."
    logs.add_argument("--logs", action="store_true", default=None, help=shown)
    logs.add_argument("--no-logs", dest="logs", action="store_false", help="Hide the script's output.")
    add_json(how, "Print one JSON object at the end, and nothing else, on standard output.")
