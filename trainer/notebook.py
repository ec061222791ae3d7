"""Learning curves in a notebook's cell, live while a run is under way. Nothing more to install.

::

    from trainer import notebook

    notebook.curves("latest")            # as the last expression of a cell: a picture of what there is now
    notebook.watch("latest", "baseline")  # drawn again every second until the runs have ended
"""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainer.home import find_home
from trainer.labels import user_labels
from trainer.listing import open_run
from trainer.modeluse.curves import Panel, number, panels_together, ticks

if TYPE_CHECKING:
    from trainer import api
    from trainer.handle import Run

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_WIDTH, _HEIGHT = 380, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 24, 34
_MOST_POINTS = 400


class Curves:
    """The curves of some runs, drawn anew whenever they are shown.

    Args:
        runs: At least one.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = tuple(runs)

    @property
    def ended(self) -> bool:
        """Whether every run has ended. Brings them up to date."""
        return all(status.terminal for status in [run.status() for run in self.runs])

    def _repr_html_(self) -> str:
        """Return one picture (SVG) for each metric, and the runs' statuses above; what IPython calls."""
        infos = {run.run_id: run.info() for run in self.runs}
        labels = {run.run_id: user_labels(run.folder.path).name or run.run_id[9:] for run in self.runs}
        head = " &nbsp; ".join(
            f'<span style="color:{_colour(index)}">&#9632;</span> {html.escape(labels[run_id])} '
            f"{html.escape(str(info.status))}"
            for index, (run_id, info) in enumerate(infos.items())
        )
        found = panels_together({labels[run.run_id]: run.metrics() for run in self.runs}, most=len(self.runs))
        order = list(labels.values())
        pictures = "".join(_picture(panel, order) for panel in found) or "<p>No metric has two values yet.</p>"
        return f'<div><div>{head}</div><div style="display:flex;flex-wrap:wrap">{pictures}</div></div>'

    def __repr__(self) -> str:
        return f"Curves({', '.join(run.run_id for run in self.runs)})"


def curves(*references: str | api.Run) -> Curves:
    """Return the curves of one or several runs of this project.

    Args:
        *references: Runs, as ``trainer.run`` returns them; or run ids, unambiguous beginnings or ends of them, names,
            or ``latest``. ``latest`` if none is given.

    Raises:
        NotFoundError: No run fits.
        UsageError: More than one fits.
    """
    home = find_home()
    named = [each if isinstance(each, str) else each.id for each in references or ("latest",)]
    return Curves([open_run(home, reference) for reference in named])


def watch(*references: str | api.Run, seconds: float = 1.0) -> None:
    """Show the curves of runs in the cell and draw them again until the runs have ended, or the cell is interrupted.

    Args:
        *references: As for :func:`curves`.
        seconds: Between two pictures.

    Raises:
        NotFoundError, UsageError: As for :func:`curves`.
        RuntimeError: This is no notebook.
    """
    try:
        from IPython.display import display
    except ImportError as error:
        raise RuntimeError("trainer.notebook.watch draws in a notebook; elsewhere: trainer attach RUN") from error
    shown = curves(*references)
    handle = display(shown, display_id=True)
    while not shown.ended:
        time.sleep(seconds)
        if handle is not None:
            handle.update(shown)
    if handle is not None:
        handle.update(shown)


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _picture(panel: Panel, order: list[str]) -> str:
    (first, last), (low, high) = panel.step_range(), panel.value_range()
    across, down = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(step: float) -> float:
        return _LEFT + across * ((step - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        return _TOP + down * (high - value) / (high - low)

    marks = [f'<text x="{_LEFT}" y="14" font-weight="bold">{html.escape(panel.heading)}</text>']
    for step in ticks(first, last, 6):
        marks.append(f'<text x="{x(step):.1f}" y="{_TOP + down + 15}" text-anchor="middle">{step:g}</text>')
    for value in (low, (low + high) / 2, high):
        label = html.escape(number(value, high - low))
        marks.append(f'<text x="{_LEFT - 5}" y="{y(value) + 4:.1f}" text-anchor="end">{label}</text>')
        marks.append(
            f'<path d="M{_LEFT} {y(value):.1f}h{across}" stroke="currentColor" stroke-opacity=".2" fill="none"/>'
        )
    marks.append(f'<text x="{_LEFT + across}" y="{_HEIGHT - 4}" text-anchor="end">{panel.step_label}</text>')
    said = []
    for series in panel.series:
        stride = max(1, len(series.steps) // _MOST_POINTS)
        points = [
            (step, value)
            for at, (step, value) in enumerate(zip(series.steps, series.values, strict=True))
            if value is not None and (at % stride == 0 or at == len(series.steps) - 1)
        ]
        line = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)
        colour = _colour(order.index(series.name))
        marks.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        said.append(f"{series.name} {series.last:.4g}")
    title = html.escape(f"{panel.heading}: {', '.join(said)}")
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'style="font:11px sans-serif;fill:currentColor"><title>{title}</title>{"".join(marks)}</svg>'
    )
