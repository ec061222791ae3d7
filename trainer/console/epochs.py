"""Group logged metrics by epoch, and estimate the time left."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from trainer.console.output import inline, number
from trainer.history import parameters
from trainer.records import Metric, Progress

Step = tuple[float, dict[str, float | None]]

# Shown first, and counted as epochs from their first value on.
FIRST = ("Loss", "Accuracy", "Validation loss")
_TOTAL = "Epochs"
_MOST = 8
# What the bundled script, and trainer.runtime.recording, call them: which loss it is, and which accuracy.
_SAID = {
    "Loss": ("train", "loss"),
    "Training accuracy": ("train", "accuracy"),
    "Validation loss": ("test", "loss"),
    "Accuracy": ("test", "accuracy"),
}
# The options that scripts call it, Chainer's examples "--epoch" and "-e".
_EPOCHS = re.compile(r"e|((n|num|number|max|total)[_-]?(of[_-]?)?)?epochs?", re.IGNORECASE)
_COUNT = re.compile(r"[1-9][0-9]{0,8}")
_RECENT = 30.0
_APART = 0.5
_LEAST = 1.0


class Epochs:
    """Group metrics by step, and hand out each step once it is complete.

    Azure ML keeps no steps: the k-th value that a script logs under a name is step k, and a name with
    a single value, such as ``Batch size``, is not a series. A script logs an epoch's metrics one after the
    other, and a look may fall between two of them: a step is complete when a later one has begun,
    when nothing has changed between two looks, or at the end.

    Args:
        arguments: The script's command line, which may say how many epochs there will be.
    """

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        self._asked = asked_epochs(arguments)
        self.latest: dict[str, float | None] = {}
        self._counts: dict[str, int] = {}
        self._first: dict[str, Metric] = {}
        self._steps: dict[float, dict[str, float | None]] = {}
        self._seen = 0
        self._attempt = 1
        self._shown = float("-inf")
        self._time = 0.0
        self._times: dict[float, float] = {}

    def add(self, metrics: Sequence[Metric], *, ended: bool) -> list[Step]:
        """Take all metrics logged so far, and return the steps that have become complete.

        Args:
            metrics: Every metric of the run; those of earlier calls are skipped.
            ended: Whether no more will come.
        """
        attempt = metrics[-1].attempt if metrics else self._attempt
        if len(metrics) < self._seen or attempt != self._attempt:
            # The job was started again: what it will log anew has been taken out.
            self._attempt, self._seen = attempt, 0
            self._counts, self._first, self._steps, self._times = {}, {}, {}, {}
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
        """Return how far the script is: what it reports, else what its metrics and its command line show."""
        if reported is not None or not self._steps:
            return reported
        done, total = max(self._steps), self.latest.get(_TOTAL)
        # A script that counts updates soon has more of them than it was asked for epochs.
        total = total or (self._asked if self._asked is not None and done <= self._asked else None)
        return Progress(epoch=min(done, total), epochs=total, time=self._time) if total else None

    def seconds(self, step: float) -> float | None:
        """Return how long a step took, from the last value of the step before; None for the first."""
        before = max((other for other in self._times if other < step), default=None)
        took = self._times[step] - self._times[before] if before is not None and step in self._times else 0.0
        return took if took > 0 else None

    def _place(self, metric: Metric) -> None:
        name = metric.name
        count = self._counts[name] = self._counts.get(name, 0) + 1
        if metric.step is not None:
            self._put(metric.step, name, metric)
        elif count > 1 or name in FIRST:
            if count == 2 and name not in FIRST:
                self._put(1, name, self._first[name])
            self._put(count, name, metric)
        self._first.setdefault(name, metric)
        self.latest[name] = metric.value
        self._time = metric.time

    def _put(self, step: float, name: str, metric: Metric) -> None:
        self._steps.setdefault(step, {})[name] = metric.value
        self._times[step] = max(metric.time, self._times.get(step, 0.0))


class Clock:
    """Estimate the time left from the pace of the epochs themselves.

    The clock starts with the first progress that a script reports, so neither its imports nor its data count. The
    pace is that of the last epoch, or of the last half minute where an epoch is shorter.
    """

    def __init__(self) -> None:
        self._points: list[tuple[float, float]] = []

    def left(self, progress: Progress | None) -> float | None:
        """Return the seconds left, or None while there is no estimate."""
        if progress is None or progress.epochs <= 0 or progress.time <= 0:
            return None
        point = (progress.time, progress.epoch)
        if self._points and point[1] < self._points[-1][1]:
            self._points.clear()  # a preempted job began again
        if not self._points or point[1] > self._points[-1][1]:
            if len(self._points) > 1 and point[0] - self._points[-2][0] < _APART:
                self._points.pop()
            self._points.append(point)
        now, after = self._points[-1]
        while len(self._points) > 2 and now - self._points[1][0] >= _RECENT and after - self._points[1][1] >= 1:
            del self._points[0]
        then, before = self._points[0]
        if progress.epoch >= progress.epochs:
            return 0.0
        if after <= before or now - then < _LEAST:
            return None
        return max(0.0, (progress.epochs - progress.epoch) * (now - then) / (after - before))


def asked_epochs(arguments: Sequence[str]) -> float | None:
    """Return how many epochs a command line asks for, as ``--epoch 20`` does; None if it does not say."""
    for name, value in parameters(arguments).items():
        if _EPOCHS.fullmatch(name) and _COUNT.fullmatch(value):
            return float(value)
    return None


def ordered(metrics: dict[str, float | None]) -> list[tuple[str, float | None]]:
    """Return metrics in the order in which they are shown, and no more than fit a line."""
    names = [name for name in FIRST if name in metrics] + [name for name in metrics if name not in FIRST]
    return [(name, metrics[name]) for name in names[:_MOST]]


def said(metrics: Mapping[str, float | None]) -> list[str]:
    """Return metrics as words, those of training and of testing together.

    ``train loss 0.2102 accuracy 0.8605``, ``test loss 0.2320 accuracy 0.9312``, then any others.
    """
    groups: dict[str, list[str]] = {}
    for name, (group, word) in _SAID.items():
        if name in metrics:
            groups.setdefault(group, []).append(f"{word} {number(metrics[name])}")
    known = [f"{group} {' '.join(words)}" for group, words in groups.items()]
    others = [(name, value) for name, value in ordered(dict(metrics)) if name not in _SAID]
    return known + [f"{inline(name)} {number(value)}" for name, value in others]
