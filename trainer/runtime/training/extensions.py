"""Tells the run how training goes: metrics after every epoch, progress in between."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping

from chainer import Variable
from chainer.training import Extension, Trainer

from trainer.runtime.reporting import Report

_SECONDS_BETWEEN_REPORTS = 0.25
# Speed is that of so long a time: shorter, and a checkpoint or an evaluation is most of it.
_SECONDS_OF_SPEED = 2.0


class Metrics(Extension):  # type: ignore[misc]
    """Logs the last entry of Chainer's ``LogReport`` as metrics of the run.

    Args:
        run: where to log.
        names: metric name to key in the report, for example ``{"Accuracy": "validation/main/accuracy"}``.
    """

    trigger = (1, "epoch")
    # After LogReport, which has PRIORITY_READER (100).
    priority = 50

    def __init__(self, run: Report, names: Mapping[str, str]) -> None:
        self._run = run
        self._names = names

    def __call__(self, trainer: Trainer) -> None:
        """Logs one value for each metric."""
        entry = trainer.get_extension("LogReport").log[-1]
        for name, key in self._names.items():
            self._run.log(name, entry[key], step=entry["epoch"])


class Progress(Extension):  # type: ignore[misc]
    """Reports epoch, speed and the latest loss a few times a second.

    Args:
        run: where to report.
        epochs: epochs in all.
    """

    def __init__(self, run: Report, epochs: int) -> None:
        self._run = run
        self._epochs = epochs
        self.trigger = self._due
        # Time and iteration of the latest reports, the first of them that long ago.
        self._reports: deque[tuple[float, int]] = deque()

    def initialize(self, trainer: Trainer) -> None:
        """Starts the clock; called by the trainer."""
        self._reports.append((time.monotonic(), trainer.updater.iteration))

    def _due(self, trainer: Trainer) -> bool:
        last, _ = self._reports[-1]
        return time.monotonic() - last >= _SECONDS_BETWEEN_REPORTS or trainer.updater.is_new_epoch

    def __call__(self, trainer: Trainer) -> None:
        """Reports; on a GPU, reading the loss waits for the batch."""
        updater = trainer.updater
        now = time.monotonic()
        then, iteration = self._reports[0]
        examples = (updater.iteration - iteration) * updater.get_iterator("main").batch_size
        loss = trainer.observation.get("main/loss")
        if isinstance(loss, Variable):
            loss = loss.array
        self._run.progress(
            epoch=updater.epoch_detail,
            epochs=self._epochs,
            images_per_second=examples / max(now - then, 1e-9),
            loss=None if loss is None else float(loss),
        )
        self._reports.append((now, updater.iteration))
        while self._reports[1][0] <= now - _SECONDS_OF_SPEED:
            self._reports.popleft()
