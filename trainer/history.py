"""Every run with what there is to compare: its record, parameters, tags, and the last and best of each metric.

Reading a run takes three files, and its metrics may be many. What was read of a run that has ended is kept in
``.trainer/index.json``, with the time at which its folder last changed; a folder that has changed since is read
again, so the index can be removed at any time.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from trainer import recordfile
from trainer.backend import Backend, load_backend
from trainer.errors import DamagedRecordError
from trainer.home import Home
from trainer.job import TrainingJob
from trainer.labels import all_tags, user_labels
from trainer.listing import read_info, refreshed
from trainer.records import Metric, RunInfo
from trainer.runfolder import STATUS_FILE, RunFolder
from trainer.runids import run_ids
from trainer.runtime.atomic import write_bytes

INDEX_FILE = "index.json"
_LARGEST_INDEX = 1 << 30
# A folder that changed less than this long ago may change again without its time telling.
_SETTLED_NS = 2_000_000_000
_SMALLER = re.compile(r"loss|err|perplexity|\bppl\b|mse\b|mae\b|nll|seconds|time\b", re.IGNORECASE)
# Logged for the record; no one compares them.
_GIVEN = ("Batch size", "Epochs")
# Given to every run of our own script: where scripts of others lack it, it tells nothing.
_UNCHOSEN: dict[str, set[str | None]] = {"output_dir": {None, "./outputs"}}


class MetricSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of a run in short.

    Attributes:
        last: Its last value; None if that was not finite.
        best: The smallest of a loss or an error, the largest of anything else; None if no value was finite.
        best_step: The step of the best value, where steps are known.
        count: How many values there are.
    """

    last: float | None
    best: float | None
    best_step: float | None = None
    count: int = 1


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """A run as lists show it.

    Attributes:
        info: Its record.
        script: Its script.
        arguments: The script's command line.
        name: What people call it, or None.
        note: What people noted of it, or None.
        tags: All its tags.
        parameters: The options on its script's command line, without dashes.
        metrics: Every metric, in the order of their first values.
    """

    info: RunInfo
    script: str = ""
    arguments: tuple[str, ...] = ()
    name: str | None = None
    note: str | None = None
    tags: dict[str, str] = {}
    parameters: dict[str, str] = {}
    metrics: dict[str, MetricSummary] = {}

    def as_object(self) -> dict[str, Any]:
        """Return the row as one flat JSON object: the record's fields, and ``metrics`` and ``best`` by name."""
        return {
            **msgspec.structs.asdict(self.info),
            "name": self.name,
            "note": self.note,
            "script": self.script,
            "arguments": self.arguments,
            "tags": self.tags,
            "parameters": self.parameters,
            "metrics": {name: summary.last for name, summary in self.metrics.items()},
            "best": {name: summary.best for name, summary in self.metrics.items()},
        }


class History(msgspec.Struct, frozen=True, kw_only=True):
    """Rows, newest first, and what could not be read or brought up to date, one line each.

    Attributes:
        rows: The rows.
        problems: One line each.
        left_out: How many older runs the limit hides.
    """

    rows: tuple[RunRow, ...]
    problems: tuple[str, ...] = ()
    left_out: int = 0


class _Entry(msgspec.Struct, array_like=True):
    changed: int
    row: msgspec.Raw  # a RunRow; only those that are shown are decoded


class _Index(msgspec.Struct):
    version: int = 1
    entries: dict[str, _Entry] = {}


_JOB = msgspec.json.Decoder(TrainingJob)
_ROW = msgspec.json.Decoder(RunRow)
_INDEX = msgspec.json.Decoder(_Index)


def read_history(
    home: Home,
    *,
    limit: int | None = None,
    refresh: bool = True,
    load: Callable[[str, Home], Backend] = load_backend,
    without: Container[str] = (),
) -> History:
    """Read every run, or the newest.

    Args:
        home: Where runs are kept.
        limit: Only so many of the newest; None for all.
        refresh: Bring runs that have not ended up to date with their backend.
        load: Makes a backend from its name, once for each.
        without: Ids of runs to leave out; they don't count for the limit.
    """
    there = run_ids(home.runs)
    known = [run_id for run_id in there if run_id not in without]
    index = _read_index(home.path)
    rows: list[RunRow] = []
    problems: list[str] = []
    backends: dict[str, Backend] = {}
    read: dict[str, _Entry] = {}
    root, now = str(home.runs), time.time_ns()
    for run_id in known[:limit]:
        path = f"{root}/{run_id}"
        try:
            # Not Path.stat: there can be thousands. The folder changes when a file of it is replaced, the record also
            # when it is damaged in its place.
            changed = max(os.stat(name).st_mtime_ns for name in (path, f"{path}/{STATUS_FILE}"))  # noqa: PTH116
            entry = index.entries.get(run_id)
            if entry is not None and entry.changed == changed:
                rows.append(_ROW.decode(entry.row))
                continue
        except OSError:
            changed = now  # not settled
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # a damaged index costs a reading
        info = read_info(home, run_id, problems)
        if info is None:
            continue
        if refresh and not info.status.terminal:
            info = refreshed(info, home, backends, load, problems)
        row = read_row(Path(path), info)
        rows.append(row)
        if info.status.terminal and now - changed > _SETTLED_NS:
            read[run_id] = _Entry(changed, msgspec.Raw(msgspec.json.encode(row)))
    if read or len(index.entries) > len(there):
        _write_index(home.path, index, read, set(there))
    return History(rows=tuple(rows), problems=tuple(problems), left_out=len(known) - len(known[:limit]))


