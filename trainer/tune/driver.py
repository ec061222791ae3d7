"""The client driver: asks for values, submits runs, reads their metrics, stops the hopeless ones.

It goes through :class:`~trainer.backend.Backend` alone, so it drives trials on any backend. It may be killed at any
instant: a trial's line is on the disk before its run exists, and whoever resumes the study finds each run by it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from trainer.backend import Backend
from trainer.divergence import in_model
from trainer.errors import (
    IntegrityError,
    InterruptedRunError,
    NotFoundError,
    RefusedError,
    RunFailedError,
    TrainerError,
    UsageError,
)
from trainer.home import Home
from trainer.records import ModelRef, RunInfo, RunStatus, Stopped
from trainer.runfolder import RunFolder, new_run_id
from trainer.runtime.layout import METRICS_FILE, MODEL_FILE
from trainer.snapshot import DEFAULT_SCRIPT
from trainer.tune import trials as runs
from trainer.tune.proposals import Proposals, check_warm_start, make_optuna
from trainer.tune.stopping import intervals, judge
from trainer.tune.study import Outcome, StudyDefinition, StudyFolder, Trial, TrialState, best_of, find_study

_POLL_SECONDS = 0.02
_POLL_SECONDS_REMOTE = 0.2
# A study none of whose trials succeeds is given up after so many.
_FAILURES = 3
_CANCEL_SECONDS = 120.0

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
    """Drives one study to its end.

    Args:
        study: Its folder, complete.
        backend: Where its trials run.
        home: Where runs are kept.
        view: Shows it.
        trials: How many it is to have; None for what its definition says.
        parallel: How many at once; None likewise.
        seconds: When to end it; None for no cap.
        submitted: Called with each run's folder when the backend has it.
    """

    def __init__(
        self,
        study: StudyFolder,
        backend: Backend,
        home: Home,
        view: View,
        *,
        trials: int | None = None,
        parallel: int | None = None,
        seconds: float | None = None,
        submitted: Callable[[RunFolder], None] = lambda _: None,
    ) -> None:
        self.study, self.backend, self.home = study, backend, home
        self.definition: StudyDefinition = study.definition()
        self.trials = study.trials()
        self.running: dict[int, Running] = {}
        self.curves: dict[int, list[float | None]] = {}
        self.parallel = parallel or self.definition.parallel
        self.began = time.monotonic()
        self.ended_here = 0
        self.total = trials or max(self.definition.trials, len(self.trials))
        self._seconds = seconds
        self._view = view
        self._submitted = submitted
        self._judged: dict[int, int] = {}
        self._failures: list[Trial] = []
        self._lost: set[int] = set()
        self._succeeded = False

    @property
    def best(self) -> Trial | None:
        """The best trial so far."""
        return best_of(self.definition, self.trials)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the study is over at the pace so far; None before a trial has ended."""
        if not self.ended_here:
            return None
        done = sum(trial.state.finished for trial in self.trials.values())
        pace = (time.monotonic() - self.began) / self.ended_here
        left = (self.total - done) * pace
        return left if self._seconds is None else min(left, max(0.0, self._deadline - time.monotonic()))

    @property
    def _deadline(self) -> float:
        return self.began + (self._seconds or 0.0)

    def run(self) -> Outcome:
        """Drive the study.

        Returns:
            How it ended.

        Raises:
            InterruptedRunError: Ctrl-C.
            UsageError: Another process drives it, or no trial logs the metric.
            RunFailedError: All trials fail.
            TrainerError: A trial could not be submitted.
        """
        with self.study.driven():
            self.trials = self.study.trials()
            self.study.write_outcome(None)
            try:
                self._prepare()
                reason = self._loop()
            except KeyboardInterrupt:
                raise self._interrupted() from None
            except TrainerError as error:
                self._give_up()
                self._end("Failed", error.message)
                raise
            return self._end("Completed", reason)

    def _prepare(self) -> None:
        self._adopt()
        known = [(trial, self._curve(trial)) for trial in self.trials.values() if trial.state.finished]
        self._succeeded = any(trial.state in (TrialState.COMPLETED, TrialState.STOPPED) for trial, _ in known)
        self.curves.update({trial.number: curve for trial, curve in known})
        earlier = self._earlier() if self.definition.warm_start else []
        optuna = make_optuna(self.definition, self.study, known, _renumbered(earlier))
        self._optuna = optuna
        done = [trial.values for trial, _ in earlier if trial.state is TrialState.COMPLETED]
        self._proposals = Proposals(self.definition, self.trials, self.total, optuna, done)
        self.total = max(self._proposals.total, len(self.trials))
        if optuna is not None:
            for running in self.running.values():
                optuna.ask(running.trial.number, running.trial.values)
        if not self.definition.isolated and not self.backend.remote:
            why = self.backend.warm_up(self.study.path)
            if why:
                self._view.note(f"Each trial is a fresh process: {why}.")

    def _earlier(self) -> list[tuple[Trial, list[float | None]]]:
        found = []
        for reference in self.definition.warm_start:
            other = find_study(self.home.studies, reference)
            check_warm_start(self.definition, other.definition())
            found += [(t, self._curve(t)) for t in other.trials().values() if t.state.finished]
        return found

    def _adopt(self) -> None:
        """Take up the runs that an earlier driver left under way, and submit those that it didn't come to."""
        for trial in list(self.trials.values()):
            if trial.state is not TrialState.RUNNING:
                continue
            folder = RunFolder(self.home.runs / trial.run_id)
            if not folder.path.is_dir() or (
                folder.info().status is RunStatus.NOT_STARTED and not folder.being_submitted()
            ):
                self._submit(trial)
                continue
            info = self.backend.refresh(folder)
            if info.failure is not None and info.failure.lost:
                # Nobody watched over it any more: the machine went down, not the script.
                self._record(trial, TrialState.INTERRUPTED, reason=info.failure.message, info=info)
                continue
            self.running[trial.number] = Running(trial, folder)

    def _loop(self) -> str:
        """Run trials until there are no more; return why it ended early, or an empty text."""
        pause = _POLL_SECONDS_REMOTE if self.backend.remote else _POLL_SECONDS
        more = True
        while True:
            while more and len(self.running) < self.parallel and not self._over():
                more = self._start_next()
            ended = [number for number, running in self.running.items() if self._look(running)]
            for number in ended:
                self._close(self.running.pop(number))
                more = more or self._proposals.has_again
            if len(self._failures) >= _FAILURES and not self._succeeded:
                raise self._all_fail()
            self._view.tick(self)
            if self._over() and self.running:
                self._cancel_running("the study's time was over")
            if not self.running and (not more or self._over()):
                break
            if not ended:
                time.sleep(pause)
        left = sum(not trial.state.finished for trial in self.trials.values()) + self.total - len(self.trials)
        return f"Its time was over with {left} of {self.total} trials left." if left else ""

    def _over(self) -> bool:
        return self._seconds is not None and time.monotonic() >= self._deadline

    def _start_next(self) -> bool:
        proposed = self._proposals.next()
        if proposed is None:
            return False
        number, values = proposed
        trial = Trial(number=number, run_id=new_run_id(), values=values, started=time.time())
        self.study.append(trial)
        self.trials[number] = trial
        self._submit(trial)
        return True

    def _submit(self, trial: Trial) -> None:
        folder = runs.start(self.home, self.study, self.definition, trial, self.backend)
        self.running[trial.number] = Running(trial, folder)
        self._submitted(folder)
        self._view.started(trial)

    def _look(self, running: Running) -> bool:
        """Bring a trial up to date and judge it; return whether it has ended."""
        info = self.backend.refresh(running.folder)
        running.status = info.status
        self._read(running)
        number = running.trial.number
        self.curves[number] = running.curve
        if info.status.terminal or running.stopped is not None:
            return info.status.terminal
        stopped = self._judge(number, running.curve)
        if stopped is not None:
            running.stopped = stopped
            running.folder.update(stopped=stopped)
            self.backend.cancel(running.folder)
        return False

    def _read(self, running: Running) -> None:
        try:
            size = (running.folder.path / METRICS_FILE).stat().st_size
        except FileNotFoundError:
            return
        if size != running.size:
            running.size = size
            running.curve = runs.curve_of(running.folder.metrics(), self.definition.metric)

    def _judge(self, number: int, curve: list[float | None]) -> Stopped | None:
        policy, judged = self.definition.stop, self._judged.get(number, 0)
        self._judged[number] = len(curve)
        if policy is None:
            return None
        if policy.name == "asha":
            assert self._optuna is not None
            found = None
            for step in range(judged + 1, len(curve) + 1):
                found = found or self._optuna.report(number, step, curve[step - 1])
            return found
        for interval in intervals(policy, judged, len(curve)):
            found = judge(policy, self.definition.goal, number, interval, self.curves)
            if found is not None:
                return found
        return None

    def _close(self, running: Running) -> None:
        """Write down a trial's end."""
        info, trial = running.folder.info(), running.trial
        state, stopped = _STATES[info.status], info.stopped
        if stopped is not None:
            if state is TrialState.COMPLETED:  # it was done before it could be stopped
                running.folder.update(stopped=None)
                stopped = None
            else:
                state = TrialState.STOPPED
        self._judge(trial.number, running.curve)
        value, step = runs.objective(self.definition, running.curve)
        reason = info.failure.message if info.failure is not None else ""
        if info.failure is not None and info.failure.lost and trial.number not in self._lost:
            # Once more: it was not the script that failed.
            self._lost.add(trial.number)
            trial = self._record(trial, TrialState.INTERRUPTED, reason=reason, info=info)
            self._proposals.again(trial)
            self._view.note(f"trial {trial.number} runs again: {reason}")
            return
        trial = self._record(trial, state, value=value, step=step, stopped=stopped, reason=reason, info=info)
        self.ended_here += 1
        if self._optuna is not None:
            self._optuna.tell(trial)
        if state is TrialState.COMPLETED and not running.curve:
            raise self._no_metric(trial, running.folder)
        if state is TrialState.FAILED:
            self._failures.append(trial)
        elif state is not TrialState.CANCELED:
            self._succeeded = True
        self._view.ended(trial, self.best)

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
        trial = msgspec.structs.replace(
            trial, state=state, value=value, step=step, stopped=stopped, reason=reason, ended=ended
        )
        # The run's own record is on the disk: this line can be made again.
        self.study.append(trial, durable=False)
        self.trials[trial.number] = trial
        return trial

    def _curve(self, trial: Trial) -> list[float | None]:
        return runs.curve_of(RunFolder(self.home.runs / trial.run_id).metrics(), self.definition.metric)

    def _no_metric(self, trial: Trial, folder: RunFolder) -> UsageError:
        others = sorted({metric.name for metric in folder.metrics()})
        logged = f"it logged {', '.join(others[:8])}" if others else "it logged nothing"
        return UsageError(
            f"Trial {trial.number} ended and never logged the metric {self.definition.metric!r}; {logged}.",
            "Start again with --metric NAME."
            if others
            else "Let the script log it: Run.get_context().log(NAME, value)",
        )

    def _all_fail(self) -> RunFailedError:
        last = self._failures[-1]
        return RunFailedError(
            f"The study was ended: all of its {len(self._failures)} trials failed, the last with: {last.reason}",
            f"See: trainer logs {last.run_id}",
        )

    def _cancel_running(self, why: str) -> None:
        """Cancel what is under way; it runs again when the study is taken up."""
        for running in self.running.values():
            with suppress(TrainerError):
                self.backend.cancel(running.folder)
        deadline = time.monotonic() + _CANCEL_SECONDS
        while self.running and time.monotonic() < deadline:
            for number, running in list(self.running.items()):
                info = self.backend.refresh(running.folder)
                if not info.status.terminal:
                    continue
                self._read(running)
                del self.running[number]
                if info.status is RunStatus.CANCELED and info.stopped is None:
                    self._record(running.trial, TrialState.INTERRUPTED, reason=why, info=info)
                else:
                    self._close(running)
            time.sleep(0.05)

    def _interrupted(self) -> InterruptedRunError:
        go_on = f"Go on: trainer tune --resume {self.study.study_id}"
        if self.backend.remote:
            self._end("Interrupted", "Ctrl-C")
            return InterruptedRunError(
                f"Study {self.study.study_id} was interrupted. Its {len(self.running)} trials under way continue.",
                go_on,
            )
        self._view.note(f"Canceling {len(self.running)} trials ...")
        with suppress(KeyboardInterrupt, TrainerError):
            self._cancel_running("Ctrl-C")
        self._end("Interrupted", "Ctrl-C")
        return InterruptedRunError(f"Study {self.study.study_id} was interrupted.", go_on)

    def _give_up(self) -> None:
        with suppress(KeyboardInterrupt, TrainerError):
            self._cancel_running("the study was ended")

    def _end(self, status: str, reason: str) -> Outcome:
        best = self.best
        model: ModelRef | None = None
        if status == "Completed" and best is not None and self.definition.model_name is not None:
            model = self._register(best, self.definition.model_name)
        outcome = Outcome(
            status=status,
            reason=reason,
            trials=self.total,
            best=None if best is None else best.number,
            model=model,
            seconds=round(time.monotonic() - self.began, 3),
        )
        self.study.write_outcome(outcome)
        return outcome

    def _register(self, best: Trial, name: str) -> ModelRef | None:
        own = self.definition.job.script != DEFAULT_SCRIPT
        if own and self.definition.best == "any" and best.step != len(self.curves.get(best.number, ())):
            self._view.note(
                f"warning: trial {best.number} was best at step {best.step}, and the model.npz that its script left is "
                "registered; it is of that step if the script uses trainer.runtime.Metrics. See docs/tuning.md."
            )
        try:
            return register(RunFolder(self.home.runs / best.run_id), self.backend, name)
        except (NotFoundError, IntegrityError, RefusedError) as error:
            self._view.note(f"warning: no model was registered: {error.message}")
            return None


def register(folder: RunFolder, backend: Backend, name: str) -> ModelRef:
    """Register a completed run's ``outputs/model.npz``, and write so into its record. Again does no harm.

    Raises:
        UsageError: The run isn't complete.
        NotFoundError: It has no model.
        IntegrityError: Its model holds NaN, or is no sound file.
        RefusedError: Its backend has no registry.
    """
    info = folder.info()
    if info.status is not RunStatus.COMPLETED:
        raise UsageError(f"Run {folder.run_id} is {info.status}.", "Only the model of a completed run is registered.")
    spoiled = in_model(folder.outputs / MODEL_FILE) if (folder.outputs / MODEL_FILE).is_file() else None
    if spoiled:
        raise IntegrityError(spoiled, f"See: trainer show {folder.run_id}")
    model = backend.store().register(folder, name)
    reference = ModelRef(name=model.name, version=model.version, sha256=model.sha256)
    folder.update(model=reference)
    return reference


def _renumbered(
    earlier: list[tuple[Trial, list[float | None]]],
) -> list[tuple[Trial, list[float | None]]]:
    """Trials of other studies, with numbers that this one's don't have."""
    return [(msgspec.structs.replace(trial, number=-1 - index), curve) for index, (trial, curve) in enumerate(earlier)]
