"""How a run is shown while a command follows it: as plain lines, and on a terminal with a live line below them."""

from __future__ import annotations

import sys
from typing import Any, Protocol

from trainer.console.epochs import FIRST, Clock, ordered
from trainer.console.output import clean, duration, inline, log_line, note, number, print_log, shows_colours, warn
from trainer.records import Progress, RunInfo, RunStatus

_PHASES = {
    RunStatus.NOT_STARTED: "submitted",
    RunStatus.PREPARING: "preparing",
    RunStatus.QUEUED: "waiting for a node",
    RunStatus.RUNNING: "running",
    RunStatus.FINALIZING: "collecting outputs",
}


class View(Protocol):
    """What :func:`~trainer.console.follow.follow` shows a run on."""

    def phase(self, info: RunInfo) -> None:
        """Show that the status has changed."""

    def log(self, line: str) -> None:
        """Show a line that the script printed."""

    def epoch(self, step: float, metrics: dict[str, float | None], progress: Progress | None) -> None:
        """Show the metrics of a step that is complete."""

    def progress(self, info: RunInfo, progress: Progress | None, latest: dict[str, float | None]) -> None:
        """Show how far the run is; called about five times per second."""

    def warning(self, text: str) -> None:
        """Show something that the user should read."""

    def close(self) -> None:
        """End the view."""


class PlainView:
    """One line per change of status and per epoch, on standard error."""

    def __init__(self) -> None:
        self._clock = Clock()
        self._left: float | None = None

    def phase(self, info: RunInfo) -> None:
        """Print the phase, unless it is the end: the summary says that."""
        if info.status in _PHASES:
            self._line(f"{info.run_id}  {_PHASES[info.status]} ({info.backend})")

    def log(self, line: str) -> None:
        """Print the line."""
        print_log(line, sys.stderr)

    def epoch(self, step: float, metrics: dict[str, float | None], progress: Progress | None) -> None:
        """Print the epoch's metrics, the pace and the time left."""
        total = f"{progress.epochs:g}" if progress and progress.epochs >= step else ""
        count = f"{step:g}".rjust(len(total)) + (f"/{total}" if total else "")
        parts = [
            f"{'epoch' if progress else 'step'} {count}",
            *(f"{name.lower() if name in FIRST else inline(name)} {number(value)}" for name, value in ordered(metrics)),
        ]
        if progress and progress.images_per_second:
            parts.append(f"{progress.images_per_second:7,.0f} images/s")
        if self._left is not None and progress and step < progress.epochs:
            parts.append(f"{duration(self._left)} left")
        self._line("  ".join(parts))

    def progress(self, info: RunInfo, progress: Progress | None, latest: dict[str, float | None]) -> None:  # noqa: ARG002
        """Renew the estimate of the time left."""
        self._left = self._clock.left(progress, info)

    def warning(self, text: str) -> None:
        """Print it."""
        warn(text)

    def close(self) -> None:
        """Do nothing: no resource is held."""

    def _line(self, text: str) -> None:
        note(text)


class LiveView(PlainView):
    """The same lines, and below them one that moves: phase, epoch, loss, accuracy, images/s, time left."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        self._console = Console(stderr=True, highlight=False)
        self._bars = Bars(
            TextColumn("[bold]{task.description}"),
            BarColumn(24, complete_style="cyan", finished_style="cyan", pulse_style="cyan"),
            TextColumn("{task.fields[facts]}"),
            console=self._console,
            transient=True,
            auto_refresh=False,
        )
        self._task = self._bars.add_task("", total=None, facts="")
        self._bars.start()

    def log(self, line: str) -> None:
        """Print the line above the live line."""
        self._line(log_line(line, sys.stderr))

    def progress(self, info: RunInfo, progress: Progress | None, latest: dict[str, float | None]) -> None:
        """Redraw the live line."""
        super().progress(info, progress, latest)
        changes: dict[str, Any] = {"description": _PHASES.get(info.status, str(info.status)), "facts": ""}
        if progress and progress.epochs > 0 and info.status is RunStatus.RUNNING:
            changes |= {"total": progress.epochs, "completed": progress.epoch}
            changes["description"] = f"epoch {min(int(progress.epoch) + 1, progress.epochs):g}/{progress.epochs:g}"
            changes["facts"] = "  ".join(self._facts(progress, latest))
        self._bars.update(self._task, refresh=True, **changes)

    def close(self) -> None:
        """Remove the live line."""
        self._bars.stop()

    def _facts(self, progress: Progress, latest: dict[str, float | None]) -> list[str]:
        facts = []
        loss = progress.loss if progress.loss is not None else latest.get("Loss")
        if loss is not None:
            facts.append(f"loss {number(loss)}")
        if latest.get("Accuracy") is not None:
            facts.append(f"accuracy {number(latest['Accuracy'])}")
        if progress.images_per_second:
            facts.append(f"{progress.images_per_second:,.0f} images/s")
        if self._left is not None:
            facts.append(f"{duration(self._left)} left")
        return facts

    def warning(self, text: str) -> None:
        """Print the warning above the live line."""
        self._line(f"warning: {text}")

    def _line(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text.from_ansi(clean(text, colours=shows_colours(sys.stderr))), soft_wrap=True)


def make_view() -> View:
    """Return the view that fits standard error."""
    return LiveView() if sys.stderr.isatty() else PlainView()