def read_row(path: Path, info: RunInfo, metrics: Mapping[str, MetricSummary] | None = None) -> RunRow:
    """Read what lists show of one run.

    Args:
        path: Its folder.
        info: Its record.
        metrics: Its metrics in short, if they are known already.
    """
    user = user_labels(path)
    try:
        job = recordfile.read(f"{path}/job.json", _JOB)
    except (OSError, DamagedRecordError):
        return RunRow(info=info, name=user.name, note=user.note)
    return RunRow(
        info=info,
        script=job.script,
        arguments=job.arguments,
        name=user.name,
        note=user.note,
        tags=all_tags(path, job.tags, user),
        parameters=parameters(job.arguments),
        metrics=dict(metrics) if metrics is not None else summaries(RunFolder(path).metrics()),
    )


def parameters(arguments: Sequence[str]) -> dict[str, str]:
    """Return the options of a command line, by name without dashes; one that is given without a value is ``yes``."""
    found: dict[str, str] = {}
    name = ""
    for word in arguments:
        is_option = word.startswith("-") and len(word) > 1 and not re.fullmatch(r"-\.?\d.*", word)
        if is_option:
            name, equals, value = word.lstrip("-").partition("=")
            if name:
                found[name] = value if equals else "yes"
            name = "" if equals else name
        elif name:
            # Several values, as of nargs="+", are one text.
            found[name] = word if found[name] == "yes" else f"{found[name]} {word}"
    return found


def differing(rows: Iterable[RunRow]) -> list[str]:
    """Return the names of the parameters that are not the same in all rows, in the order of their appearance."""
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row.parameters)
    values = {name: {row.parameters.get(name) for row in rows} for name in names}
    return [name for name in names if len(values[name]) > 1 and not values[name] <= _UNCHOSEN.get(name, set())]


def smaller_is_better(name: str) -> bool:
    """Return whether a metric of this name is a loss, an error or a time."""
    return bool(_SMALLER.search(name))


def main_metrics(rows: Iterable[RunRow]) -> list[str]:
    """Return the names of the metrics of some runs, those that are compared first in front."""
    counts: dict[str, int] = {}
    for row in rows:
        for name in row.metrics:
            if name not in _GIVEN:
                counts[name] = counts.get(name, 0) + 1
    first = [name for name in ("Accuracy", "Validation loss", "Loss") if name in counts]
    return first + sorted((name for name in counts if name not in first), key=lambda name: -counts[name])


def summaries(metrics: Iterable[Metric]) -> dict[str, MetricSummary]:
    """Sum up what a run has logged, metric by metric."""
    found: dict[str, list[Any]] = {}  # last, best, its step, count, smaller is better
    for metric in metrics:
        value = metric.value
        known = found.get(metric.name)
        if known is None:
            found[metric.name] = [value, value, metric.step, 1, smaller_is_better(metric.name)]
            continue
        known[0], known[3] = value, known[3] + 1
        if value is not None and (known[1] is None or (value < known[1] if known[4] else value > known[1])):
            known[1], known[2] = value, metric.step
    return {
        name: MetricSummary(last=last, best=best, best_step=step, count=count)
        for name, (last, best, step, count, _) in found.items()
    }


def _read_index(home: Path) -> _Index:
    try:
        found = recordfile.read(home / INDEX_FILE, _INDEX, _LARGEST_INDEX)
    except (OSError, DamagedRecordError):
        return _Index()
    return found if found.version == _Index().version else _Index()


def _write_index(home: Path, index: _Index, read: Mapping[str, _Entry], known: set[str]) -> None:
    entries = {run_id: entry for run_id, entry in {**index.entries, **read}.items() if run_id in known}
    # Of two at once the later one wins; what it lacks is read again. A folder of another user's has no index.
    with contextlib.suppress(OSError):
        write_bytes(home / INDEX_FILE, msgspec.json.encode(_Index(entries=entries)), durable=False)
