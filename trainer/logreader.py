"""Follows the log of a run."""

from __future__ import annotations

from trainer.runfolder import RunFolder


class LogReader:
    """Reads a run's log as it grows, line by line.

    Args:
        folder: The run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._offset = 0
        self._pending = b""

    def lines(self, *, final: bool) -> list[str]:
        """Return the lines that were completed since the last call, without their line ends.

        Args:
            final: Nothing more is written: return a last line that has no line end, too.
        """
        chunk = self._folder.read_log(self._offset)
        self._offset += len(chunk)
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        if final and self._pending:
            lines.append(self._pending)
            self._pending = b""
        return [line.decode("utf-8", "replace") for line in lines]
