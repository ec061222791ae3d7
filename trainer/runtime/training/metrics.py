"""Tells the run how training goes: metrics after every epoch, progress in between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from chainer.training import Extension, Trainer

_SECONDS_BETWEEN_REPORTS = 0.5


class Run(Protocol):
    """What ``trainer.runtime.reporting.start()`` returns, as far as it is used here."""

    def log(self, name: str, value: float) -> None:
        """Adds a value to the metric ``name``."""

    def progress(self, epoch: float, epochs: int, examples: int) -> None:
        """Says how far the run is."""


class Metrics(Extension):  # type: ignore[misc]
    """Logs observations of the last epoch as metrics of the run.

    Args:
        run: where to log.
        names: metric name to the key in Chainer's ``LogReport``, for example
            ``{"Accuracy": "validation/main/accuracy"}``.
    """

    trigger = (1, "epoch")
    # After LogReport, which makes the means.
    priority = 50

    def __init__(self, run: Run, names: Mapping[str, str]) -> None:
        self._run = run
        self._names = names

    def __call__(self, trainer: Trainer) -> None:
        """Logs one value for each metric."""
        entry: dict[str, Any] = trainer.get_extension("LogReport").log[-1]
        for name, key in self._names.items():
            self._run.log(name, entry[key])
