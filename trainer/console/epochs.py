"""Group logged metrics by epoch, and estimate the time left."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.records import Metric, Progress, RunInfo

Step = tuple[float, dict[str, float | None]]

# Shown first, and counted as epochs from their first value on.
FIRST = ("Loss", "Accuracy", "Validation loss")
_TOTAL = "Epochs"
_MOST = 8


class Epochs:
    """Group metrics by step, and hand out each step once it is complete.

    Azure ML keeps no steps: the k-th value that a script logs under a name is step k, and a name with
    a single value, such as ``Batch size``, is not a series. A script logs an epoch's metrics one after the
    other, and a look may fall between two of them: a step is complete when a later one has begun,
    when nothing has changed between two looks, or at the end.
    """

    def __init__(self) -> None:
        self.latest: dict[str, float | None] = {}
        self._counts: dict[str, int] = {}
        self._steps: dict[float, dict[str, float | None]] = {}
        self._seen = 0
        self._shown = float("-inf")
        self._time = 0.0

    def add(self, metrics: Sequence[Metric], *, ended: bool) -> list[Step]:
        """Take all metrics logged so far, and return the steps that have become complete.

        Args:
            metrics: Every metric of the run; those of earlier calls are skipped.
            ended: Whether no more will come.
        """
        for metric in metrics[self._seen :]:
            self._place(metric)
        unchanged = self._seen == len(metrics)
        self._seen = len(metrics)
        waiting = sorted(step for step in self._steps if step > self._shown)
        if waiting and not (ended or unchanged):
            waiting.pop()
        if waiting:
            self._shown = waiting[-1]
        return [(step, self._steps[step]) for step in waiting]

    def progress(self, reported: Progress | None) -> Progress | None:
        """Return how far the script is: what it reports, else what its metrics show."""
        total = self.latest.get(_TOTAL)
        if reported is not None or not total or not self._steps:
            return reported
        return Progress(epoch=min(max(self._steps), total), epochs=total, time=self._time)

    def _place(self, metric: Metric) -> None:
        name = metric.name
        count = self._counts[name] = self._counts.get(name, 0) + 1
        if metric.step is not None:
            self._put(metric.step, name, metric.value)
        elif count > 1 or name in FIRST:
            if count == 2 and name not in FIRST:
                self._put(1, name, self.latest[name])
            self._put(count, name, metric.value)
        self.latest[name] = metric.value
        self._time = metric.time

    def _put(self, step: float, name: str, value: float | None) -> None:
        self._steps.setdefault(step, {})[name] = value


class Clock:
    """Estimate the time left from how far a script says it is."""

    def __init__(self) -> None:
        self._points: list[tuple[float, float]] = []

    def left(self, progress: Progress | None, info: RunInfo) -> float | None:
        """Return the seconds left, or None while there is no estimate."""
        if progress is None or progress.epochs <= 0 or progress.time <= 0:
            return None
        point = (progress.time, progress.epoch)
        if not self._points and info.started is not None and progress.epoch > 0:
            self._points.append((info.started, 0.0))
        if not self._points or self._points[-1] != point:
            self._points.append(point)
            # The first interval includes the imports; later the recent pace is a better estimate.
            del self._points[: max(0, len(self._points) - 40)]
        (then, before), (now, after) = self._points[0], self._points[-1]
        if after <= before or now <= then:
            return None
        return max(0.0, (progress.epochs - progress.epoch) * (now - then) / (after - before))


def ordered(metrics: dict[str, float | None]) -> list[tuple[str, float | None]]:
    """Return metrics in the order in which they are shown, and no more than fit a line."""
    names = [name for name in FIRST if name in metrics] + [name for name in metrics if name not in FIRST]
    return [(name, metrics[name]) for name in names[:_MOST]]
