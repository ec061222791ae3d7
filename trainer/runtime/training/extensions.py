"""Extensions of Chainer's trainer: exact accuracy and loss of a test set, and metrics of the run."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import chainer
import numpy as np
from chainer.dataset import convert
from chainer.functions import softmax_cross_entropy
from chainer.training import Extension, Trainer
from chainer.training.extensions import Evaluator

from trainer.runtime import layout, reporting
from trainer.runtime.faults import RuntimeFault
from trainer.runtime.training.ranks import Ranks

_SECONDS_BETWEEN_REPORTS = 0.25
# Speed is that of so long a time: shorter, and a checkpoint or an evaluation is most of it.
_SECONDS_OF_SPEED = 2.0


class ClassifierEvaluator(Evaluator):  # type: ignore[misc]
    """``Evaluator`` for a :class:`chainer.links.Classifier` that counts examples, not batches.

    Chainer's averages the means of batches with equal weight, so the examples of a short last batch
    count for more. Here accuracy is (right answers) / (labels) and loss is the sum of the labels'
    softmax cross-entropies in double precision over their number. The host reads the results once, at the end.

    Args: As ``Evaluator``; the iterator must not repeat, the target must have ``predictor``, which is called
        with all arrays of a batch but the last, the labels. ``ranks`` do the batches in turn; the sums of all
        batches are then added in the order of the batches, as one process adds them.
    """

    def __init__(self, *args: Any, ranks: Ranks | None = None, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._ranks = ranks or Ranks()

    def evaluate(self) -> dict[str, float]:
        """Return ``main/accuracy`` and ``main/loss`` under the extension's prefix, as ``Evaluator`` names them."""
        iterator = self._iterators["main"]
        iterator.reset()
        predictor = self._targets["main"].predictor
        ranks = self._ranks
        # Of each batch: right answers, sum of losses, labels.
        sums: list[tuple[Any, Any, Any]] = []
        with chainer.no_backprop_mode():
            for number, batch in enumerate(iterator):
                if number % ranks.size != ranks.rank:
                    sums.append((0, 0.0, 0))
                    continue
                *inputs, t = convert._call_converter(self.converter, batch, self.device)
                scores = predictor(*inputs)
                losses = softmax_cross_entropy(scores, t, reduce="no")
                right = (scores.array.argmax(axis=1) == t).sum()
                sums.append((right, losses.array.sum(dtype=np.float64), t.size))
        if ranks.size > 1:
            sums = ranks.sum(np.asarray([[float(value) for value in row] for row in sums]))
        right, loss, labels = (sum(column) for column in zip(*sums, strict=True))
        prefix = f"{self.name}/" if self.name else ""
        return {
            f"{prefix}main/accuracy": int(right) / int(labels),
            f"{prefix}main/loss": float(loss) / int(labels),
        }


