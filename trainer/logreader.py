"""Follows the log of a run."""

from __future__ import annotations

from trainer.runfolder import RunFolder


class LogReader:
    """Reads a run's log as it grows, line by line.

    Args:
        folder: The run.
        rank: Whose log, of a job of several ranks.
    """

    def __init__(self, folder: RunFolder, rank: int = 0) -> None:
        self._folder = folder
        self._rank = rank
        self._offset = 0
        self._pending = b""

    def lines(self, *, final: bool) -> list[str]:
        """Return the lines that were completed since the last call, without their line ends.

        Args:
            final: Nothing more is written: return a last line that has no line end, too.
        """
        chunk = self._folder.read_log(self._offset, self._rank)
        self._offset += len(chunk)
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        if final and self._pending:
            lines.append(self._pending)
            self._pending = b""
        return [line.decode("utf-8", "replace") for line in lines]
