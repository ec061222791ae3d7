"""A study as pictures: the history of its trials, parallel coordinates, and how much each parameter matters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.errors import ConfigError, MissingExtraError, NotFoundError, UsageError
from trainer.tune.space import Parameter, Value
from trainer.tune.study import StudyDefinition, Trial, TrialState

_HEIGHT = 8
_LEVELS = 9
# So many axes have room for labels of the usual size.
_ROOMY = 5


def history_text(definition: StudyDefinition, trials: Mapping[int, Trial], width: int = 60) -> str:
    """Return the completed trials' values by number, and the best so far, as text; empty for fewer than two."""
    done = _completed(trials)
    if len(done) < 2:
        return ""
    values = [float(trial.value or 0.0) for trial in done]
    low, high = min(values), max(values)
    columns = min(width, len(done))
    rows = [[" "] * columns for _ in range(_HEIGHT)]
    best: float | None = None
    for index, value in enumerate(values):
        column = index * columns // len(values)
        best = value if best is None or definition.better(value, best) else best
        rows[_level(best, low, high)][column] = "-" if rows[_level(best, low, high)][column] == " " else "o"
        rows[_level(value, low, high)][column] = "o"
    labels = [f"{high:.4f}", *([""] * (_HEIGHT - 2)), f"{low:.4f}"]
    lines = [f"{label:>9} |{''.join(row).rstrip()}" for label, row in zip(labels, rows, strict=True)]
    return "\n".join([f"{definition.metric} by trial (o), best so far (-)", *lines])


def parallel_text(definition: StudyDefinition, trials: Mapping[int, Trial], most: int = 10) -> str:
    """Return parallel coordinates as text: a row per trial, best first, a mark on each parameter's axis."""
    done = sorted(_completed(trials), key=lambda t: float(t.value or 0.0), reverse=definition.goal == "max")[:most]
    if len(done) < 2:
        return ""
    width = max(_LEVELS, *(len(each.name) for each in definition.space))
    head = "   ".join(each.name.ljust(width) for each in definition.space)
    labels = [f"{trial.number:>4} {trial.value:.4f} " for trial in done]
    margin = max(map(len, labels))
    lines = [f"Where the best {len(done)} trials lie, from each parameter's low end to its high end"]
    lines.append(f"{'':{margin}}{head}".rstrip())
    for label, trial in zip(labels, done, strict=True):
        axes = []
        for each in definition.space:
            axis = ["·"] * _LEVELS
            axis[round(place(each, trial.values[each.name]) * (_LEVELS - 1))] = "●"
            axes.append("".join(axis).ljust(width))
        lines.append(label.rjust(margin) + "   ".join(axes).rstrip())
    return "\n".join(lines)


def place(each: Parameter, value: Value) -> float:
    """Return where a value lies on a parameter's axis, from 0 to 1; logarithmic where the parameter is."""
    listed = each.grid() if each.kind == "choice" else None
    if listed is not None:
        return listed.index(value) / max(1, len(listed) - 1) if value in listed else 0.0
    if isinstance(value, str):
        return 0.0
    low, high = each.low, each.high
    if each.kind in ("normal", "qnormal", "lognormal", "qlognormal"):
        # Three standard deviations to each side.
        low, high = each.low - 3 * each.high, each.low + 3 * each.high
        value = math.log(value) if each.kind.endswith("lognormal") and value > 0 else value
    elif each.kind in ("log", "qlog"):
        low, high, value = math.log(low), math.log(high), math.log(max(value, low))
    return min(max((value - low) / (high - low), 0.0), 1.0)


