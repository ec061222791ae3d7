"""What the drivers of a study share: what is known while it runs, and how a trial and a study end.

:mod:`trainer.tune.client` asks, submits and stops by itself; :mod:`trainer.tune.service` follows a backend's service
that does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from trainer.backend import Backend
from trainer.errors import IntegrityError, NotFoundError, RefusedError, RunFailedError, UsageError
from trainer.home import Home
from trainer.records import ModelRef, RunInfo, RunStatus, Stopped
from trainer.runfolder import RunFolder
from trainer.runtime.layout import METRICS_FILE
from trainer.runtime.series import NAMES
from trainer.snapshot import DEFAULT_SCRIPT
from trainer.tune import trials as runs
from trainer.tune.registration import register
from trainer.tune.study import Outcome, StudyDefinition, StudyFolder, Trial, TrialState, best_of, why_no_best

# A study none of whose trials succeeds is given up after so many.
MOST_FAILURES = 3

_STATES = {
    RunStatus.COMPLETED: TrialState.COMPLETED,
    RunStatus.FAILED: TrialState.FAILED,
    RunStatus.CANCELED: TrialState.CANCELED,
}


class View(Protocol):
    """What a study is shown on while it runs."""

    def started(self, trial: Trial) -> None:
        """Show that a trial was submitted."""

    def ended(self, trial: Trial, best: Trial | None) -> None:
        """Show a trial's end."""

    def tick(self, driver: Driver) -> None:
        """Show how far the study is; called many times per second."""

    def note(self, text: str) -> None:
        """Show what the user should know."""

    def close(self) -> None:
        """End the view."""


