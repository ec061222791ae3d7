"""The extension that records what a ``Trainer`` measures; see :mod:`trainer.runtime.recording`."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from chainer import reporter
from chainer.training import Extension, Trainer
from chainer.training.extensions import LogReport

from trainer.runtime import reporting, sinks
from trainer.runtime.series import NAMES, NOT_METRICS, Thinned, guarded

_SECONDS_BETWEEN_REPORTS = 0.25
# Speed is that of so long a time: shorter, and a snapshot or an evaluation is most of it.
_SECONDS_OF_SPEED = 2.0
_NAME = "trainer_recorder"


def attach(trainer: Trainer) -> None:
    """Give a trainer that is about to run the extension, unless it reports by itself."""
    extensions = [entry.extension for entry in trainer._extensions.values()]
    if not any(getattr(extension, "records_metrics", False) for extension in extensions):
        trainer.extend(Recorder(), name=_NAME)


class Recorder(Extension):  # type: ignore[misc]
    """Records every new entry of ``LogReport``, or without one each epoch's means, and how far training is.

    Nothing of it goes into a snapshot of the trainer.
    """

    records_metrics = True
    # After LogReport (PRIORITY_READER, 100) and after snapshots (-100), which may load an earlier log at the start.
    priority = -1000

    def __init__(self) -> None:
        # No IntervalTrigger: it would be in snapshots.
        self.trigger = _always
        self._report = reporting.start(automatic=True)
        self._record = Thinned(self._report)
        self._taken: dict[str, int] = {}
        self._summary: Any = reporter.DictSummary()
        # Time and iteration of the latest progress reports, the first of them that long ago.
        self._times: deque[tuple[float, int]] = deque()
        self._said_epochs = False

    @guarded
    def initialize(self, trainer: Trainer) -> None:
        """Start the clock; a resumed trainer has the log of the one that it continues. Called by the trainer."""
        self._taken = {name: len(log.log) for name, log in _logs(trainer).items()}
        self._times.append((time.monotonic(), trainer.updater.iteration))
        size = _batch_size(trainer)
        if size is not None and not sinks.script_reports():
            self._report.log("Batch size", size)

    @guarded
    def __call__(self, trainer: Trainer) -> None:
        """Record what is new."""
        logs = _logs(trainer)
        if not logs and trainer.observation:
            self._summary.add(trainer.observation)
            if getattr(trainer.updater, "is_new_epoch", False):
                self._means(trainer)
        for name, log in logs.items():
            for entry in log.log[self._taken.get(name, 0) :]:
                self._entry(trainer, entry)
            self._taken[name] = len(log.log)
        if time.monotonic() - self._times[-1][0] >= _SECONDS_BETWEEN_REPORTS or trainer.updater.is_new_epoch:
            self._progress(trainer)

    @guarded
    def finalize(self) -> None:
        """Record what was held back. Called by the trainer at its end, also after an error."""
        self._record.close()
        self._report.close()

    def serialize(self, serializer: object) -> None:
        """Do nothing: snapshots are those of a trainer without this extension."""

    def _means(self, trainer: Trainer) -> None:
        summary, self._summary = self._summary, reporter.DictSummary()
        means = {name: float(value) for name, value in summary.compute_mean().items()}
        self._entry(trainer, {**means, "iteration": trainer.updater.iteration})

    def _entry(self, trainer: Trainer, entry: dict[str, Any]) -> None:
        if sinks.script_reports():
            return
        updater = trainer.updater
        # An epoch that ends within a batch ends with it: 1, where epoch_detail says 1.0003.
        step = updater.epoch if updater.is_new_epoch else round(updater.epoch_detail, 6)
        iteration = int(entry.get("iteration", updater.iteration))
        if iteration != updater.iteration:  # made before the first update
            step = entry.get("epoch", step)
        total = _epochs(trainer)
        if total and not self._said_epochs:
            self._report.log("Epochs", round(total, 6))
            self._said_epochs = True
        for key, value in entry.items():
            if key not in NOT_METRICS and isinstance(value, int | float):
                self._record.log(NAMES.get(key, key), value, step, iteration)

    def _progress(self, trainer: Trainer) -> None:
        updater, now = trainer.updater, time.monotonic()
        total, size = _epochs(trainer), _batch_size(trainer)
        if not total:
            return
        then, iteration = self._times[0]
        loss = trainer.observation.get("main/loss")
        loss = getattr(loss, "array", loss)
        speed = None if size is None else (updater.iteration - iteration) * size / max(now - then, 1e-9)
        self._report.progress(
            epoch=updater.epoch_detail,
            epochs=total,
            images_per_second=speed,
            loss=None if loss is None else float(loss),
        )
        self._times.append((now, updater.iteration))
        while len(self._times) > 2 and self._times[1][0] <= now - _SECONDS_OF_SPEED:
            self._times.popleft()


def _always(_: Trainer) -> bool:
    return True


def _logs(trainer: Trainer) -> dict[str, LogReport]:
    found = {name: entry.extension for name, entry in trainer._extensions.items()}
    return {name: extension for name, extension in found.items() if isinstance(extension, LogReport)}


def _epochs(trainer: Trainer) -> float | None:
    """How many epochs the trainer will make in all; None if it does not say."""
    length = getattr(trainer.stop_trigger, "get_training_length", lambda: None)()
    if not length or not length[0]:
        return None
    if length[1] == "epoch":
        return float(length[0])
    updater = trainer.updater
    return float(updater.epoch_detail * length[0] / updater.iteration) if updater.iteration else None


def _batch_size(trainer: Trainer) -> int | None:
    try:
        return int(trainer.updater.get_iterator("main").batch_size)
    except (AttributeError, KeyError, NotImplementedError, TypeError):
        return None
