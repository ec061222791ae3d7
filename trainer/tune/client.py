"""The client driver: asks for values, submits runs, reads their metrics, stops the hopeless ones.

It goes through :class:`~trainer.backend.Backend` alone, so it drives trials on any backend. It may be killed at any
instant: a trial's line is on the disk before its run exists, and whoever resumes the study finds each run by it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from trainer.backend import Backend
from trainer.errors import ConfigError, InterruptedRunError, TrainerError
from trainer.failures import FULL
from trainer.home import Home
from trainer.records import RunFailure, RunStatus, Stopped
from trainer.runfolder import RunFolder
from trainer.runids import new_run_id
from trainer.tune import trials as runs
from trainer.tune.driver import Driver, Running, View
from trainer.tune.proposals import Proposals, check_warm_start, make_optuna
from trainer.tune.stopping import intervals, judge
from trainer.tune.study import Outcome, StudyFolder, Trial, TrialState, find_study

_POLL_SECONDS = 0.02
_POLL_SECONDS_REMOTE = 0.2
_CANCEL_SECONDS = 120.0


class ClientDriver(Driver):
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
        super().__init__(study, backend, home, view)
        self.parallel = parallel or self.definition.parallel
        self.began = time.monotonic()
        self.total = trials or self.total
        self._seconds = seconds
        self._submitted = submitted
        self._judged: dict[int, int] = {}
        self._lost: set[int] = set()

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
            ConfigError: The disk is full.
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
                # What is wrong with this machine or its settings can be put right, and the study goes on.
                status = "Interrupted" if isinstance(error, ConfigError) else "Failed"
                with suppress(OSError):  # the disk may be full
                    self._end_now(status, error.message)
                raise
            return self._end_now("Completed", reason)

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
            folder = RunFolder(self.home.runs / trial.run_id)
            interrupted = trial.state is TrialState.INTERRUPTED and folder.path.is_dir()
            if interrupted and folder.info().status is RunStatus.COMPLETED:  # before it could be canceled
                trial = self.trials[trial.number] = msgspec.structs.replace(trial, state=TrialState.RUNNING)
            if trial.state is not TrialState.RUNNING:
                continue
            if not folder.path.is_dir() or (
                folder.info().status is RunStatus.NOT_STARTED and not folder.being_submitted()
            ):
                self._submit(trial)
                continue
            info = self.backend.refresh(folder)
            if info.failure is not None and (info.failure.lost or self._is_full(info.failure)):
                # Nobody watched over it any more, or it had no room: it is not the script that failed.
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
            self._check_failures()
            self._view.tick(self)
            if self._over() and self.running:
                self._cancel_running("the study's time was over")
            if not self.running and (not more or self._over()):
                break
            if not ended:
                time.sleep(pause)
        if not self._over():
            self._check_end()
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
        self._judged.pop(trial.number, None)
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
        if info.status.terminal or running.stopped is not None:
            return info.status.terminal
        stopped = self._judge(number, running.curve)
        if stopped is not None:
            running.stopped = stopped
            running.folder.update(stopped=stopped)
            self.backend.cancel(running.folder)
        return False

    def _judge(self, number: int, curve: list[float | None]) -> Stopped | None:
        policy, judged = self.definition.stop, self._judged.get(number, 0)
        # One that was started again begins with the curve up to its checkpoint.
        self._judged[number] = max(judged, len(curve))
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
        info, number = running.folder.info(), running.trial.number
        self._judge(number, running.curve)
        if info.failure is not None and info.failure.lost and number not in self._lost:
            # Once more: it was not the script that failed.
            self._lost.add(number)
            reason = info.failure.message
            self._proposals.again(self._record(running.trial, TrialState.INTERRUPTED, reason=reason, info=info))
            self._view.note(f"trial {number} runs again: {reason}")
            return
        if info.failure is not None and self._is_full(info.failure):
            self._record(running.trial, TrialState.INTERRUPTED, reason=info.failure.message, info=info)
            raise ConfigError(
                f"Study {self.study.study_id} was interrupted: trial {number} failed as {FULL}.",
                f"Free some space, then go on: trainer tune --resume {self.study.study_id}",
            )
        trial = self._ended(running)
        if self._optuna is not None:
            self._optuna.tell(trial)
        self._judge_end(trial, running)

    def _is_full(self, failure: RunFailure) -> bool:
        """Whether a trial failed for want of room on this machine, where room can be made."""
        return not self.backend.remote and FULL in failure.message

    def _cancel_running(self, why: str) -> None:
        """Cancel what is under way; it runs again when the study is taken up."""
        for running in self.running.values():
            with suppress(TrainerError):
                self.backend.cancel(running.folder)
                if running.stopped is None:
                    # At once: a second Ctrl-C would else leave it as one that the user has canceled.
                    self._record(running.trial, TrialState.INTERRUPTED, reason=why)
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
            self._end_now("Interrupted", "Ctrl-C")
            return InterruptedRunError(
                f"Study {self.study.study_id} was interrupted. Its {len(self.running)} trials under way continue.",
                go_on,
            )
        self._view.note(f"Canceling {len(self.running)} trials ...")
        with suppress(KeyboardInterrupt, TrainerError):
            self._cancel_running("Ctrl-C")
        self._end_now("Interrupted", "Ctrl-C")
        return InterruptedRunError(f"Study {self.study.study_id} was interrupted.", go_on)

    def _give_up(self) -> None:
        with suppress(KeyboardInterrupt, TrainerError):
            self._cancel_running("the study was ended")

    def _end_now(self, status: str, reason: str) -> Outcome:
        return self._end(status, reason, time.monotonic() - self.began)


def _renumbered(
    earlier: list[tuple[Trial, list[float | None]]],
) -> list[tuple[Trial, list[float | None]]]:
    """Trials of other studies, with numbers that this one's don't have."""
    return [(msgspec.structs.replace(trial, number=-1 - index), curve) for index, (trial, curve) in enumerate(earlier)]
