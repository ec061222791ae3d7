"""``trainer runs`` and ``show``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainer.cli.parsing import Parser, add_json, add_reference

if TYPE_CHECKING:
    from trainer.records import RunInfo


def add_runs(parser: Parser) -> None:
    """Declare ``trainer runs``."""
    parser.add_argument("--limit", metavar="N", type=int, default=20, help="Show at most N; 0 for all (default: 20).")
    add_json(parser)


def add_show(parser: Parser) -> None:
    """Declare ``trainer show``."""
    add_reference(parser, "to show")
    parser.add_argument("--plot", metavar="FILE.png", type=Path, help="Draw the learning curves into a picture.")
    add_json(parser)


def runs_command(*, limit: int, as_json: bool) -> None:
    """List the runs."""
    from trainer.cli.context import local_only
    from trainer.console.output import note, print_json, table
    from trainer.errors import UsageError
    from trainer.home import find_home
    from trainer.listing import list_infos

    if limit < 0:
        raise UsageError(f"--limit {limit}: it is a number of at least 0.", "Use 0 for all.")
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


def show_command(*, reference: str, plot: Path | None, as_json: bool) -> None:
    """Show everything that is known of a run."""
    from trainer.cli.context import open_run
    from trainer.console.output import note, print_json, say
    from trainer.console.summary import as_object, curves_of, print_summary, relative

    run = open_run(reference)
    info = run.info()
    if plot is not None:
        from trainer.modeluse import plot_curves

        plot_curves(run.metrics(), plot, title=run.run_id)
        note(f"Learning curves: {relative(plot)}")
    if as_json:
        print_json({**as_object(run, info), "job": run.job, "history": run.metrics(), "files": run.files()})
        return
    print_summary(run, info, detailed=True)
    curves = curves_of(run)
    if curves:
        say()
        say(curves)


def _row(info: RunInfo) -> tuple[str, ...]:
    from trainer.console.output import duration, moment

    took = duration(info.ended - (info.started or info.created)) if info.ended else ""
    model = f"{info.model.name}:{info.model.version}" if info.model else ""
    return info.run_id, info.backend, info.status, moment(info.created), took, info.dataset or "", model
