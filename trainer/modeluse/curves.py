"""Learning curves: which metrics of a run are curves, which curves share axes, and how they are drawn as text.

Our own hundred lines: plotext, which draws such curves, changed its whole interface in version 6 and takes a
quarter of a second to import.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.records import Metric

PANELS_MAX = 6
SERIES_MAX = 3
_NAME_MAX = 40
# Of one kind and one scale, so worth comparing on one set of axes.
_KINDS = ("accuracy", "loss")
# A braille letter is 2 x 4 dots; the bit of each, by row and column (Unicode 17.0, chapter 21.1).
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BRAILLE = 0x2800
# Which of each four columns of dots a curve is drawn in: whole, dashed, dotted.
_PATTERNS = ((True, True, True, True), (True, True, False, False), (True, False, False, False))
_SAMPLES = ("⠤⠤⠤⠤", "⠤ ⠤ ", "⠄⠄⠄⠄")
_WIDTH_MIN = 40


@dataclass(frozen=True)
class Series:
    """One metric over the course of a run.

    Attributes:
        name: The metric's name, printable and not too long.
        steps: Rising.
        values: One per step; None where the metric was not finite.
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
        heading: What all curves show, where they are of several runs.
    """

    series: tuple[Series, ...]
    step_label: str
    heading: str = ""

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
            # Beside the largest float there is no room on one side.
            low, high = max(low - margin, -sys.float_info.max), min(high + margin, sys.float_info.max)
        return low, high


def panels(metrics: Sequence[Metric]) -> list[Panel]:
    """Return the curves of a run, grouped.

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


def panels_together(runs: Mapping[str, Sequence[Metric]], most: int = SERIES_MAX) -> list[Panel]:
    """Return the curves of several runs, one set of axes for each metric.

    Args:
        runs: What each run logged, by what it is called.
        most: Curves on one set of axes; more runs are drawn on further ones.

    Returns:
        At most ``PANELS_MAX`` panels for each group of ``most`` runs, the metrics in the order they first appeared.
    """
    grouped: dict[tuple[str, str], list[Series]] = {}
    for label, metrics in runs.items():
        for panel in panels(metrics):
            for series in panel.series:
                named = Series(label, series.steps, series.values)
                grouped.setdefault((series.name, panel.step_label), []).append(named)
    return [
        Panel(tuple(found[start : start + most]), label, heading=name)
        for (name, label), found in list(grouped.items())[:PANELS_MAX]
        for start in range(0, len(found), most)
    ]


def curves_together(runs: Mapping[str, Sequence[Metric]], width: int = 80, height: int = 8) -> str:
    """Draw the curves of several runs, metric by metric; as :func:`curves_text` does for one run."""
    found = panels_together(runs)
    drawn = [[panel.heading, *_draw(panel, max(width, _WIDTH_MIN), max(height, 3))] for panel in found]
    return "\n\n".join("\n".join(line.rstrip() for line in lines) for lines in drawn)


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
    """Return a value in as many digits as tell apart three values over ``span``."""
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.3g}"
    decimals = max(0, min(6, 2 - math.floor(math.log10(span)))) if 0 < span < math.inf else 0
    return f"{value:.{decimals}f}"


def curves_text(metrics: Sequence[Metric], width: int = 80, height: int = 8) -> str:
    """Draw every metric that has at least two values.

    Args:
        metrics: As a run logged them.
        width: Columns to use, at least 40.
        height: Lines of each set of axes, without its title and its steps.

    Returns:
        Lines of at most ``width`` columns without trailing blanks; empty if there is no curve.
    """
    drawn = [_draw(panel, max(width, _WIDTH_MIN), max(height, 3)) for panel in panels(metrics)]
    return "\n\n".join("\n".join(line.rstrip() for line in lines) for lines in drawn)