class NoView:
    """Shows nothing but notes.

    Args:
        show: Is given each note.
    """

    def __init__(self, show: Callable[[str], None] = lambda _: None) -> None:
        self._show = show

    def started(self, trial: Trial) -> None:
        """Do nothing."""

    def ended(self, trial: Trial, best: Trial | None) -> None:
        """Do nothing."""

    def tick(self, driver: Driver) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Hand it on."""
        self._show(text)

    def close(self) -> None:
        """Do nothing."""


@dataclass
class Running:
    """A trial that is under way.

    Attributes:
        trial: Its line.
        folder: Its run.
        curve: What the metric was so far.
        status: The run's status when last seen.
        stopped: Why it is being stopped, if it is.
    """

    trial: Trial
    folder: RunFolder
    curve: list[float | None] = field(default_factory=list)
    status: RunStatus = RunStatus.NOT_STARTED
    stopped: Stopped | None = None
    size: int = -1


class Driver:
    """What is known of a study while it runs.

    Args:
        study: Its folder, complete.
        backend: Where its trials run.
        home: Where runs are kept.
        view: Shows it.

    Attributes:
        definition: What it is.
        trials: Every trial so far, by number.
        running: Those under way.
        curves: What each logged of the metric.
        total: How many trials it is to have.
        ended_here: How many have ended since this driver began.
    """

    def __init__(self, study: StudyFolder, backend: Backend, home: Home, view: View) -> None:
        self.study, self.backend, self.home = study, backend, home
        self.definition: StudyDefinition = study.definition()
        self.trials = study.trials()
        self.running: dict[int, Running] = {}
        self.curves: dict[int, list[float | None]] = {}
        self.total = max(self.definition.trials, len(self.trials))
        self.ended_here = 0
        self._view = view
        self._failures: list[Trial] = []
        self._succeeded = False
        self._before = study.outcome()

    @property
    def best(self) -> Trial | None:
        """The best trial so far."""
        return best_of(self.definition, self.trials)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the study is over at the pace so far; None before a trial has ended."""
        raise NotImplementedError

    def _read(self, running: Running) -> None:
        """Read what a trial has logged, if there is more."""
        with suppress(FileNotFoundError):
            size = (running.folder.path / METRICS_FILE).stat().st_size
            if size != running.size:
                running.size = size
                running.curve = runs.curve_of(running.folder.metrics(), self.definition.metric)
        self.curves[running.trial.number] = running.curve

    def _curve(self, trial: Trial) -> list[float | None]:
        return runs.curve_of(RunFolder(self.home.runs / trial.run_id).metrics(), self.definition.metric)

    def _ended(self, running: Running) -> Trial:
        """Write down the end of a trial whose run has ended."""
        info, trial = running.folder.info(), running.trial
        state, stopped = _STATES[info.status], info.stopped
        if stopped is not None:
            if state is TrialState.COMPLETED:  # it was done before it could be stopped
                running.folder.update(stopped=None)
                stopped = None
            else:
                state = TrialState.STOPPED
        value, step = runs.objective(self.definition, running.curve)
        reason = info.failure.message if info.failure is not None else ""
        trial = self._record(trial, state, value=value, step=step, stopped=stopped, reason=reason, info=info)
        self.ended_here += 1
        return trial

    def _judge_end(self, trial: Trial, running: Running) -> None:
        """Show a trial's end; refuse to go on with a study whose metric never comes."""
        if trial.state is TrialState.COMPLETED and not running.curve:
            raise self._no_metric(trial, running.folder)
        if trial.state is TrialState.FAILED:
            self._failures.append(trial)
        elif trial.state is not TrialState.CANCELED:
            self._succeeded = True
        self._view.ended(trial, self.best)

    def _check_failures(self) -> None:
        if len(self._failures) >= MOST_FAILURES and not self._succeeded:
            raise self._all_fail(self._failures)

    def _check_end(self) -> None:
        """Refuse to call a study complete none of whose trials succeeded, however few they were."""
        failed = [trial for trial in self.trials.values() if trial.state is TrialState.FAILED]
        if failed and len(failed) == len(self.trials):
            raise self._all_fail(failed)

    def _record(
        self,
        trial: Trial,
        state: TrialState,
        *,
        value: float | None = None,
        step: int | None = None,
        stopped: Stopped | None = None,
        reason: str = "",
        info: RunInfo | None = None,
    ) -> Trial:
        ended = time.time() if info is None or info.ended is None else info.ended
        # One that a service began may have been seen here only when it was over.
        started = trial.started if info is None or info.started is None else min(trial.started, info.started)
        trial = msgspec.structs.replace(
            trial, state=state, value=value, step=step, stopped=stopped, reason=reason, started=started, ended=ended
        )
        # The run's own record is on the disk: this line can be made again.
        self.study.append(trial, durable=False)
        self.trials[trial.number] = trial
        return trial

    def _no_metric(self, trial: Trial, folder: RunFolder) -> UsageError:
        others = sorted({metric.name for metric in folder.metrics()})
        known = NAMES.get(self.definition.metric, "")  # Chainer's key of a metric that the run has under its own name
        logged = f"it logged {', '.join(others[:8])}" if others else "it logged nothing"
        return UsageError(
            f"Trial {trial.number} ended and never logged the metric {self.definition.metric!r}; {logged}.",
            f"Start again with --metric {known if known in others else 'NAME'}."
            if others
            else "Let the script log it: Run.get_context().log(NAME, value)",
        )

    def _all_fail(self, failed: list[Trial]) -> RunFailedError:
        last = failed[-1]
        ended = f"all of its {len(failed)} trials failed, the last with" if len(failed) > 1 else "its only trial failed"
        return RunFailedError(f"The study was ended: {ended}: {last.reason}", f"See: trainer logs {last.run_id}")

    def _end(self, status: str, reason: str, seconds: float) -> Outcome:
        """Register the best trial of a study that is complete, and write down how the study ended."""
        best = self.best
        model: ModelRef | None = None
        if status == "Completed" and best is not None and self.definition.model_name is not None:
            before = self._before
            if before and before.best == best.number and not (self.home.runs / best.run_id).is_dir():
                model = before.model  # its run was removed since
            else:
                model = self._register(best, self.definition.model_name)
        if status == "Completed" and best is None and self.trials:
            self._view.note(f"warning: no trial is the best, so no model is registered: {why_no_best(self.trials)}.")
        outcome = Outcome(
            status=status,
            reason=reason,
            trials=self.total,
            best=None if best is None else best.number,
            model=model,
            seconds=round(seconds, 3),
        )
        self.study.write_outcome(outcome)
        return outcome

    def _register(self, best: Trial, name: str) -> ModelRef | None:
        own = self.definition.job.script != DEFAULT_SCRIPT
        if own and self.definition.best == "any" and best.step != len(self.curves.get(best.number, ())):
            self._view.note(
                f"warning: trial {best.number} was best at step {best.step}, and the model.npz that its script left is "
                "registered; it is of that step if the script uses trainer.runtime.Metrics. See: trainer docs tuning"
            )
        try:
            return register(RunFolder(self.home.runs / best.run_id), self.backend, name)
        except (NotFoundError, IntegrityError, RefusedError) as error:
            self._view.note(f"warning: no model was registered: {error.message}")
            return None
