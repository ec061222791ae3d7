"""``trainer runs``, ``show``, ``logs``, ``attach`` and ``cancel``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from trainer import modeluse
from trainer.cli.context import local_only, open_run
from trainer.cli.parsing import Parser, add_json, add_reference
from trainer.console.follow import follow_to_the_end
from trainer.console.output import duration, moment, note, print_json, print_log, say, table, warn
from trainer.console.summary import as_object, curves_of, kept_path, print_summary, relative
from trainer.errors import NotFoundError, UsageError
from trainer.home import find_home
from trainer.host import elsewhere
from trainer.listing import list_infos
from trainer.records import RunStatus

if TYPE_CHECKING:
    from trainer.home import Home
    from trainer.records import RunInfo
    from trainer.tune.lines import StudyLine


# As many as fit a terminal; a program reads all.
_SHOWN = 20


def add_runs(parser: Parser) -> None:
    """Declare ``trainer runs``."""
    parser.add_argument(
        "--limit", metavar="N", type=int, help="List at most N; 0 lists all (default: 20; with --json all)."
    )
    parser.add_argument("--trials", action="store_true", help="List every trial of a study, not one line per study.")
    add_json(parser)


def runs_command(*, limit: int | None, trials: bool, as_json: bool) -> None:
    """List the runs."""
    if limit is None:
        limit = 0 if as_json else _SHOWN
    if limit < 0:
        raise UsageError(f"--limit must be at least 0 (got {limit}).", "Use 0 for all.")
    home = find_home()
    studies = () if trials else _studies(home)
    of_studies = {run_id for study in studies for run_id in study.runs}
    listing = list_infos(home, limit=limit or None, load=local_only, without=of_studies)
    for problem in listing.problems:
        note(problem)
    if as_json:
        print_json(listing.infos)
        return
    if not listing.infos and not studies:
        note(f"No runs in {home.runs}. Start one: trainer run")
        return
    head = ("RUN", "BACKEND", "STATUS", "CREATED", "TOOK", "DATA SET", "MODEL")
    rows = [(info.created, _row(info)) for info in listing.infos] + [(study.created, study.row()) for study in studies]
    rows.sort(key=lambda row: row[0], reverse=True)
    table(head, (row for _, row in rows[: limit or None]), right=("TOOK",))
    left_out = listing.left_out + len(rows[limit:] if limit else ())
    if left_out:
        note(f"{left_out:,} more: trainer runs --limit 0")
    if studies:
        note("The trials of a study: trainer show STUDY, or trainer runs --trials")


def _studies(home: Home) -> tuple[StudyLine, ...]:
    if not home.studies.is_dir():
        return ()
    from trainer.tune.lines import study_lines  # most projects have no study

    return study_lines(home.studies)


def _is_study(reference: str) -> bool:
    try:
        return any(reference and reference in name for name in os.listdir(find_home().studies))  # noqa: PTH208
    except FileNotFoundError:
        return False


def add_show(parser: Parser) -> None:
    """Declare ``trainer show``."""
    add_reference(parser, "to show")
    what = "Save the learning curves, or a study's history and parallel coordinates, as a picture."
    parser.add_argument("--plot", metavar="FILE.png", type=Path, help=what)
    add_json(parser)


def show_command(*, reference: str, plot: Path | None, as_json: bool) -> None:
    """Show everything that is known of a run, or of a study."""
    try:
        run = open_run(reference)
    except NotFoundError:
        if not _is_study(reference):
            raise
        from trainer.cli.tune import show_study

        show_study(reference, plot=plot, as_json=as_json)
        return
    info = run.info()
    if plot is not None:
        modeluse.plot_curves(run.metrics(), plot, title=run.run_id)
        note(f"Learning curves: {relative(plot)}")
    if as_json:
        print_json({**as_object(run, info), "job": run.job, "history": run.metrics(), "files": run.files()})
        return
    print_summary(run, info, detailed=True)
    curves = curves_of(run)
    if curves:
        say()
        say(curves)


def add_logs(parser: Parser) -> None:
    """Declare ``trainer logs``."""
    add_reference(parser, "whose log is printed")
    parser.add_argument("-f", "--follow", action="store_true", help="Continue until the run ends.")
    add_json(parser, 'Print one JSON object per line: {"line": ...}.')


def logs_command(*, reference: str, follow: bool, as_json: bool) -> None:
    """Print a run's log."""
    run = open_run(reference)
    if not follow:
        run.info()  # fetches a remote run's log
    for line in run.logs(follow=follow):
        if as_json:
            print_json({"line": line})
        else:
            print_log(kept_path(line, run), sys.stdout)
        if follow:
            sys.stdout.flush()


def add_attach(parser: Parser) -> None:
    """Declare ``trainer attach``."""
    add_reference(parser, "to follow")
    logs = parser.add_mutually_exclusive_group()
    shown = "Show the script's output (default: only for a --script of your own)."
    logs.add_argument("--logs", action="store_true", default=None, help=shown)
    logs.add_argument("--no-logs", dest="logs", action="store_false", help="Hide the script's output.")
    add_json(parser, "Print the object of 'trainer run --json' at the end.")


def attach_command(*, reference: str, logs: bool | None, as_json: bool) -> int:
    """Follow a run to its end."""
    run = open_run(reference)
    if run.job.dataset_note:
        warn(run.job.dataset_note)
    return follow_to_the_end(run, logs=logs, as_json=as_json)


def add_cancel(parser: Parser) -> None:
    """Declare ``trainer cancel``."""
    add_reference(parser, "to stop")
    add_json(parser, "Print the run's record as JSON.")


def cancel_command(*, reference: str, as_json: bool) -> None:
    """Stop a run. A run that has ended is left as it is."""
    run = open_run(reference)
    before = run.info()
    if not before.status.terminal:
        run.cancel()
    info = run.wait(timeout=10)
    if as_json:
        print_json(info)
    elif before.status.terminal:
        note(f"Run {run.run_id} has already ended ({before.status}).")
    else:
        where = f" on {host}" if (host := elsewhere(info)) else ""
        note(f"Run {run.run_id}: {info.status if info.status.terminal else f'stopping{where}'}.")


def _row(info: RunInfo) -> tuple[str, ...]:
    took = duration(info.ended - (info.started or info.created)) if info.ended else ""
    model = f"{info.model.name}:{info.model.version}" if info.model else ""
    status = "Stopped" if info.stopped and info.status is RunStatus.CANCELED else info.status
    return info.run_id, info.backend, status, moment(info.created), took, info.dataset or "", model