def plot(
    definition: StudyDefinition,
    trials: Mapping[int, Trial],
    path: Path,
    importances: Mapping[str, float] | None = None,
) -> None:
    """Save history and parallel coordinates as one picture, and the importances if they are given.

    Args:
        definition: The study.
        trials: Its trials.
        path: A file whose ending says how: ``.png``, ``.svg`` or ``.pdf``.
        importances: Parameter to importance.

    Raises:
        NotFoundError: No trial has a value yet.
        UsageError: The ending is none of these.
        MissingExtraError: matplotlib is not installed.
        ConfigError: The file can't be written.
    """
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise UsageError(f"{path} is not the name of a picture.", "Give a name that ends in .png, .svg or .pdf.")
    done = _completed(trials)
    if not done:
        raise NotFoundError("No trial of this study has a value yet.", "Wait for the first one to complete.")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("A picture", "plot") from error
    figure = Figure(figsize=(8, 7.5 if importances else 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3 if importances else 2, 1)
    values = [float(trial.value or 0.0) for trial in done]
    numbers = [trial.number for trial in done]
    axes[0].plot(numbers, values, "o", color="#8fa3b0", label="trial")
    axes[0].step(numbers, _running_best(definition, values), where="post", color="#b04a2f", label="best so far")
    axes[0].set_xlabel("trial")
    axes[0].set_ylabel(_short(definition.metric, 30))
    axes[0].legend(frameon=False)
    axes[0].set_title(definition.study, loc="left", fontsize=10)
    _parallel(axes[1], definition, done, values)
    if importances:
        names = list(importances)
        axes[2].barh([_plain(name) for name in names], [importances[name] for name in names], color="#8fa3b0")
        axes[2].invert_yaxis()
        axes[2].set_xlabel("importance (PED-ANOVA)")
    for axis in axes:
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise ConfigError(f"Can't write {path}: {error.strerror}.", "Choose another place.") from error


def _parallel(axis: object, definition: StudyDefinition, done: Sequence[Trial], values: Sequence[float]) -> None:
    from matplotlib import colormaps
    from matplotlib.axes import Axes

    assert isinstance(axis, Axes)
    low, high = min(values), max(values)
    colours = colormaps["viridis"]
    order = sorted(zip(values, done, strict=True), key=lambda pair: pair[0], reverse=definition.goal == "min")
    for value, trial in order:
        share = (value - low) / (high - low) if high > low else 1.0
        heights = [*(place(each, trial.values[each.name]) for each in definition.space), share]
        axis.plot(
            range(len(heights)), heights, color=colours(share if definition.goal == "max" else 1 - share), alpha=0.7
        )
    labels = [f"{_short(each.name)}\n{_ends(each)}" for each in definition.space]
    labels.append(f"{_short(definition.metric)}\n{low:.4g} to {high:.4g}")
    axis.set_xticks(range(len(labels)), labels, fontsize=10 if len(labels) <= _ROOMY else 7)
    axis.set_yticks([])
    axis.grid(axis="x", color="#dddddd")


def _ends(each: Parameter) -> str:
    if each.kind == "choice":
        text = ", ".join(map(str, each.values))
        return _plain(text) if len(text) < 24 else f"{_short(str(each.values[0]))}\nto {_short(str(each.values[-1]))}"
    return f"{each.low:.4g} to {each.high:.4g}{' (log)' if 'log' in each.kind else ''}"


def _short(text: str, most: int = 16) -> str:
    """The end of a name, which tells more than its beginning: validation/main/accuracy."""
    return _plain(text if len(text) <= most else f"…{text[1 - most :]}")


def _plain(text: str) -> str:
    """A text that matplotlib doesn't take for a formula."""
    return text.replace("$", r"\$")


def _running_best(definition: StudyDefinition, values: Sequence[float]) -> list[float]:
    found: list[float] = []
    for value in values:
        found.append(value if not found or definition.better(value, found[-1]) else found[-1])
    return found


def _completed(trials: Mapping[int, Trial]) -> list[Trial]:
    return [trial for trial in trials.values() if trial.state is TrialState.COMPLETED and trial.value is not None]


def _level(value: float, low: float, high: float) -> int:
    return _HEIGHT - 1 - (round((value - low) / (high - low) * (_HEIGHT - 1)) if high > low else 0)