class BestEpoch:
    """Keeps a copy of a link as it was when a metric was best.

    Args:
        metric: The metric's name.
        goal: ``max`` or ``min``.
    """

    def __init__(self, metric: str, goal: str) -> None:
        self._metric = metric
        self._sign = 1.0 if goal == "max" else -1.0
        self._value = -math.inf
        self._link: chainer.Link | None = None
        self._copy: chainer.Link | None = None

    @classmethod
    def of_this_job(cls) -> BestEpoch | None:
        """Return what the study that this job is a trial of asks for, or None."""
        job = layout.job_dir()
        if job is None:
            return None
        try:
            asked = json.loads((job.parent / layout.STUDY_DIR / layout.OBJECTIVE_FILE).read_bytes())
            return cls(str(asked["metric"]), str(asked["goal"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RuntimeFault(
                f"{layout.OBJECTIVE_FILE} of this study can't be read: {error}", "start it again"
            ) from error

    def see(self, name: str, value: float, link: chainer.Link) -> None:
        """Keep ``link`` as it is, if ``value`` is the best so far of the metric. NaN never is."""
        if name == self._metric and self._sign * float(value) > self._value:
            self._value = self._sign * float(value)
            if self._copy is not None and self._link is link and _names(link) == _names(self._copy):
                self._copy.copyparams(link)  # a fiftieth of what a new copy takes
            else:
                self._link, self._copy = link, link.copy(mode="copy")

    def restore(self) -> None:
        """Put the best parameters back."""
        if self._link is not None:
            self._link.copyparams(self._copy)


def _names(link: chainer.Link) -> list[str]:
    """Every parameter and persistent value; a script may add some while it trains."""
    found = [name for name, _ in link.namedparams()]
    return found + [f"{name}:{each}" for name, inner in link.namedlinks() for each in sorted(inner._persistent)]


class Metrics(Extension):  # type: ignore[misc]
    """Logs what Chainer's ``LogReport`` collects as metrics of the run, and tells how far training is.

    Batch size and number of epochs are logged at the start, every new entry of the log when it is made, and
    epoch, speed and latest loss a few times per second.

    In a trial of a study whose best epoch counts (``trainer tune --best any``), the parameters of that epoch are put
    back when training ends, so that it is they that the script saves.

    Args:
        names: Metric name to key in the report, for example ``{"Accuracy": "validation/main/accuracy"}``.
        run: Where to log; by default the run that this process belongs to.

    Raises:
        RuntimeFault: That run can't be reached.
    """

    # What a Trainer measures is not recorded a second time.
    records_metrics = True
    # After LogReport, which has PRIORITY_READER (100).
    priority = 50

    def __init__(self, names: Mapping[str, str], run: reporting.Report | None = None) -> None:
        self._names = names
        self._run = run or reporting.start()
        self.trigger = self._due
        self._logged = 0
        # Time and iteration of the latest progress reports, the first of them that long ago.
        self._reports: deque[tuple[float, int]] = deque()
        self._best = BestEpoch.of_this_job()

    def initialize(self, trainer: Trainer) -> None:
        """Log what is known before the first batch, and start the clock; called by the trainer."""
        # A resumed run has the log of the run that it continues.
        self._logged = len(self._log(trainer))
        self._reports.append((time.monotonic(), trainer.updater.iteration))
        self._run.log("Batch size", trainer.updater.get_iterator("main").batch_size)
        length, unit = trainer.stop_trigger.get_training_length()
        if unit == "epoch":
            self._run.log("Epochs", length)

    def _log(self, trainer: Trainer) -> list[dict[str, Any]]:
        return trainer.get_extension("LogReport").log  # type: ignore[no-any-return]

    def _due(self, trainer: Trainer) -> bool:
        last, _ = self._reports[-1]
        return time.monotonic() - last >= _SECONDS_BETWEEN_REPORTS or len(self._log(trainer)) > self._logged

    def __call__(self, trainer: Trainer) -> None:
        """Report; on a GPU, reading the loss waits for the batch.

        Raises:
            RuntimeFault: The report lacks a key.
        """
        self._progress(trainer)
        for entry in self._log(trainer)[self._logged :]:
            for name, key in self._names.items():
                if key not in entry:
                    raise RuntimeFault(
                        f"the metric {name!r} is {key!r} in Chainer's report, which has no such value",
                        f"it has {', '.join(entry)}",
                    )
                self._run.log(name, entry[key], step=entry["epoch"])
                if self._best is not None:
                    self._best.see(name, entry[key], trainer.updater.get_optimizer("main").target)
            self._logged += 1

    def finalize(self) -> None:
        """Put the best epoch's parameters back, where a study asks for them; called by the trainer."""
        if self._best is not None:
            self._best.restore()

    def _progress(self, trainer: Trainer) -> None:
        updater = trainer.updater
        now = time.monotonic()
        then, iteration = self._reports[0]
        examples = (updater.iteration - iteration) * updater.get_iterator("main").batch_size
        length, unit = trainer.stop_trigger.get_training_length()
        loss = trainer.observation.get("main/loss")
        if isinstance(loss, chainer.Variable):
            loss = loss.array
        self._run.progress(
            epoch=updater.epoch_detail,
            epochs=length if unit == "epoch" else updater.epoch_detail * length / updater.iteration,
            images_per_second=examples / max(now - then, 1e-9),
            loss=None if loss is None else float(loss),
        )
        self._reports.append((now, updater.iteration))
        while self._reports[1][0] <= now - _SECONDS_OF_SPEED:
            self._reports.popleft()