def _draw(panel: Panel, width: int, height: int) -> list[str]:
    low, high = panel.value_range()
    middle = low / 2 + high / 2
    labels = {0: number(high, high - low), height // 2: number(middle, high - low), height - 1: number(low, high - low)}
    margin = max(map(len, labels.values()))
    ends = _end_labels(panel, height)
    columns = width - margin - 2 - max(map(len, (panel.step_label, *ends.values()))) - 1
    canvas = [[0] * columns for _ in range(height)]
    for series, pattern in zip(panel.series, _PATTERNS, strict=False):
        _trace(canvas, series, pattern, panel)
    lines = [" " * (margin + 2) + _legend(panel, width - margin - 2)]
    for row, cells in enumerate(canvas):
        axis = "┤" if row in labels else "│"
        text = "".join(chr(_BRAILLE + cell) if cell else " " for cell in cells)
        lines.append(f"{labels.get(row, ''):>{margin}} {axis}{text} {ends.get(row, '')}")
    return lines + _step_axis(panel, margin, columns)


def _legend(panel: Panel, width: int) -> str:
    if len(panel.series) == 1:
        return panel.title[:width]
    room = width // len(panel.series) - 7
    pairs = zip(_SAMPLES, panel.series, strict=False)
    return "   ".join(f"{sample} {series.name[:room]}" for sample, series in pairs)


def _end_labels(panel: Panel, height: int) -> dict[int, str]:
    """The last value of each curve, by line: beside its end, or as near as the others allow, the largest on top."""
    low, high = panel.value_range()
    lasts = sorted((series.last for series in panel.series), reverse=True)
    lines: list[int] = []
    for value in lasts:
        line = _dot(value, low, high, 4 * height) // 4
        lines.append(max(line, lines[-1] + 1) if lines else line)
    room = range(height - len(lasts), height)
    return {min(line, lowest): f"{value:.4g}" for line, lowest, value in zip(lines, room, lasts, strict=True)}


def _trace(canvas: list[list[int]], series: Series, pattern: tuple[bool, ...], panel: Panel) -> None:
    """Draw straight lines between the points of a curve; a value that is not finite interrupts it."""
    (first, last), (low, high) = panel.step_range(), panel.value_range()
    across, down = 2 * len(canvas[0]), 4 * len(canvas)
    before: tuple[int, int] | None = None
    for step, value in zip(series.steps, series.values, strict=True):
        if value is None:
            before = None
            continue
        x, y = across - 1 - _dot(step, first, last, across), _dot(value, low, high, down)
        x0, y0 = before or (x, y)
        length = max(abs(x - x0), abs(y - y0), 1)
        for part in range(length + 1):
            column, line = x0 + round((x - x0) * part / length), y0 + round((y - y0) * part / length)
            if pattern[column % len(pattern)]:
                canvas[line // 4][column // 2] |= _DOTS[line % 4][column % 2]
        before = (x, y)


def _dot(value: float, low: float, high: float, dots: int) -> int:
    """Which of so many dots a value falls on, counted from the high end."""
    # Halved, because the difference of the two largest floats is not a float.
    part = (value / 2 - low / 2) / (high / 2 - low / 2) if high > low else 0.0
    return dots - 1 - min(dots - 1, max(0, round(part * (dots - 1))))


def _step_axis(panel: Panel, margin: int, columns: int) -> list[str]:
    first, last = panel.step_range()
    axis, labels = ["─"] * columns, [" "] * columns
    found = ticks(first, last, columns // 6)
    for tick in (found[0], found[-1], *found[1:-1]):
        column = columns - 1 - _dot(tick, first, last, columns)
        text = f"{tick:g}"
        start = min(max(column - len(text) // 2, 0), columns - len(text))
        if not "".join(labels[max(start - 1, 0) : start + len(text) + 1]).strip():
            axis[column] = "┬"
            labels[start : start + len(text)] = text
    pad = " " * (margin + 2)
    return [f"{' ' * margin} └{''.join(axis)}", f"{pad}{''.join(labels)} {panel.step_label}"]
