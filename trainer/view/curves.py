"""Every value that runs have logged, and curves of a size that a screen can show."""

from __future__ import annotations

import math
import os
import threading
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from trainer import recordfile
from trainer.errors import DamagedRecordError
from trainer.history import MetricSummary, smaller_is_better
from trainer.records import Metric
from trainer.runtime.layout import METRICS_FILE

if TYPE_CHECKING:
    import numpy as np

RAW_POINTS = 600
"""Steps up to which curves are sent as they are."""
_MOST_POINTS_KEPT = 30_000_000
_CHUNK = 1 << 20
_METRIC = msgspec.json.Decoder(Metric)


class _Series:
    """One metric of one run: 24 bytes for each value."""

    def __init__(self) -> None:
        self.steps = array("d")
        self.values = array("d")
        self.times = array("d")

    def add(self, metrics: Sequence[Metric]) -> None:
        self.steps.extend([math.nan if metric.step is None else metric.step for metric in metrics])
        self.values.extend([math.nan if metric.value is None else metric.value for metric in metrics])
        self.times.extend([metric.time for metric in metrics])

    def summary(self, name: str) -> MetricSummary:
        import numpy as np

        values = np.array(self.values)
        last = None if math.isnan(values[-1]) else float(values[-1])
        if np.isnan(values).all():
            return MetricSummary(last=last, best=None, count=len(values))
        at = int(np.nanargmin(values) if smaller_is_better(name) else np.nanargmax(values))
        step = None if math.isnan(self.steps[at]) else self.steps[at]
        return MetricSummary(last=last, best=float(values[at]), best_step=step, count=len(values))


class RunMetrics:
    """A run's ``metrics.jsonl``, read as it grows.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / METRICS_FILE
        self._offset = 0
        self._identity = (0, 0)
        self.series: dict[str, _Series] = {}
        self.points = 0

    def read(self, limit: int = 1 << 62) -> bool:
        """Read what is new, at most about ``limit`` bytes.

        Returns:
            Whether all of it has been read.
        """
        try:
            with recordfile.opened(self._path) as (descriptor, status):
                return self._read(descriptor, status, limit)
        except (OSError, DamagedRecordError):
            return True

    def _read(self, descriptor: int, status: os.stat_result, limit: int) -> bool:
        identity = (status.st_dev, status.st_ino)
        if identity != self._identity or status.st_size < self._offset:
            # Another file, as a backend that fetches metrics makes it; it begins like the old one, or not.
            self._restart(identity)
        end = min(status.st_size, self._offset + limit)
        while self._offset < end:
            data = os.pread(descriptor, min(_CHUNK, end - self._offset) + (1 << 12), self._offset)
            cut = data.rfind(b"\n") + 1
            if not cut:
                return True  # a line that is still being written
            self._take(data[:cut])
            self._offset += cut
        return self._offset >= status.st_size

    @property
    def summary(self) -> dict[str, MetricSummary]:
        """What there is of each metric so far."""
        return {name: series.summary(name) for name, series in self.series.items()}

    @property
    def size(self) -> int:
        """How many bytes have been read."""
        return self._offset

    def _restart(self, identity: tuple[int, int]) -> None:
        self._identity, self._offset, self.points = identity, 0, 0
        self.series = {}

    def _take(self, data: bytes) -> None:
        try:
            metrics: list[Metric] = _METRIC.decode_lines(data)
        except (msgspec.DecodeError, ValueError, RecursionError):
            metrics = []
            for line in data.split(b"\n"):
                try:
                    metrics.append(recordfile.decode(line, _METRIC, self._path))
                except DamagedRecordError:
                    continue  # the script owns this file; a line it spoiled must not hide the others
        groups: dict[str, list[Metric]] = {}
        for metric in metrics:
            try:
                groups[metric.name].append(metric)
            except KeyError:
                groups[metric.name] = [metric]
        for name, group in groups.items():
            self.series.setdefault(name, _Series()).add(group)
        self.points += len(metrics)


class Curves:
    """The metrics of many runs; those that were not asked for longest are forgotten when there are too many.

    Requests are answered by several threads, and what one of them reads another may be adding to: everything is read
    under one lock.

    Args:
        runs: The directory of all runs.
    """

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._known: OrderedDict[str, RunMetrics] = OrderedDict()
        self._lock = threading.Lock()

    def summary(self, run_id: str) -> dict[str, MetricSummary]:
        """Return what there is of each metric of a run by now."""
        with self._lock:
            return self._read(run_id)[0].summary

    def values(self, run_id: str, name: str) -> list[float]:
        """Return what a run has logged of one metric by now; NaN for what is no number."""
        with self._lock:
            series = self._read(run_id)[0].series.get(name)
            return [] if series is None else list(series.values)

    def _read(self, run_id: str, limit: int = 1 << 62) -> tuple[RunMetrics, bool]:
        """Bring a run's metrics up to date, and return whether all has been read; see :meth:`RunMetrics.read`."""
        found = self._known.setdefault(run_id, RunMetrics(self._runs / run_id))
        self._known.move_to_end(run_id)
        whole = found.read(limit)
        while len(self._known) > 1 and sum(run.points for run in self._known.values()) > _MOST_POINTS_KEPT:
            self._known.popitem(last=False)
        return found, whole

    def together(
        self,
        run_ids: Sequence[str],
        name: str,
        *,
        by_time: bool,
        points: int,
        between: tuple[float, float] | None,
        budget: int,
    ) -> dict[str, Any]:
        """Return one metric of several runs on the same axis.

        Curves of few steps are as they are. Longer ones are cut into as many equal parts as ``points`` allow, and of
        each part the smallest and the largest value are kept, in their order, so that no peak is lost.

        Args:
            run_ids: The runs.
            name: The metric.
            by_time: Along seconds since the run's first value, else along steps, or numbered where there are none.
            points: How many points a curve may have.
            between: Only this part of the axis.
            budget: Bytes to read at most before answering with what is there.

        Returns:
            ``x``, rising; ``series``, by run, as long as ``x``, None where there is no value; and ``pending``, the
            runs that have not been read whole.
        """
        found: dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = {}
        pending = []
        for run_id in run_ids:
            with self._lock:
                before = self._known[run_id].size if run_id in self._known else 0
                metrics, whole = self._read(run_id, max(budget, 0))
                budget -= metrics.size - before
                if not whole:
                    pending.append(run_id)
                if name in metrics.series:
                    found[run_id] = _clipped(_points(metrics.series[name], by_time=by_time), between)
        x, series = _joined(found, points)
        return {"x": x, "series": series, "pending": pending}


