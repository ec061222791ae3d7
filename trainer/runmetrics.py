"""Reads ``metrics.jsonl``, which the script owns and may spoil."""

from __future__ import annotations

from pathlib import Path

import msgspec

from trainer import recordfile
from trainer.errors import DamagedRecordError
from trainer.records import Metric

_LARGEST = 512 << 20
_MOST_PROBLEMS = 3
_METRIC = msgspec.json.Decoder(Metric)


def read(path: Path) -> tuple[list[Metric], list[str]]:
    """Return every metric logged so far, and what is damaged, in a few sentences.

    A last line still being written is left out, and so is a damaged one; no file is no metrics.

    Args:
        path: The run's ``metrics.jsonl``.
    """
    try:
        data = recordfile.read_bytes(path, _LARGEST)
    except FileNotFoundError:
        return [], []
    except DamagedRecordError as error:
        return [], [error.message]
    found: list[Metric] = []
    problems: list[str] = []
    damaged = 0
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        metric = _metric(line)
        if isinstance(metric, Metric):
            found.append(metric)
            continue
        # The script owns this file; a line that it spoiled must not hide the others.
        damaged += 1
        if damaged <= _MOST_PROBLEMS:
            problems.append(f"Line {number} of {path} is damaged and left out: {recordfile.explain(metric, line)}.")
    if damaged > _MOST_PROBLEMS:
        problems.append(f"{damaged - _MOST_PROBLEMS:,} more lines of {path} are damaged and left out.")
    return _once(found), problems


def metric_lines(data: bytes) -> list[bytes]:
    """Return the lines of ``metrics.jsonl`` that hold a metric."""
    return [line for line in data.split(b"\n")[:-1] if isinstance(_metric(line), Metric)]


def _once(metrics: list[Metric]) -> list[Metric]:
    """Leave out what a later attempt has logged again under the same name and step."""
    if not metrics or metrics[-1].attempt == 1:
        return metrics
    latest = {(metric.name, metric.step): metric.attempt for metric in metrics}
    return [metric for metric in metrics if metric.step is None or metric.attempt == latest[metric.name, metric.step]]


def _metric(line: bytes) -> Metric | Exception:
    try:
        return _METRIC.decode(line)
    except (ValueError, RecursionError, OverflowError, msgspec.MsgspecError) as error:
        return error
