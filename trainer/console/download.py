"""Show work on data: a bar on a terminal, elsewhere a line at its end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from trainer.console.output import clean, note, size

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


class DownloadProgress:
    """Implements :class:`trainer.data.ProgressDisplay` on standard error."""

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._what = ""
        self._done = 0

    def say(self, message: str) -> None:
        """Show a line."""
        if self._bars is not None:
            self._bars.console.print(clean(message), markup=False, highlight=False, soft_wrap=True)
        else:
            note(message)

    def start(self, what: str, total: int | None) -> None:
        """Begin a bar of ``total`` bytes."""
        self.finish()
        self._what, self._done = what, 0
        if not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(24),
            DownloadColumn(),
            TimeRemainingColumn(),
        )
        self._bars = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bars.add_task(clean(what), total=total)
        self._bars.start()

    def advance(self, size: int) -> None:
        """Move the bar on by ``size`` bytes."""
        self._done += size
        if self._bars is not None and self._task is not None:
            self._bars.advance(self._task, size)

    def finish(self) -> None:
        """End the bar, and say how much there was."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = self._task = None
        if self._what and self._done:
            note(f"{self._what}: {size(self._done)}")
        self._what, self._done = "", 0
