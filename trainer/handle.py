"""The handle that follows a run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.changes import Changes
from trainer.errors import DamagedRecordError, NotFoundError, UsageError
from trainer.host import elsewhere
from trainer.logreader import LogReader
from trainer.runfolder import STATUS_FILE
from trainer.trees import walk

if TYPE_CHECKING:
    from trainer.backend import Backend
    from trainer.job import TrainingJob
    from trainer.records import Metric, Progress, RunInfo, RunStatus
    from trainer.runfolder import RunFolder

# Of the time between two looks: a backend may write the record whenever it is asked.
_REST = 0.05


class Run:
    """A handle on a run: a folder here, and the backend that knows how it really stands.

    Picking a run up again after the terminal is gone is making this object again.
    """

    def __init__(self, folder: RunFolder, backend: Backend) -> None:
        self.folder = folder
        self.backend = backend

    @property
    def run_id(self) -> str:
        """The run's id, which is its folder's name."""
        return self.folder.run_id

    @property
    def job(self) -> TrainingJob:
        """What it runs."""
        return self.folder.job()

    def info(self) -> RunInfo:
        """Bring the folder up to date with the backend and return the record.

        A run on another machine that shares the folder is only read: whether its processes live is known there alone.
        """
        if not self.backend.remote:
            # Of a damaged record the backend may know more.
            with suppress(DamagedRecordError):
                info = self.folder.info()
                if elsewhere(info):
                    return info
        return self.backend.refresh(self.folder)

    def status(self) -> RunStatus:
        """Where the run stands now."""
        return self.info().status

    def metrics(self) -> list[Metric]:
        """Every value logged so far, in order."""
        return self.folder.metrics()

    def latest_metrics(self) -> dict[str, float | None]:
        """The last value of each metric."""
        return {metric.name: metric.value for metric in self.folder.metrics()}

    def progress(self) -> Progress | None:
        """How far the script is, if it says so."""
        return self.folder.progress()

    def logs(self, *, follow: bool = False, rank: int = 0, poll_seconds: float = 0.2) -> Iterator[str]:
        """The log's lines without their line ends; with ``follow``, until the run ends.

        Args:
            follow: Wait for further lines.
            rank: Whose lines, of a job of several ranks.
            poll_seconds: Seconds between looks.

        Raises:
            UsageError: The job has no such rank.
        """
        return (line for _, line in self.rank_logs([rank], follow=follow, poll_seconds=poll_seconds))

    def rank_logs(
        self, ranks: Sequence[int], *, follow: bool = False, poll_seconds: float = 0.2
    ) -> Iterator[tuple[int, str]]:
        """The lines of several ranks' logs, each with its rank; see :meth:`logs`.

        At each look come the new lines of one rank after those of another: their order in time is known only
        within a rank.

        Raises:
            UsageError: The job has no such rank.
        """
        there = self.job.ranks
        if not all(0 <= rank < there for rank in ranks):
            if there == 1:
                raise UsageError(f"Run {self.run_id} has one process.", "Leave out --rank.")
            raise UsageError(f"Run {self.run_id} has the ranks 0 to {there - 1}.", "Choose one of them, or: --rank all")
        return self._rank_logs(ranks, follow=follow, poll_seconds=poll_seconds)

    def _rank_logs(self, ranks: Sequence[int], *, follow: bool, poll_seconds: float) -> Iterator[tuple[int, str]]:
        self.backend.watch_ranks(self.folder, ranks)
        if not follow:
            self.info()  # fetches a remote run's logs
        logs = [(rank, LogReader(self.folder, rank)) for rank in ranks]
        while True:
            ended = self.status().terminal if follow else True
            for rank, log in logs:
                for line in log.lines(final=ended):
                    yield rank, line
            if ended:
                return
            time.sleep(poll_seconds)

    def files(self) -> list[str]:
        """Paths of the run's outputs, relative to ``outputs/``.

        Regular files, and links to such within the outputs; a link that leads out of them is none of them.
        """
        outputs = os.path.realpath(self.folder.outputs)
        names = []
        for entry in walk(Path(outputs)):
            if entry.is_symlink():
                inside = os.path.realpath(entry.path).startswith(outputs + os.sep)
                if not (inside and os.path.isfile(entry.path)):  # noqa: PTH113
                    continue
            elif not entry.is_file():
                continue
            names.append(entry.path[len(outputs) + 1 :])
        return sorted(names)

    def file(self, name: str) -> Path:
        """The path of one output.

        Raises:
            NotFoundError: The run has no such output.
        """
        if name not in self.files():
            raise NotFoundError(f"Run {self.run_id} has no output {name!r}.", f"See: trainer show {self.run_id}")
        return self.folder.outputs / name

    def wait(self, timeout: float | None = None, poll_seconds: float = 0.2) -> RunInfo:
        """Block until the run has ended.

        Args:
            timeout: Seconds to wait at most; None waits for ever.
            poll_seconds: Seconds between looks, at most: a change of the record is looked at sooner.

        Returns:
            The record; not terminal if the time ran out first.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with Changes(self.folder.path, STATUS_FILE) as changes:
            while True:
                info = self.info()
                if info.status.terminal or (deadline is not None and time.monotonic() >= deadline):
                    return info
                time.sleep(poll_seconds * _REST)
                changes.wait(poll_seconds * (1 - _REST))

    def cancel(self) -> None:
        """Ask for the run to stop. Does nothing to a run that has ended."""
        self.backend.cancel(self.folder)
