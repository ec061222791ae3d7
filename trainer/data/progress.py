"""How long work on data is shown. The console implements it; nothing here draws."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Where the words and the progress bar of a download go."""

    def say(self, message: str) -> None:
        """Show one line."""

    def start(self, what: str, total: int | None) -> None:
        """Begin a bar of ``total`` bytes (None: unknown); the last one, if any, has ended."""

    def advance(self, size: int) -> None:
        """``size`` more bytes are there."""

    def finish(self) -> None:
        """The bar has ended, well or not."""


class Silent:
    """Shows nothing."""

    def say(self, message: str) -> None:
        """Show nothing."""

    def start(self, what: str, total: int | None) -> None:
        """Show nothing."""

    def advance(self, size: int) -> None:
        """Show nothing."""

    def finish(self) -> None:
        """Show nothing."""
