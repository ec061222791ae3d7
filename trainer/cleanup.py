"""Removing runs and studies: which ones, what they take, and their folders."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer import contentstore
from trainer.errors import ConfigError, UsageError
from trainer.history import RunRow, main_metrics
from trainer.home import Home
from trainer.query import Column, ordered_by
from trainer.runfolder import RunFolder
from trainer.trees import remove_tree
from trainer.tune.study import StudyFolder

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(m|h|d|w)")
_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}
_DELETED = ".deleted-"


@dataclass(frozen=True)
class Criteria:
    """Which runs ``trainer clean`` removes; a run must fulfil all that are given.

    Attributes:
        older_than: Seconds since they ended; None for any.
        statuses: Their status, lower case; empty for any.
        keep_best: How many of the best stay; None if that does not count.
        by: The metric that says which are best; None for the one that is compared first.
        registered: Also runs whose model version is registered. The version stays in its registry.
    """

    older_than: float | None = None
    statuses: frozenset[str] = frozenset()
    keep_best: int | None = None
    by: str | None = None
    registered: bool = False


@dataclass(frozen=True)
class CleanPlan:
    """What would be removed.

    Attributes:
        rows: The runs.
        size: What their folders hold, in bytes, without what they share with others.
        spared: How many more fulfil the criteria and stay because their model version is registered.
    """

    rows: tuple[RunRow, ...]
    size: int
    spared: int = 0


def age(text: str) -> float:
    """Return the seconds of ``30d``, ``12h``, ``45m`` or ``2w``.

    Raises:
        UsageError: It is no such text.
    """
    found = _AGE.fullmatch(text.strip().lower())
    if not found:
        raise UsageError(f"{text!r} is not an age.", "For example: 30d, 12h, 2w")
    return float(found[1]) * _UNITS[found[2]]


def plan_clean(home: Home, rows: Sequence[RunRow], criteria: Criteria, *, now: float | None = None) -> CleanPlan:
    """Choose the runs to remove. Runs that have not ended are never among them.

    Args:
        home: Where runs are kept.
        rows: Every run.
        criteria: At least one of age, status and the best ones to keep.
        now: The time, in seconds since 1970.

    Raises:
        UsageError: No criterion is given, or no run has the metric.
    """
    if criteria.older_than is None and not criteria.statuses and criteria.keep_best is None:
        raise UsageError(
            "Say which runs: by age, by status, or all but the best.",
            "For example: trainer clean --older-than 30d, --status failed, or --keep-best 5",
        )
    now = time.time() if now is None else now
    chosen = [row for row in rows if row.info.status.terminal]
    if criteria.keep_best is not None:
        best = _best(rows, criteria.by)[: criteria.keep_best]
        kept = {row.info.run_id for row in best}
        chosen = [row for row in chosen if row.info.run_id not in kept]
    if criteria.statuses:
        chosen = [row for row in chosen if str(row.info.status).lower() in criteria.statuses]
    if criteria.older_than is not None:
        oldest = now - criteria.older_than
        chosen = [row for row in chosen if (row.info.ended or row.info.created) < oldest]
    spared = 0
    if not criteria.registered:
        free = [row for row in chosen if row.info.model is None]
        chosen, spared = free, len(chosen) - len(free)
    return CleanPlan(tuple(chosen), sum(own_size(home.runs / row.info.run_id) for row in chosen), spared)


def own_size(folder: Path) -> int:
    """Return how many bytes a folder's files hold that no other folder shares."""
    total = 0
    for directory, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                status = os.lstat(os.path.join(directory, name))  # noqa: PTH118
                total += status.st_size if status.st_nlink == 1 else 0
    return total


def delete_run(folder: RunFolder) -> None:
    """Remove a run's folder; half of one is never seen.

    Raises:
        UsageError: The run has not ended.
        NotFoundError: There is no such run.
        ConfigError: It can't be removed.
    """
    info = folder.info()
    if not info.status.terminal:
        raise UsageError(f"Run {folder.run_id} is {info.status}.", f"Stop it first: trainer cancel {folder.run_id}")
    _bury(folder.path)


def delete_runs(home: Home, run_ids: Iterable[str], done: Callable[[str], None] = lambda _: None) -> int:
    """Remove runs, then the stored files that nothing holds any more, and what earlier removals left half done.

    Args:
        home: Where runs are kept.
        run_ids: Their ids.
        done: Called after each.

    Returns:
        The bytes of stored files that were removed with them.
    """
    for run_id in run_ids:
        delete_run(RunFolder(home.runs / run_id))
        done(run_id)
    _remove_left(home.runs)
    return contentstore.collect(home.store)


def runs_of(home: Home, study: StudyFolder) -> list[RunFolder]:
    """Return the runs of a study's trials that were not removed."""
    found = (RunFolder(home.runs / trial.run_id) for trial in study.trials().values())
    return [run for run in found if run.path.is_dir()]


def delete_study(home: Home, study: StudyFolder) -> int:
    """Remove a study with the runs of its trials; the study last, so that a removal that was cut off can be repeated.

    Args:
        home: Where both are kept.
        study: The study.

    Returns:
        The bytes of stored files that were removed with them.

    Raises:
        UsageError: It is being driven, or one of its runs has not ended; nothing was removed.
        ConfigError: Something can't be removed.
    """
    with study.driven():
        runs = runs_of(home, study)
        for run in runs:
            if not (status := run.info().status).terminal:
                raise UsageError(
                    f"Run {run.run_id} of study {study.study_id} is {status}.",
                    f"Stop it first: trainer cancel {run.run_id}",
                )
        for run in runs:
            delete_run(run)
        _bury(study.path)
    _remove_left(home.runs)
    _remove_left(home.studies)
    return contentstore.collect(home.store)


def _best(rows: Sequence[RunRow], by: str | None) -> list[RunRow]:
    if by is None:
        metrics = main_metrics(rows)
        if not metrics:
            raise UsageError("No run has a metric, so none is the best.", "Choose by --older-than or --status.")
        by = metrics[0]
    column = Column(f"best:{by}", rows)
    return [row for row in ordered_by(rows, f"best:{by}") if column.value(row) is not None]


def _bury(folder: Path) -> None:
    """Remove a folder; half of one is never seen."""
    try:
        grave = Path(tempfile.mkdtemp(prefix=_DELETED, dir=folder.parent))
        folder.rename(grave / folder.name)
        remove_tree(grave)
    except OSError as error:
        raise ConfigError(f"Can't remove {folder}: {error.strerror}.", "Make it writable.") from error


def _remove_left(parent: Path) -> None:
    for left in parent.glob(f"{_DELETED}*"):
        with contextlib.suppress(OSError):
            remove_tree(left)
