"""``trainer runs``, ``show``, ``logs``, ``attach`` and ``cancel``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from trainer import modeluse
from trainer.cli.context import local_only, open_run
from trainer.cli.parsing import Parser, add_json, add_reference
from trainer.console.follow import follow_to_the_end
from trainer.console.output import duration, moment, note, print_json, print_log, say, table
from trainer.console.summary import as_object, curves_of, print_summary, relative
from trainer.errors import UsageError
from trainer.home import find_home
from trainer.listing import list_infos

if TYPE_CHECKING:
    from trainer.records import RunInfo


def add_runs(parser: Parser) -> None:
    """Declare ``trainer runs``."""
    parser.add_argument("--limit", metavar="N", type=int, default=20, help="List at most N; 0 lists all (default: 20).")
    add_json(parser)


def runs_command(*, limit: int, as_json: bool) -> None:
    """List the runs."""
    if limit < 0:
        raise UsageError(f"--limit must be at least 0 (got {limit}).", "Use 0 for all.")
    home = find_home()
    listing = list_infos(home, limit=limit or None, load=local_only)
    for problem in listing.problems:
        note(problem)
    if as_json:
        print_json(listing.infos)
        return
    if not listing.infos:
        note(f"No runs in {home.runs}. Start one: trainer run")
        return
    head = ("RUN", "BACKEND", "STATUS", "CREATED", "TOOK", "DATA SET", "MODEL")
    table(head, map(_row, listing.infos), right=("TOOK",))
    if listing.left_out:
        note(f"{listing.left_out:,} more: trainer runs --limit 0")


def add_show(parser: Parser) -> None:
    """Declare ``trainer show``."""
    add_reference(parser, "to show")
    parser.add_argument("--plot", metavar="FILE.png", type=Path, help="Save the learning curves as a picture.")
    add_json(parser)


def show_command(*, reference: str, plot: Path | None, as_json: bool) -> None:
    """Show everything that is known of a run."""
    run = open_run(reference)
    info = run.info()
    if plot is not None:
        modeluse.plot_curves(run.metrics(), plot, title=run.run_id)
        note(f"Learning curves: {relative(plot)}")
    if as_json:
        print_json({**as_object(run, info), "job": run.job, "history": run.metrics(), "files": run.files()})
        return
    curves = curves_of(run)
    if curves:
        say(curves)
        say()
    # Last, where it is seen when the curves have scrolled by.
    print_summary(run, info, detailed=True)


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
            print_log(line, sys.stdout)
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
    return follow_to_the_end(open_run(reference), logs=logs, as_json=as_json)


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
        note(f"Run {run.run_id}: {info.status if info.status.terminal else 'stopping'}.")


def _row(info: RunInfo) -> tuple[str, ...]:
    took = duration(info.ended - (info.started or info.created)) if info.ended else ""
    model = f"{info.model.name}:{info.model.version}" if info.model else ""
    return info.run_id, info.backend, info.status, moment(info.created), took, info.dataset or "", model