def _points(series: _Series, *, by_time: bool) -> tuple[Any, Any]:
    """Axis and values of a series, the axis rising; of two values at one place the later one counts."""
    import numpy as np

    values = np.array(series.values)
    if by_time:
        axis = np.array(series.times)
        axis = axis - axis[0]
    else:
        axis = np.array(series.steps)
        if np.isnan(axis).any():
            axis = np.arange(1, len(values) + 1, dtype=np.float64)
    if len(axis) > 1 and not (axis[1:] > axis[:-1]).all():
        # The last of equal ones: unique gives the first of the reversed.
        axis, index = np.unique(axis[::-1], return_index=True)
        values = values[::-1][index]
    return axis, values


def _clipped(curve: tuple[Any, Any], between: tuple[float, float] | None) -> tuple[Any, Any]:
    import numpy as np

    if between is None:
        return curve
    axis, values = curve
    # One more on each side, so that lines go on to the edge.
    first = max(0, int(np.searchsorted(axis, between[0])) - 1)
    last = int(np.searchsorted(axis, between[1], side="right")) + 1
    return axis[first:last], values[first:last]


def _joined(curves: dict[str, tuple[Any, Any]], points: int) -> tuple[list[float], dict[str, list[float | None]]]:
    import numpy as np

    if not curves:
        return [], {}
    longest = max(len(axis) for axis, _ in curves.values())
    joined = np.unique(np.concatenate([axis for axis, _ in curves.values()])) if longest <= RAW_POINTS else None
    if joined is None or len(joined) > max(points, RAW_POINTS):
        low = min(axis[0] for axis, _ in curves.values() if len(axis))
        high = max(axis[-1] for axis, _ in curves.values() if len(axis))
        return _parts(curves, float(low), float(high), max(points // 2, 1))
    series: dict[str, list[float | None]] = {}
    for run_id, (axis, values) in curves.items():
        placed = np.full(len(joined), np.nan)
        placed[np.searchsorted(joined, axis)] = values
        series[run_id] = _listed(placed)
    return [float(f"{place:.9g}") for place in joined], series


def _parts(
    curves: dict[str, tuple[Any, Any]], low: float, high: float, parts: int
) -> tuple[list[float], dict[str, list[float | None]]]:
    """Smallest and largest value of each of so many equal parts between ``low`` and ``high``, in their order."""
    import numpy as np

    width = (high - low) / parts or 1.0
    places = low + width * (np.arange(2 * parts) + 0.5) / 2
    series: dict[str, list[float | None]] = {}
    for run_id, (axis, values) in curves.items():
        kept = ~np.isnan(values)
        part = np.clip(((axis[kept] - low) / width).astype(np.int64), 0, parts - 1)
        values = values[kept]
        placed = np.full(2 * parts, np.nan)
        if len(values):
            starts = np.flatnonzero(np.concatenate(([True], part[1:] != part[:-1])))
            smallest, largest = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
            # A part of a curve that rises ends with its largest value.
            ends = np.concatenate((starts[1:], [len(values)])) - 1
            rising = values[ends] >= values[starts]
            at = 2 * part[starts]
            placed[at] = np.where(rising, smallest, largest)
            placed[at + 1] = np.where(rising, largest, smallest)
        series[run_id] = _listed(placed)
    return [float(f"{place:.9g}") for place in places], series


def _listed(values: Any) -> list[float | None]:  # noqa: ANN401  # an array
    return [None if value != value else float(f"{value:.6g}") for value in values.tolist()]
