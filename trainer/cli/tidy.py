"""``trainer clean``, and the part of ``trainer delete`` that removes a run."""

from __future__ import annotations

import sys

from trainer.cleanup import CleanPlan, Criteria, age, delete_runs, own_size, plan_clean
from trainer.cli.context import local_only, open_run
from trainer.cli.parsing import Parser, add_json
from trainer.console.output import moment, note, number, print_json, size, table
from trainer.errors import RefusedError, UsageError
from trainer.history import RunRow, main_metrics, read_history
from trainer.home import find_home
from trainer.records import RunStatus

_ENDED = ("completed", "failed", "canceled")


def add_clean(parser: Parser) -> None:
    """Declare ``trainer clean``."""
    which = parser.add_argument_group("which runs; all that is given must be true of a run")
    which.add_argument("--older-than", metavar="AGE", help="Runs that ended so long ago: 30d, 12h, 2w.")
    which.add_argument("--status", metavar="STATUS", action="append", help="Completed, failed or canceled; repeatable.")
    which.add_argument("--keep-best", metavar="N", type=int, help="All but the N best.")
    which.add_argument("--by", metavar="METRIC", help="The metric that says which are best (default: Accuracy).")
    which.add_argument("--registered", action="store_true", help="Also runs whose model is registered; it stays.")
    parser.add_argument("--yes", action="store_true", help="Don't ask.")
    parser.add_argument("--dry-run", action="store_true", help="Only say what would be removed.")
    add_json(parser, "Print what was removed as JSON.")


def clean_command(
    *,
    older_than: str | None,
    status: list[str] | None,
    keep_best: int | None,
    by: str | None,
    registered: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove runs, after saying which and how much they take."""
    home = find_home()
    rows = read_history(home, load=local_only).rows
    plan = plan_clean(home, rows, _criteria(older_than, status, keep_best, by, registered=registered))
    if plan.rows:
        _say(plan)
    if plan.spared:
        note(f"{plan.spared:,} more have a registered model and stay; to include them: --registered")
    if not plan.rows:
        note("No run to remove.")
    removed = bool(plan.rows) and not dry_run and _agreed(plan, yes=yes)
    if removed:
        delete_runs(home, [row.info.run_id for row in plan.rows])
        note(f"Removed {_count(plan)}, {size(plan.size)}.")
    if as_json:
        print_json({"removed": removed, "size": plan.size, "runs": [row.info.run_id for row in plan.rows]})


def delete_a_run(reference: str, *, force: bool, as_json: bool) -> None:
    """Remove one run.

    Raises:
        NotFoundError, UsageError: As ``open_run``, or the run has not ended.
        RefusedError: Its model is registered, and ``force`` is not given.
    """
    run = open_run(reference)
    info = run.info()
    if info.model and not force:
        raise RefusedError(
            f"Run {run.run_id} made the registered model {info.model.name}:{info.model.version}.",
            f"The model stays in its registry, but not the run's log and curves: trainer delete {run.run_id} --force",
        )
    held = own_size(run.folder.path)
    freed = delete_runs(find_home(), [run.run_id])
    if as_json:
        print_json({"run_id": run.run_id, "deleted": True})
    else:
        note(f"Deleted run {run.run_id}, {size(held + freed)}.")


def _criteria(
    older_than: str | None, status: list[str] | None, keep_best: int | None, by: str | None, *, registered: bool
) -> Criteria:
    wanted = frozenset(word.lower() for word in status or ())
    unknown = sorted(wanted - set(_ENDED))
    if unknown:
        raise UsageError(f"--status takes completed, failed or canceled, not {unknown[0]!r}.", "Choose one.")
    if keep_best is not None and keep_best < 0:
        raise UsageError(f"--keep-best must be at least 0 (got {keep_best}).", "Give another.")
    seconds = None if older_than is None else age(older_than)
    return Criteria(older_than=seconds, statuses=wanted, keep_best=keep_best, by=by, registered=registered)


def _say(plan: CleanPlan) -> None:
    metric = next(iter(main_metrics(plan.rows)), "")
    head = ["RUN", "STATUS", "ENDED", *([f"BEST {metric}".upper()] if metric else []), "MODEL"]
    table(head, [_row(row, metric) for row in plan.rows], right=head[3:4] if metric else ())
    note(f"{_count(plan)}, {size(plan.size)}.")


def _row(row: RunRow, metric: str) -> list[str]:
    info = row.info
    summary = row.metrics.get(metric)
    best = [number(summary.best) if summary else ""] if metric else []
    model = f"{info.model.name}:{info.model.version}" if info.model else ""
    return [info.run_id, str(RunStatus(info.status)), moment(info.ended or info.created), *best, model]


def _agreed(plan: CleanPlan, *, yes: bool) -> bool:
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        note("Nothing was removed. To remove them, add: --yes")
        return False
    sys.stderr.write(f"Remove {_count(plan)}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _count(plan: CleanPlan) -> str:
    return f"{len(plan.rows):,} run{'s' * (len(plan.rows) != 1)}"
