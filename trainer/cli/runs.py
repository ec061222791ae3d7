"""``trainer show``, ``logs``, ``attach`` and ``cancel``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from trainer import modeluse
from trainer.cli.completers import run_ids
from trainer.cli.context import is_study, open_run
from trainer.cli.parsing import Parser, add_json, add_reference, complete_with
from trainer.console.follow import follow_to_the_end
from trainer.console.output import note, print_json, print_log, say, warn
from trainer.console.summary import as_object, curves_of, curves_width, kept_path, print_summary, relative
from trainer.errors import NotFoundError, UsageError
from trainer.host import elsewhere

if TYPE_CHECKING:
    from trainer.handle import Run
    from trainer.history import RunRow
    from trainer.records import Metric

_IN_THE_TERMINAL = Path("-")
_ALL = "all"


def add_show(parser: Parser) -> None:
    """Declare ``trainer show``."""
    what = "The runs to show, or to compare: their ids, unambiguous beginnings or ends of them, or 'latest'."
    complete_with(parser.add_argument("references", metavar="RUN", nargs="+", help=what), run_ids)
    parser.add_argument(
        "--plot",
        metavar="FILE.png",
        type=Path,
        nargs="?",
        const=_IN_THE_TERMINAL,
        help="Save the learning curves, or a study's history, as a picture; without a name, draw them here.",
    )
    add_json(parser)


def show_command(*, references: list[str], plot: Path | None, as_json: bool) -> None:
    """Show everything that is known of a run or of a study, or of several runs what there is to compare."""
    if len(references) > 1:
        _show_several(references, plot, as_json=as_json)
        return
    try:
        run = open_run(references[0])
    except NotFoundError:
        if not is_study(references[0]):
            raise
        from trainer.cli.studies import show_study

        show_study(references[0], plot=None if plot == _IN_THE_TERMINAL else plot, as_json=as_json)
        return
    info = run.info()
    if plot is not None and plot != _IN_THE_TERMINAL:
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


def _show_several(references: list[str], plot: Path | None, *, as_json: bool) -> None:
    from trainer.cli.runlist import print_rows
    from trainer.history import read_row

    runs = list({run.run_id: run for run in map(open_run, references)}.values())
    rows = [read_row(run.folder.path, run.info()) for run in runs]
    if plot is not None and plot != _IN_THE_TERMINAL:
        modeluse.plot_together(_labelled(runs, rows), plot)
        note(f"Learning curves: {relative(plot)}")
    if as_json:
        print_json([{**row.as_object(), "history": run.metrics()} for run, row in zip(runs, rows, strict=True)])
        return
    curves = modeluse.curves_together(_labelled(runs, rows), width=curves_width())
    if curves:
        say(curves)
        say()
    print_rows(rows)


def _labelled(runs: list[Run], rows: list[RunRow]) -> dict[str, list[Metric]]:
    """The metrics of each run by its name, or else by the part of its id that tells it from the others."""
    labels = [row.name or run.run_id[9:] for run, row in zip(runs, rows, strict=True)]
    return {label: run.metrics() for label, run in zip(labels, runs, strict=True)}


def add_logs(parser: Parser) -> None:
    """Declare ``trainer logs``."""
    add_reference(parser, "whose log is printed")
    parser.add_argument("-f", "--follow", action="store_true", help="Continue until the run ends.")
    what = "Of a job of several processes, print the output of rank K, or of all, each line with its rank (default: 0)."
    parser.add_argument("--rank", metavar="K", default="0", help=what)
    add_json(parser, 'Print one JSON object per line: {"line": ...}, with --rank all {"rank": ..., "line": ...}.')


def logs_command(*, reference: str, follow: bool, rank: str, as_json: bool) -> None:
    """Print a run's log."""
    together = rank == _ALL
    if not together and not (rank.isascii() and rank.isdecimal() and len(rank) < 10):
        raise UsageError(
            f"--rank {rank} is neither the number of a process nor {_ALL}.", f"Give a number from 0, or {_ALL}."
        )
    run = open_run(reference)
    ranks = range(run.job.ranks) if together else [int(rank)]
    for number, line in run.rank_logs(ranks, follow=follow):
        if as_json:
            print_json({"rank": number, "line": line} if together else {"line": line})
        else:
            print_log(f"rank {number}: {kept_path(line, run)}" if together else kept_path(line, run), sys.stdout)
        if follow:
            sys.stdout.flush()


def add_attach(parser: Parser) -> None:
    """Declare ``trainer attach``."""
    add_reference(parser, "to follow, or the study")
    logs = parser.add_mutually_exclusive_group()
    shown = "Show the script's output (default: only for a --script of your own)."
    logs.add_argument("--logs", action="store_true", default=None, help=shown)
    logs.add_argument("--no-logs", dest="logs", action="store_false", help="Hide the script's output.")
    add_json(parser, "Print the object of 'trainer run --json' at the end.")


def attach_command(*, reference: str, logs: bool | None, as_json: bool) -> int:
    """Follow a run, or a study that a service drives, to its end."""
    try:
        run = open_run(reference)
    except NotFoundError:
        if not is_study(reference):
            raise
        from trainer.cli.studies import attach_study

        if logs is not None:
            raise UsageError("A study's trials have a log each.", "Print one: trainer logs RUN") from None
        return attach_study(reference, as_json=as_json)
    if run.job.dataset_note:
        warn(run.job.dataset_note)
    return follow_to_the_end(run, logs=logs, as_json=as_json)


def add_cancel(parser: Parser) -> None:
    """Declare ``trainer cancel``."""
    add_reference(parser, "to stop, or the study")
    add_json(parser, "Print the run's record as JSON.")


def cancel_command(*, reference: str, as_json: bool) -> None:
    """Stop a run or a study. One that has ended is left as it is."""
    try:
        run = open_run(reference)
    except NotFoundError:
        if not is_study(reference):
            raise
        from trainer.cli.studies import cancel_study

        cancel_study(reference, as_json=as_json)
        return
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
