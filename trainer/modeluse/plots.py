"""Pictures: a confusion matrix, and learning curves. Needs matplotlib, the extra ``plot``."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import ConfigError, MissingExtraError, UsageError
from trainer.modeluse.curves import Panel, panels, panels_together
from trainer.records import Metric
from trainer.runtime.atomic import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from trainer.modeluse.evaluation import Evaluation

FORMATS = (".png", ".svg", ".pdf")
# Okabe and Ito's colours, which colour-blind readers tell apart; the curves also differ in their lines.
_STYLES = (
    ("#0072B2", "-"),
    ("#D55E00", "--"),
    ("#009E73", ":"),
    ("#CC79A7", "-."),
    ("#E69F00", "-"),
    ("#56B4E9", "--"),
    ("#000000", ":"),
    ("#8C6D31", "-."),
)
_MARKED_MAX = 40
_NUMBERED_CLASSES_MAX = 20
_TEXT_MAX = 50


def plot_confusion(evaluation: Evaluation, path: Path) -> None:
    """Draw the confusion matrix of an evaluation, true classes downwards.

    The colour is the part of the true class; the numbers are images.

    Args:
        evaluation: What :func:`trainer.modeluse.evaluate` found.
        path: The picture to write: .png, .svg or .pdf.

    Raises:
        MissingExtraError: matplotlib is not installed.
        UsageError: The path has another ending, or its directory does not exist.
        ConfigError: It can't be written.
    """
    import numpy as np

    check_picture(path)
    from matplotlib.colors import SymLogNorm

    figure = _figure(7.2, 6.6)
    axes = figure.add_subplot()
    counts = np.array(evaluation.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # On a linear scale the few errors of a good model are all the same white.
    norm = SymLogNorm(linthresh=0.01, vmin=0, vmax=1)
    image = axes.imshow(shares, cmap="Blues", norm=norm)
    classes = len(counts)
    if classes <= _NUMBERED_CLASSES_MAX:
        axes.set_xticks(range(classes))
        axes.set_yticks(range(classes))
        for row in range(classes):
            for column in range(classes):
                if counts[row, column]:
                    colour = "white" if shares[row, column] > 0.1 else "#222222"
                    axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    summary = f"accuracy {evaluation.accuracy:.4f}, loss {evaluation.loss:.4f} on {evaluation.count:,} images"
    axes.set_title(f"{_shown(evaluation.model)} on {_shown(evaluation.dataset)}\n{summary}", fontsize=11)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, ticks=[0, 0.01, 0.1, 1])
    bar.ax.set_yticklabels(["0", "1 %", "10 %", "100 %"])
    bar.set_label("part of the true class")
    bar.outline.set_visible(False)
    _save(figure, path)


def plot_curves(metrics: Sequence[Metric], path: Path, title: str = "") -> None:
    """Draw a run's learning curves.

    Args:
        metrics: As the run logged them; those with fewer than two values are left out.
        path: The picture to write: .png, .svg or .pdf.
        title: Stands above.

    Raises:
        MissingExtraError: matplotlib is not installed.
        UsageError: The path has another ending or no directory, or there is nothing to draw.
        ConfigError: It can't be written.
    """
    _plot(panels(metrics), path, title)


def plot_together(runs: Mapping[str, Sequence[Metric]], path: Path) -> None:
    """Draw the learning curves of several runs, one set of axes for each metric.

    Args:
        runs: What each run logged, by what it is called.
        path: The picture to write; errors as :func:`plot_curves`.
    """
    _plot(panels_together(runs, most=len(_STYLES)), path, "")


def _plot(found: Sequence[Panel], path: Path, title: str) -> None:
    check_picture(path)
    if not found:
        raise UsageError("There are no learning curves: no metric has two values yet.", "Let it train two epochs.")
    across = min(len(found), 2)
    down = -(-len(found) // across)
    figure = _figure(5.2 * across + 0.4, 3.6 * down + (0.4 if title else 0))
    if title:
        figure.suptitle(_shown(title), fontsize=11)
    for index, panel in enumerate(found, 1):
        _draw(figure.add_subplot(down, across, index), panel)
    _save(figure, path)


def _draw(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    for series, (colour, line) in zip(panel.series, _STYLES, strict=False):
        values = [float("nan") if value is None else value for value in series.values]
        marker = "o" if len(values) <= _MARKED_MAX else ""
        label = f"{_shown(series.name)}: {series.last:.4g}"
        axes.plot(series.steps, values, color=colour, linestyle=line, marker=marker, markersize=3.5, label=label)
    axes.set_xlabel(panel.step_label)
    heading = panel.heading or (panel.series[0].name if len(panel.series) == 1 else "")
    axes.set_ylabel(_shown(heading) if heading else "loss, nats" * _is_loss(panel))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.02)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)


def _is_loss(panel: Panel) -> bool:
    return all("loss" in series.name.lower() for series in panel.series)


def _shown(text: str) -> str:
    """Text of a length for a title, that matplotlib must not take for mathematics."""
    return (text if len(text) <= _TEXT_MAX else f"...{text[3 - _TEXT_MAX :]}").replace("$", r"\$")


def check_picture(path: Path) -> None:
    """Find out whether a picture can be written to ``path`` before the work that it shows is done; errors as above."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Drawing a picture", "plot") from error
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path} does not end in .png, .svg or .pdf.", "Name the picture so: --plot picture.png")
    if not path.parent.is_dir() or path.is_dir():
        raise UsageError(f"The directory {path.parent} does not exist.", "Make it first.")


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    # A Figure of its own, without pyplot: no window system is looked for and nothing global is touched.
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _save(figure: Figure, path: Path) -> None:
    stream = io.BytesIO()
    figure.savefig(stream, format=path.suffix[1:].lower(), dpi=150, bbox_inches="tight", pad_inches=0.15)
    try:
        write_bytes(path, stream.getvalue())
    except OSError as error:
        raise ConfigError(f"Can't write {path}: {error.strerror}.", "Choose a writable place.") from error
