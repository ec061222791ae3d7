"""What of a run's metrics is a curve, and which curves belong on one set of axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.records import Metric

PANELS_MAX = 6
SERIES_MAX = 3
_NAME_MAX = 40
# Of one kind and one scale, so worth comparing on one set of axes.
_KINDS = ("accuracy", "loss")


@dataclass(frozen=True)
class Series:
    """One metric over the course of a run.

    Attributes:
        name: The metric's name, printable and not too long.
        steps: Rising.
        values: One a step; None where the metric was not finite.
    """

    name: str
    steps: tuple[float, ...]
    values: tuple[float | None, ...]

    @property
    def last(self) -> float:
        """The last finite value."""
        return next(value for value in reversed(self.values) if value is not None)


@dataclass(frozen=True)
class Panel:
    """Curves on one set of axes.

    Attributes:
        series: At least one.
        step_label: What the steps count.
    """

    series: tuple[Series, ...]
    step_label: str

    @property
    def title(self) -> str:
        """The names of its curves."""
        return ", ".join(series.name for series in self.series)

    def step_range(self) -> tuple[float, float]:
        """First and last step of all curves."""
        return min(series.steps[0] for series in self.series), max(series.steps[-1] for series in self.series)

    def value_range(self) -> tuple[float, float]:
        """Smallest and largest value of all curves; they differ."""
        values = [value for series in self.series for value in series.values if value is not None]
        low, high = min(values), max(values)
        if low == high:
            margin = abs(low) * 0.05 or 0.5
            low, high = low - margin, high + margin
        return low, high


def panels(metrics: Sequence[Metric]) -> list[Panel]:
    """The curves of a run, grouped.

    A metric is a curve if it has two finite values. Accuracies share axes, and so do losses; anything else has
    axes of its own. Steps are epochs if every value has one, else values are counted. A step logged again, as by a
    resumed run, counts with its later value.

    Args:
        metrics: In the order they were logged.

    Returns:
        At most ``PANELS_MAX`` panels of at most ``SERIES_MAX`` curves, in the order the metrics first appeared.
    """
    logged: dict[str, list[Metric]] = {}
    for metric in metrics:
        logged.setdefault(metric.name, []).append(metric)
    grouped: dict[tuple[str, str], list[Series]] = {}
    for name, values in logged.items():
        counted = any(metric.step is None or not math.isfinite(metric.step) for metric in values)
        points = {
            float(number if counted or metric.step is None else metric.step): metric.value
            for number, metric in enumerate(values, 1)
        }
        if sum(value is not None for value in points.values()) < 2:
            continue
        steps = sorted(points)
        shown = "".join(letter if letter.isprintable() else "?" for letter in name[:_NAME_MAX])
        kind = next((kind for kind in _KINDS if kind in name.lower()), name)
        label = "value" if counted else "epoch"
        series = Series(shown, tuple(steps), tuple(points[step] for step in steps))
        grouped.setdefault((kind, label), []).append(series)
    split = [
        Panel(tuple(found[start : start + SERIES_MAX]), label)
        for (_, label), found in grouped.items()
        for start in range(0, len(found), SERIES_MAX)
    ]
    return split[:PANELS_MAX]


def ticks(low: float, high: float, most: int) -> list[float]:
    """Whole, round steps from ``low`` to ``high``: at most ``most``, and the first and the last among them."""
    first, last = math.ceil(low), math.floor(high)
    if last <= first or most < 2:
        return [low, high]
    stride, choices = 1, (2, 5, 10)
    while (last - first) / stride + 1 > most:
        power = 10 ** (len(str(stride)) - 1)
        stride = next(choice * power for choice in choices if choice * power > stride)
    inner = [step for step in range(first + 1, last) if step % stride == 0] if last - first < 100_000 else []
    apart = stride / 2
    return [first, *(step for step in inner if step - first >= apart and last - step >= apart), last]


def number(value: float, span: float) -> str:
    """A value in as many digits as tell apart three values over ``span``."""
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.3g}"
    decimals = max(0, min(6, 2 - math.floor(math.log10(span)))) if 0 < span < math.inf else 0
    return f"{value:.{decimals}f}"
