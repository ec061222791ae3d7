"""The service driver: a backend's service draws, starts and stops; this follows it and keeps the study's folder.

A trial that fails for want of its node is sent again by the backend, as a run of its own (``--max-restarts``): it stays
the study's, which then lasts until it has ended, too.

The service goes on without any of our processes. Whoever looks, ``trainer tune`` itself, ``attach``, ``show``, brings
the folder up to date: a line and a run for each trial that the service has started, its metrics, how it ended, and at
the end the best trial's registration. Any number of processes may do so at once; one at a time writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from trainer.backend import Backend
from trainer.errors import InterruptedRunError, NotFoundError, RunFailedError, TrainerError, UsageError
from trainer.home import Home
from trainer.records import RunStatus, Stopped
from trainer.runfolder import RunFolder
from trainer.runids import new_run_id
from trainer.tune import trials as runs
from trainer.tune.driver import Driver, Running, View
from trainer.tune.stopping import intervals, judge
from trainer.tune.study import Outcome, ServiceRecord, StudyFolder, Trial, TrialState
from trainer.tune.study_service import ServiceLook, ServiceTrial

_POLL_SECONDS = 0.2
# A cap is counted by the service's clock.
_CAP_SLACK_SECONDS = 30.0


class ServiceDriver(Driver):
    """Follows a study that a service drives.

    Args:
        study: Its folder, complete.
        backend: Where its trials run.
        home: Where runs are kept.
        view: Shows it.
        submitted: Called with each run's folder when it is made.

    Raises:
        RefusedError: The backend has no such service.
    """

    def __init__(
        self,
        study: StudyFolder,
        backend: Backend,
        home: Home,
        view: View,
        *,
        submitted: Callable[[RunFolder], None] = lambda _: None,
    ) -> None:
        super().__init__(study, backend, home, view)
        self._service = backend.study_service()
        self._submitted = submitted
        self._seen: ServiceLook | None = None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the study is over at the pace so far; None before a trial has ended."""
        done = sum(trial.state.finished for trial in self.trials.values())
        if not done:
            return None
        began = self._began
        left = (self.total - done) * (time.time() - began) / done
        minutes = self.definition.max_minutes
        return left if minutes is None else min(left, max(0.0, began + minutes * 60 - time.time()))

    @property
    def _began(self) -> float:
        started = self._seen.started if self._seen else None
        return started or self.definition.created

    def start(self) -> None:
        """Send the study, unless the service has it.

        Raises:
            TrainerError: It could not be sent. The study's outcome then says why.
        """
        with self.study.brought_up_to_date():
            if self.study.outcome() is not None:
                return
            try:
                self._service.start(self.study, self.definition)
            except TrainerError as error:
                record = self.study.service()
                if record is None or not record.sent:
                    self._end("Failed", error.message, 0.0)
                raise

    def run(self) -> Outcome:
        """Send the study, unless the service has it, and follow it to its end.

        Raises:
            InterruptedRunError: Ctrl-C; the study goes on.
            UsageError: No trial logs the metric.
            RunFailedError: All trials fail, or the service fails.
            TrainerError: The study could not be sent, or the service has not answered for long.
        """
        try:
            self.start()
            while True:
                try:
                    outcome = self.step()
                except NotFoundError:
                    if self.trials:
                        raise
                    self.start()  # it never arrived
                    continue
                self._view.tick(self)
                if outcome is not None:
                    break
                time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:
            study = self.study.study_id
            there = self.study.service() is not None
            raise InterruptedRunError(
                f"Study {study} {'goes on without this command' if there else 'was not sent'}.",
                f"Follow it: trainer attach {study}    Stop it: trainer cancel {study}",
            ) from None
        if outcome.status == "Failed":
            raise RunFailedError(f"Study {self.study.study_id} failed: {outcome.reason}", "See: trainer studies")
        return outcome

    def step(self) -> Outcome | None:
        """Bring the study's folder up to date; return how it ended, if it has.

        Raises:
            TrainerError: As :meth:`run`.
        """
        with self.study.brought_up_to_date():
            self._reload()
            outcome = self.study.outcome()
            if outcome is not None:
                return outcome
            look = self._service.look(self.study, self.definition)
            if look is not None:
                self._seen = look
                for found in look.trials:
                    self._adopt(found)
            self._refresh()
            if self._seen is None or not self._seen.status.terminal or self.running:
                return None
            return self._finish(self._seen)

    def cancel(self) -> None:
        """Ask for the study's end; what is under way there is canceled, too.

        Raises:
            TrainerError: The service can't be reached, or refuses.
        """
        with self.study.brought_up_to_date():
            record = self.study.service()
            if self.study.outcome() is not None:
                return
            if record is None:
                self._end("Canceled", "It was canceled before it was sent.", 0.0)
                return
            self.study.write_service(msgspec.structs.replace(record, canceled=True))
            self._service.cancel(self.study, self.definition)

    def _reload(self) -> None:
        """Take up what is on the disk: another process may have written there."""
        for number, trial in self.study.trials().items():
            self.trials[number] = trial
            if trial.state.finished:
                if self.running.pop(number, None) is not None:
                    self.curves[number] = self._curve(trial)
                    self._note_end(trial)
                    self._view.ended(trial, self.best)
                elif number not in self.curves:
                    self.curves[number] = self._curve(trial)
                    self._note_end(trial)
            elif number not in self.running and (self.home.runs / trial.run_id).is_dir():
                self._under_way(trial)

    def _note_end(self, trial: Trial) -> None:
        self._succeeded |= trial.state in (TrialState.COMPLETED, TrialState.STOPPED)
        if trial.state is TrialState.FAILED:
            self._failures.append(trial)

    def _adopt(self, found: ServiceTrial) -> None:
        """Give a trial that the service has started its line and its run."""
        trial = self.trials.get(found.number)
        if trial is None:
            trial = Trial(number=found.number, run_id=new_run_id(), values=found.values, started=time.time())
            self.study.append(trial)
            self.trials[found.number] = trial
        if trial.state.finished or found.number in self.running:
            return
        folder = runs.adopt(self.home, self.study, self.definition, trial, dict(found.detail))
        self._submitted(folder)
        self._under_way(trial)

    def _under_way(self, trial: Trial) -> None:
        self.running[trial.number] = Running(trial, RunFolder(self.home.runs / trial.run_id))
        self._view.started(trial)

    def _refresh(self) -> None:
        """Bring the trials under way up to date, and write down which have ended."""
        if self._is_canceled:
            self._end_what_runs_apart()
        for running in self.running.values():
            running.status = self.backend.refresh(running.folder).status
            self._read(running)
        # Judged when all are known: a bound is another trial's.
        for number in [number for number, running in self.running.items() if running.status.terminal]:
            self._note_stopped(self.running[number])
            running = self.running.pop(number)
            try:
                self._judge_end(self._ended(running), running)
                self._check_failures()
            except TrainerError as error:
                self._give_up(error)
                raise

    def _give_up(self, error: TrainerError) -> None:
        record = self.study.service()
        if record is not None:
            self.study.write_service(msgspec.structs.replace(record, canceled=True))
        self._service.cancel(self.study, self.definition)
        self._end_what_runs_apart()
        self._end("Failed", error.message, time.time() - self._began)

    @property
    def _is_canceled(self) -> bool:
        """Whether the whole study was to end early: by a command, by the service's clock, or in Azure's portal."""
        record = self.study.service()
        return (record is not None and record.canceled) or (
            self._seen is not None and self._seen.status is RunStatus.CANCELED
        )

    def _end_what_runs_apart(self) -> None:
        """Cancel the trials that were sent again, which the service's end does not reach, and send no more."""
        for running in self.running.values():
            self._service.restart_no_more(running.folder)
            info = running.folder.info()
            if self._service.runs_apart(info) and not self._service.cancel_was_asked(info):
                self.backend.cancel(running.folder)

    def _note_stopped(self, running: Running) -> None:
        """Say by what a trial was stopped, if a policy did it.

        The service says neither that, nor when and against which bound: it is what the policy's formula gives for the
        curves here.
        """
        policy, info = self.definition.stop, running.folder.info()
        if info.status is not RunStatus.CANCELED or info.stopped is not None or policy is None:
            return
        if self._service.cancel_was_asked(info):
            return
        number, curve = running.trial.number, running.curve
        for interval in intervals(policy, 0, len(curve)):
            found = judge(policy, self.definition.goal, number, interval, self.curves)
            if found is not None:
                running.folder.update(stopped=found)
                return
        if not self._is_canceled and curve:
            running.folder.update(stopped=Stopped(by=policy.name, step=len(curve), value=curve[-1]))

    def _finish(self, look: ServiceLook) -> Outcome:
        ended = look.ended or time.time()
        seconds = max(0.0, ended - (look.started or self.definition.created))
        record = self.study.service() or ServiceRecord(run="")
        # The service doesn't know of the trials that were sent again.
        if record.canceled and self._ended_apart(TrialState.CANCELED):
            return self._end("Canceled", "It was canceled.", seconds)
        if look.status is RunStatus.FAILED and not (
            len(self.trials) >= self.total and self._ended_apart(TrialState.COMPLETED)
        ):
            return self._end("Failed", look.reason or "The service gives no reason.", seconds)
        if look.status in (RunStatus.COMPLETED, RunStatus.FAILED):
            # A grid may be smaller than what was asked for.
            self.total = len(self.trials)
            return self._end("Completed", "", seconds)
        minutes = self.definition.max_minutes
        if not record.canceled and minutes is not None and seconds >= minutes * 60 - _CAP_SLACK_SECONDS:
            left = self.total - sum(trial.state.finished for trial in self.trials.values())
            left += sum(trial.state is TrialState.CANCELED for trial in self.trials.values())
            return self._end("Completed", f"Its time was over with {left} of {self.total} trials left.", seconds)
        return self._end("Canceled", look.reason or "It was canceled.", seconds)

    def _ended_apart(self, state: TrialState) -> bool:
        """Whether a trial that was sent again has ended so."""
        return any(
            trial.state is state and self._service.runs_apart(RunFolder(self.home.runs / trial.run_id).info())
            for trial in self.trials.values()
        )


def refuse_to_resume(study_id: str, given: dict[str, object]) -> None:
    """Refuse what a study that a service drives can't be given later.

    Args:
        study_id: The study.
        given: What a command gives anew, by name; None for what it doesn't.

    Raises:
        UsageError: Something is given.
    """
    named = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    if named:
        raise UsageError(
            f"{', '.join(named)}: what the service drives can't be changed once it was sent.",
            "Start another study; the samplers tpe and grid of --driver client can learn from this one's trials: "
            f"--warm-start {study_id}",
        )
