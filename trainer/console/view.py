"""How a run is shown while a command follows it: as plain lines, and on a terminal with a live line below them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

from trainer.console.epochs import Clock, said
from trainer.console.output import (
    clean,
    duration,
    log_line,
    note,
    number,
    print_log,
    shows_colours,
    warn,
    width,
    wrapped,
)
from trainer.records import Progress, RunInfo, RunStatus

if TYPE_CHECKING:
    from rich.table import Column

_PHASES = {
    RunStatus.NOT_STARTED: "submitted",
    RunStatus.PREPARING: "preparing",
    RunStatus.QUEUED: "waiting for a node",
    RunStatus.RUNNING: "running",
    RunStatus.FINALIZING: "collecting outputs",
}

# Columns of the bar: what is left of 80 is enough for an epoch, loss, accuracy and the time left.
_BAR = 14


class View(Protocol):
    """What :func:`~trainer.console.follow.follow` shows a run on."""

    def phase(self, info: RunInfo) -> None:
        """Show that the status has changed."""

    def log(self, line: str) -> None:
        """Show a line that the script printed."""

    def epoch(
        self, step: float, metrics: dict[str, float | None], progress: Progress | None, seconds: float | None
    ) -> None:
        """Show the metrics of a step that is complete, and how long it took."""

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

    def epoch(
        self, step: float, metrics: dict[str, float | None], progress: Progress | None, seconds: float | None
    ) -> None:
        """Print the epoch's own numbers; what does not fit a line of the terminal is left out from the end."""
        total = f"{progress.epochs:g}" if progress and progress.epochs >= step else ""
        count = f"{step:.4g}".rjust(len(total)) + (f"/{total}" if total else "")
        parts = [f"{'epoch' if progress else 'step'} {count}", *said(metrics)]
        took = [] if seconds is None else [f"{seconds:.1f} s" if seconds < 10 else duration(seconds)]
        room = width(sys.stderr)
        while len(parts) > 2 and room is not None and len("  ".join(parts)) > room:
            parts.pop()
        if room is None or len("  ".join(parts + took)) <= room:
            parts += took
        self._line("  ".join(parts))

    def progress(self, info: RunInfo, progress: Progress | None, latest: dict[str, float | None]) -> None:  # noqa: ARG002
        """Renew the estimate of the time left."""
        self._left = self._clock.left(progress) if info.status is RunStatus.RUNNING else None

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
            BarColumn(_BAR, complete_style="cyan", finished_style="cyan", pulse_style="cyan"),
            TextColumn("{task.fields[facts]}", table_column=_whole()),
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
            room = self._console.width - len(changes["description"]) - _BAR - 3
            changes["facts"] = self._facts(progress, latest, room)
        self._bars.update(self._task, refresh=True, **changes)

    def close(self) -> None:
        """Remove the live line."""
        self._bars.stop()

    def _facts(self, progress: Progress, latest: dict[str, float | None], room: int) -> str:
        """The latest numbers, those that matter most if not all fit."""
        found: dict[str, str] = {}
        if progress.loss is not None:
            found["loss"] = f"batch loss {number(progress.loss)}"
        elif latest.get("Loss") is not None:
            found["loss"] = f"train loss {number(latest['Loss'])}"
        if latest.get("Accuracy") is not None:
            found["accuracy"] = f"test accuracy {number(latest['Accuracy'])}"
        if progress.images_per_second:
            found["speed"] = f"{progress.images_per_second:,.0f} images/s"
        if self._left is not None:
            found["left"] = f"{duration(self._left)} left"
        for name in ("speed", "accuracy", "loss", "left"):
            if len("  ".join(found.values())) <= room:
                break
            found.pop(name, None)
        return "  ".join(found.values())

    def warning(self, text: str) -> None:
        """Print the warning above the live line."""
        self._line(wrapped(f"warning: {text}", width(sys.stderr)))

    def _line(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text.from_ansi(clean(text, colours=shows_colours(sys.stderr))), soft_wrap=True)


def _whole() -> Column:
    from rich.table import Column

    return Column(no_wrap=True)


def make_view() -> View:
    """Return the view that fits standard error."""
    return LiveView() if sys.stderr.isatty() else PlainView()
