"""Record what Chainer itself measures in a job, so that a script which reports nothing has metrics all the same.

:func:`install` arranges for it when Chainer is imported:

* A ``Trainer`` that runs gets one more extension, :class:`trainer.runtime.training.recording.Recorder`: every new
  entry of its ``LogReport`` is recorded, or, without one, the mean of each epoch's observations.
* What is given to ``chainer.report`` outside a ``Trainer``, as in a training loop of the script's own, is averaged
  over each phase of training and testing (``chainer.config.train``): the n-th training phase with the test that
  follows it is step n.

A script that logs metrics itself, by ``Run.log`` or :func:`trainer.runtime.report`, is left to it: only how far
training is gets recorded then. A script with the extension ``Metrics`` is left alone altogether.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import os
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from trainer.runtime import loggers, reporting, sinks
from trainer.runtime.compat import hook
from trainer.runtime.compat.hook import Patch
from trainer.runtime.layout import RUN_DIR_VARIABLE
from trainer.runtime.series import NAMES, Thinned, guarded

_owner: int | None = None
_loop: _Loop | None = None


def install() -> None:
    """Arrange for what Chainer measures to be recorded, where this process is the main one of a job."""
    global _owner
    if sinks.is_worker() or sinks.mpi_rank() != 0 or not (os.environ.get(RUN_DIR_VARIABLE) or reporting.on_azure()):
        return
    _owner = os.getpid()
    atexit.register(_close)
    prepare()


def prepare() -> None:
    """Patch Chainer. What it measures is recorded once :func:`install` has named the process whose measures count."""
    hook.install(_PATCHES)
    loggers.install()


def _close() -> None:
    if _loop is not None:
        _loop.close()


def _patch_trainer(module: ModuleType) -> None:
    run = module.Trainer.run

    @functools.wraps(run)
    def recorded(trainer: Any, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        if _owner is not None:
            # Not before: it imports Chainer, which is being imported when this patch is applied.
            importlib.import_module("trainer.runtime.training.recording").attach(trainer)
        return run(trainer, *arguments, **named)

    module.Trainer.run = recorded


def _patch_reporter(module: ModuleType) -> None:
    global _loop
    report = module.report
    _loop = loop = _Loop(module)

    @functools.wraps(report)
    def recorded(values: Mapping[str, Any], observer: object = None) -> None:
        report(values, observer)
        if not module._get_reporters():
            loop.add(values, named=observer is not None)

    module.report = recorded  # type: ignore[attr-defined]


class _Loop:
    """Averages what a training loop of the script's own reports.

    Args:
        module: ``chainer.reporter``.
    """

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._record: Thinned | None = None
        self._summaries: dict[bool, Any] = {}
        self._training: bool | None = None
        self._step = 0
        # Updates so far, as the name that was reported most often counts them.
        self._counts: dict[str, int] = {}

    @guarded
    def add(self, values: Mapping[str, Any], *, named: bool) -> None:
        """Take the values of one call of ``chainer.report``.

        Args:
            values: Name to number, array of one element or variable.
            named: Whether a link reported them; a training script's only one is called ``main``.
        """
        if _owner != os.getpid():
            return
        training = bool(self._module.configuration.config.train)
        if training and self._training is False:
            self._end_phase()
        self._training = training
        summary = self._summaries.setdefault(training, self._module.DictSummary())
        if training:
            for name in values:
                self._counts[name] = self._counts.get(name, 0) + 1
        prefix = ("" if training else "validation/") + ("main/" if named else "")
        summary.add({prefix + name: getattr(value, "array", value) for name, value in values.items()})

    @guarded
    def close(self) -> None:
        """Record what the last phase came to."""
        if _owner == os.getpid():
            self._end_phase()
            if self._record is not None:
                self._record.close()

    def _end_phase(self) -> None:
        self._step += 1
        summaries, self._summaries = self._summaries, {}
        if sinks.script_reports():
            return
        for training in sorted(summaries, reverse=True):
            for key, value in summaries[training].compute_mean().items():
                self._record = self._record or Thinned(reporting.start(automatic=True))
                self._record.log(
                    NAMES.get(key, key), float(value), self._step, max(self._counts.values(), default=None)
                )


_PATCHES = (
    Patch(
        name="recorded-trainer",
        module="chainer.training.trainer",
        reason="a script that reports nothing has no metrics",
        versions="any",
        after=_patch_trainer,
    ),
    Patch(
        name="recorded-reports",
        module="chainer.reporter",
        reason="outside a Trainer, chainer.report does nothing",
        versions="any",
        after=_patch_reporter,
    ),
)
