"""``trainer runs``: the list, and its actions ``diff``, ``tag``, ``note`` and ``rename``."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from trainer.cli.context import local_only, open_run
from trainer.cli.parsing import Parser, add_json, add_reference, tag
from trainer.console.output import cut_to, duration, inline, measured, moment, note, print_json, say, table, width
from trainer.errors import UsageError
from trainer.history import read_history
from trainer.home import find_home
from trainer.query import FIELDS, chosen_columns, default_columns, ordered_by, where

if TYPE_CHECKING:
    from trainer.history import RunRow
    from trainer.home import Home
    from trainer.query import Column, Value
    from trainer.rundiff import Difference
    from trainer.tune.lines import StudyLine

# As many as fit a terminal; a program reads all.
_SHOWN = 20
# Reasons of failure that are told below the list.
_FAILURES = 3
_HEADINGS = {"dataset": "DATA SET", "resumed": "RESUMED FROM"}
# Left out first where the terminal is narrow; see _least_needed.
_LAST_IN_LINE = ("dataset", "created", "backend", "failure", "note", "model", "script", "experiment")


def add_runs(parser: Parser) -> None:
    """Declare ``trainer runs``."""
    actions = parser.add_subparsers(dest="action", metavar="[ACTION]", parser_class=Parser, title="actions")
    _add_action(actions, "diff", "Compare two runs: parameters, environment, files, metrics.", _add_diff)
    _add_action(actions, "tag", "Set tags of a run, or take them away.", _add_tag)
    _add_action(actions, "note", "Write a note on a run.", _add_note)
    _add_action(actions, "rename", "Give a run a name; commands take it in place of the id.", _add_rename)
    parser.add_argument(
        "--limit", metavar="N", type=int, help="List at most N; 0 lists all (default: 20; with --json or --csv all)."
    )
    parser.add_argument("--trials", action="store_true", help="List every trial of a study, not one line per study.")
    parser.add_argument(
        "--sort",
        metavar="NAME",
        help="Order by a column: a metric (best first), 'best:METRIC', a parameter, a tag, or "
        f"{', '.join(FIELDS[:12])} (default: newest first).",
    )
    parser.add_argument("--reverse", action="store_true", help="The other way round.")
    parser.add_argument(
        "--where",
        metavar="CONDITION",
        action="append",
        help="List only runs like that: 'accuracy>0.9', 'status=failed', 'lr!=0.1', 'note~warm'; can be repeated.",
    )
    parser.add_argument("--columns", metavar="A,B", help="Show these columns.")
    parser.add_argument("--csv", dest="as_csv", action="store_true", help="Print comma-separated values.")
    add_json(parser, "Print every run as JSON: record, parameters, tags, last and best metrics.")


def runs_command(*, action: str | None = None, **options: Any) -> None:
    """List the runs, or run the action."""
    actions: dict[str | None, Callable[..., None]] = {
        None: _list,
        "diff": _diff,
        "tag": _tag,
        "note": _note,
        "rename": _rename,
    }
    if action is not None:
        for name in ("limit", "trials", "sort", "reverse", "where", "columns", "as_csv"):
            options.pop(name)
    actions[action](**options)


def _list(
    *,
    limit: int | None,
    trials: bool,
    sort: str | None,
    reverse: bool,
    where: list[str] | None,
    columns: str | None,
    as_csv: bool,
    as_json: bool,
) -> None:
    if limit is None:
        limit = 0 if as_json or as_csv else _SHOWN
    if limit < 0:
        raise UsageError(f"--limit must be at least 0 (got {limit}).", "Use 0 for all.")
    if as_csv and as_json:
        raise UsageError("--csv and --json are two formats.", "Give one of them.")
    home = find_home()
    # What is chosen is chosen among all runs.
    whole = bool(sort or reverse or where)
    # A study is one line where the newest are listed; a program and whoever searches see its trials.
    studies = () if trials or whole or as_json or as_csv else _studies(home)
    of_studies = {run_id for study in studies for run_id in study.runs}
    history = read_history(home, limit=None if whole else limit or None, load=local_only, without=of_studies)
    for problem in history.problems:
        note(problem)
    rows = _chosen(list(history.rows), sort, where, reverse=reverse)
    shown = rows[: limit or None]
    left_out = len(rows) - len(shown) if whole else history.left_out
    if as_json:
        print_json([row.as_object() for row in shown])
        return
    if not history.rows and not studies:
        note(f"No runs in {home.runs}. Start one: trainer run")
        return
    if not shown and not studies:
        note("No run is like that. See all: trainer runs")
        return
    found = chosen_columns(columns, rows) if columns is not None else default_columns(shown)
    if as_csv:
        _print_csv(found, shown)
        return
    if shown:
        _print(found, shown, chosen=columns is not None)
    if left_out:
        note(f"{left_out:,} more: trainer runs --limit 0")
    if studies:
        if shown:
            say()
        _print_studies(sorted(studies, key=lambda study: study.created, reverse=True)[: limit or None])


def _studies(home: Home) -> tuple[StudyLine, ...]:
    if not home.studies.is_dir():
        return ()
    from trainer.tune.lines import study_lines  # most projects have no study

    return study_lines(home.studies)


def _print_studies(studies: Sequence[StudyLine]) -> None:
    table(
        ("STUDY", "BACKEND", "STATUS", "CREATED", "TRIALS", "DATA SET", "MODEL"),
        [study.row() for study in studies],
        drop=("DATA SET", "CREATED", "BACKEND"),
    )
    note("The trials of a study: trainer show STUDY, or trainer runs --trials")


def _chosen(rows: list[RunRow], sort: str | None, conditions: list[str] | None, *, reverse: bool) -> list[RunRow]:
    if conditions:
        rows = where(rows, conditions)
    if sort is not None and rows:
        return ordered_by(rows, sort, reverse=reverse)
    return rows[::-1] if reverse else rows


def print_rows(rows: Sequence[RunRow]) -> None:
    """Print some runs as ``trainer runs`` does."""
    _print(default_columns(rows), rows, chosen=False)


def _print(columns: Sequence[Column], rows: Sequence[RunRow], *, chosen: bool) -> None:
    heads = [_heading(column.name) for column in columns]
    right = [head for head, column in zip(heads, columns, strict=True) if column.is_number and column.name != "created"]
    drop = [] if chosen else _least_needed(columns, rows)
    cells = (
        [write(column.value(row)) for row in rows] for column, write in ((each, _writer(each)) for each in columns)
    )
    left_out = table(heads, zip(*cells, strict=True), right=right, drop=drop)
    failed = _heading("failure") in left_out
    others = ", ".join(name for name in left_out if name != _heading("failure")).lower()
    if others:
        note(f"No room for {others}: choose with --columns, or trainer view")
    if failed:
        _print_failures(rows)


def _print_failures(rows: Sequence[RunRow]) -> None:
    """Say why the newest of the failed runs failed, a line each."""
    failures = {row.info.run_id: row.info.failure.message for row in rows if row.info.failure}
    room = width(sys.stderr) or 0
    for run_id, message in list(failures.items())[:_FAILURES]:
        line = inline(f"{run_id[9:]} failed: {' '.join(message.split())}")
        note(cut_to(line, room) if room else line)
    if len(failures) > _FAILURES:
        note(f"{len(failures) - _FAILURES} more failed: trainer runs --where status=failed --columns run,failure")


def _least_needed(columns: Sequence[Column], rows: Sequence[RunRow]) -> list[str]:
    """Return the headings of what can be left out of a list, what is needed least first: ids and results stay whole."""
    different = {
        column.name: len({column.value(row) for row in rows} - {None}) for column in columns if column.is_parameter
    }
    # Of two that tell as many runs apart, the one that the scripts' command lines have later.
    parameters = list(different)
    parameters.reverse()
    parameters.sort(key=lambda name: different[name])
    # A parameter with one value is there because some scripts do not have it.
    one = [name for name in parameters if different[name] < 2]
    best = [column.name for column in columns if column.name.startswith("best:")]
    names = [*_LAST_IN_LINE, *one, "took", "tags", *best, *(name for name in parameters if name not in one)]
    # On a terminal that is narrower than 80 columns.
    metrics = [column.name for column in columns if column.better and column.name not in best]
    names += [*metrics[:0:-1], "name"]
    return [_heading(name) for name in names]


def _print_csv(columns: Sequence[Column], rows: Sequence[RunRow]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([column.name for column in columns])
    for row in rows:
        writer.writerow(["" if (value := column.value(row)) is None else value for column in columns])


def _heading(name: str) -> str:
    return _HEADINGS.get(name, f"BEST {name[5:]}".upper() if name.startswith("best:") else name.upper())


def _writer(column: Column) -> Callable[[Value], str]:
    """Return what writes the values of a column."""
    times: dict[str, Callable[[float], str]] = dict.fromkeys(("created", "started", "ended"), moment)
    write = {**times, "took": duration}.get(column.name, measured)
    return lambda value: "" if value is None else value if isinstance(value, str) else write(value)


def _add_action(actions: Any, name: str, summary: str, add: Callable[[Parser], None]) -> None:  # noqa: ANN401
    parser = actions.add_parser(name, summary=summary, prog=f"trainer runs {name}", help=summary)
    add(parser)
    add_json(parser)


def _add_diff(parser: Parser) -> None:
    add_reference(parser, "to compare")
    parser.add_argument("other", metavar="OTHER", help="The run to compare it with.")


def _add_tag(parser: Parser) -> None:
    add_reference(parser, "to tag")
    parser.add_argument("tags", metavar="NAME=VALUE", nargs="*", type=_tag_word, help="Tags to set.")
    parser.add_argument("--remove", metavar="NAME", action="append", default=[], help="Take a tag away; repeatable.")


def _add_note(parser: Parser) -> None:
    add_reference(parser, "to write a note on")
    parser.add_argument("text", metavar="TEXT", help="The note; an empty one takes it away.")


def _add_rename(parser: Parser) -> None:
    add_reference(parser, "to name")
    parser.add_argument("name", metavar="NAME", help="The name; an empty one takes it away.")


def _tag_word(text: str) -> tuple[str, str]:
    try:
        return tag(text)
    except argparse.ArgumentTypeError:
        if not text.strip() or text.startswith("-"):
            raise
        return text.strip(), "yes"


def _diff(*, reference: str, other: str, as_json: bool) -> None:
    from trainer.history import read_row
    from trainer.rundiff import diff_runs

    runs = [open_run(name) for name in (reference, other)]
    rows = [read_row(run.folder.path, run.info()) for run in runs]
    found = diff_runs(runs[0].folder, runs[1].folder, *rows)
    if as_json:
        print_json(found)
        return
    sections = {
        "JOB": found.job,
        "PARAMETER": found.parameters,
        "ENVIRONMENT": found.environment,
        "FILE": found.files,
        "METRIC": _said_once(found.metrics),
    }
    if not any(sections.values()):
        note("Nothing tells these two runs apart but their ids.")
    first = True
    for title, differences in sections.items():
        if differences:
            if not first:
                say()
            first = False
            _print_differences(title, differences, found.a, found.b)


def _said_once(metrics: Sequence[Difference]) -> list[Difference]:
    """Return the metrics without best values that are the last ones of both runs."""
    last = {(f"best:{metric.name}", metric.a, metric.b) for metric in metrics}
    return [metric for metric in metrics if (metric.name, metric.a, metric.b) not in last]


def _print_differences(title: str, differences: Sequence[Difference], a: str, b: str) -> None:
    rows = [(difference.name, _text(difference.a), _text(difference.b)) for difference in differences]
    table((title, a, b), rows)


def _text(value: str | float | None) -> str:
    return "-" if value is None else value if isinstance(value, str) else measured(value)


def _tag(*, reference: str, tags: list[tuple[str, str]], remove: list[str], as_json: bool) -> None:
    from trainer.labels import all_tags, change_labels

    if not tags and not remove:
        raise UsageError("Give a tag to set or to remove.", "For example: trainer runs tag latest stage=final")
    run = open_run(reference)
    change_labels(run.folder, tags=dict(tags) | dict.fromkeys(remove))
    now = all_tags(run.folder.path, run.job.tags)
    if as_json:
        print_json({"run_id": run.run_id, "tags": now})
        return
    note(f"Run {run.run_id}: {inline('  '.join(f'{key}={value}' for key, value in now.items())) or 'no tags'}")


def _note(*, reference: str, text: str, as_json: bool) -> None:
    from trainer.labels import change_labels

    run = open_run(reference)
    change_labels(run.folder, note=text or None)
    if as_json:
        print_json({"run_id": run.run_id, "note": text or None})
        return
    note(f"Run {run.run_id}: {'noted' if text else 'the note is gone'}.")


def _rename(*, reference: str, name: str, as_json: bool) -> None:
    from trainer.findrun import run_named
    from trainer.labels import change_labels
    from trainer.runids import run_ids

    run = open_run(reference)
    runs = run.folder.path.parent
    others = [other for other in run_named(runs, name, run_ids(runs)) if other != run.run_id] if name else []
    if others:
        raise UsageError(f"Run {others[0]} has the name {name!r} already.", "Choose another.")
    change_labels(run.folder, name=name or None)
    if as_json:
        print_json({"run_id": run.run_id, "name": name or None})
        return
    note(f"Run {run.run_id} is named {name}." if name else f"Run {run.run_id} has no name.")
