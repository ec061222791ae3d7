"""Driving sweeps: starting children, stopping the bad ones, ending the parent."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable

from azureml_emulator.jobs.submission import request_cancel, submit
from azureml_emulator.service import Service
from azureml_emulator.store.artifacts import RUN_ORIGIN
from azureml_emulator.store.runs import RunStatus
from azureml_emulator.store.sweeps import Sweep
from azureml_emulator.sweeps.bayesian import Observation, bayesian_sample
from azureml_emulator.sweeps.best import add_best
from azureml_emulator.sweeps.command_sweep import start_trial
from azureml_emulator.sweeps.curves import Curves, best_of
from azureml_emulator.sweeps.policy import Curve, make_policy
from azureml_emulator.sweeps.sampling import BAYESIAN, Sample
from azureml_emulator.sweeps.submission import TAG_PREFIX
from azureml_emulator.times import utc_now

LOG_NAME = "azureml-logs/hyperdrive.txt"
"""The one log that the SDK streams for a sweep."""

log = logging.getLogger(__name__)


class SweepDriver:
    """Moves sweeps on, one step per tick.

    How far a sweep has come is in the database, and a step is one transaction: an emulator that is killed at any
    instant has started each child once or not at all, and the next one goes on.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._curves = Curves(service)

    def tick(self) -> None:
        """Look at every active sweep once."""
        for run_id in self._service.sweeps.active():
            try:
                self._draw(run_id)
                with self._service.database.transaction():
                    self._step(run_id)
            except Exception as error:
                log.exception("sweep %s failed", run_id)
                self._fail(run_id, str(error))

    def _fail(self, run_id: str, reason: str) -> None:
        """Let a sweep end that can't go on, once its children have."""
        with self._service.database.transaction():
            sweep = self._sweep(run_id)
            again = sweep.failure is not None
            sweep.failure = sweep.failure or reason
            if again:
                self._service.runs.set_error(run_id, "ServiceError", sweep.failure)
                self._service.runs.set_status(run_id, RunStatus.FAILED)
            self._service.sweeps.save(sweep, active=not again)

    def _sweep(self, run_id: str) -> Sweep:
        sweep = self._service.sweeps.find(run_id)
        assert sweep is not None
        return sweep

    def _step(self, run_id: str) -> None:
        sweep = self._sweep(run_id)
        before = sweep.model_copy(deep=True)
        statuses = self._statuses(sweep)
        running = [child for child, status in statuses.items() if not status.is_final]
        metric = sweep.request.primary_metric_config
        curves = self._curves.of_children(run_id, metric.name, metric.goal)
        self._note_best(sweep, curves)
        self._note_end_of_time(sweep)
        ending = sweep.cancel or sweep.failure is not None
        if ending:
            for child in running:
                request_cancel(self._service, child)
        else:
            self._apply_policy(sweep, curves, running)
            self._start_children(sweep, len(running))
        # Children that have just been started are not among those that were looked at.
        seen_all = sweep.started == len(statuses)
        done = seen_all and not running and (ending or sweep.started == _total(sweep))
        if done:
            self._end(sweep, statuses)
        if sweep != before:
            self._service.sweeps.save(sweep, active=not done)

    def _statuses(self, sweep: Sweep) -> dict[str, RunStatus]:
        found = self._service.runs.child_statuses(sweep.run_id)
        return {child: found[child] for child in _children(sweep)}

    # Samples

    def _draw(self, run_id: str) -> None:
        """Draw the next sample of a sweep whose samples depend on results.

        Not in the transaction of the step: it takes longer than clients should wait.
        """
        sweep = self._sweep(run_id)
        generator, metric = sweep.request.generator_config, sweep.request.primary_metric_config
        wanted = sweep.started == len(sweep.samples) < _total(sweep) and not sweep.cancel and sweep.failure is None
        if generator.name.upper() != BAYESIAN or not wanted:
            return
        running = [status for status in self._statuses(sweep).values() if not status.is_final]
        if len(running) >= sweep.request.max_concurrent_jobs:
            return
        seen = self._observations(sweep)
        sample = bayesian_sample(generator.parameter_space, sweep.seed, sweep.started, seen, metric.goal)
        with self._service.database.transaction():
            # What a client has asked for meanwhile is kept.
            sweep = self._sweep(run_id)
            sweep.samples.append(sample)
            self._service.sweeps.save(sweep, active=True)

    def _observations(self, sweep: Sweep) -> Iterable[Observation]:
        metric = sweep.request.primary_metric_config
        earlier = (self._sweep(key.run_id) for key in sweep.request.resume_from)
        for each in (*earlier, sweep):
            curves = self._curves.of_children(each.run_id, metric.name, metric.goal)
            for (child, status), sample in zip(self._statuses(each).items(), each.samples, strict=False):
                best = best_of({child: curves[child]}, metric.goal) if child in curves else None
                yield Observation(sample, best.value if best else None, status.is_final)

    # Children

    def _start_children(self, sweep: Sweep, running: int) -> None:
        resumed = sweep.request.resume_child_runs
        while sweep.started < len(sweep.samples) and running < sweep.request.max_concurrent_jobs:
            sample = sweep.samples[sweep.started]
            child_id = f"{sweep.run_id}_{sweep.started}"
            earlier = resumed[sweep.started].run_id if sweep.started < len(resumed) else None
            if sweep.trial is not None:
                start_trial(self._service, sweep, child_id, sample)
            else:
                self._submit(sweep, child_id, sample, earlier)
            tag = {f"{TAG_PREFIX}{child_id}": json.dumps(sample)}
            self._service.runs.update(sweep.run_id, lambda run, tag=tag: run.tags.update(tag))  # type: ignore[misc]
            after = f", to go on from the outputs of {earlier}" if earlier else ""
            self._log(sweep, f"Started {child_id} with {json.dumps(sample)}{after}.")
            sweep.started += 1
            running += 1

    def _submit(self, sweep: Sweep, child_id: str, sample: Sample, earlier: str | None) -> None:
        definition = sweep.request.platform_config.Definition
        arguments = list(definition.Overrides.get("arguments") or [])
        for name, value in sample.items():
            arguments += [name, value]
        submit(
            self._service,
            experiment=sweep.experiment,
            run_id=child_id,
            configuration={**definition.Overrides, "arguments": arguments},
            snapshot_id=definition.SnapshotId,
            parent_run_id=sweep.run_id,
            tags={"hyperparameters": json.dumps(sample)},
            resume_from=earlier,
        )

    def _apply_policy(self, sweep: Sweep, curves: dict[str, Curve], running: list[str]) -> None:
        request, metric = sweep.request, sweep.request.primary_metric_config
        policy = make_policy(request.policy_config.name, request.policy_config.properties)
        if policy is None:
            return
        everyone = dict(curves)
        for key in request.resume_from:
            everyone |= self._curves.of_children(key.run_id, metric.name, metric.goal)
        for child in running:
            if child not in curves or child in sweep.stopped_early:
                continue
            others = [curve for run_id, curve in everyone.items() if run_id != child]
            for interval in policy.intervals(sweep.judged.get(child, 0), len(curves[child])):
                sweep.judged[child] = interval
                verdict = policy.judge(curves[child], others, interval)
                if verdict is None:
                    continue
                sweep.stopped_early.append(child)
                request_cancel(self._service, child)
                said = f"{metric.name} was {verdict.value:g}, and {verdict.bound:g} was needed"
                self._log(sweep, f"{request.policy_config.name} stopped {child} at interval {interval}: {said}.")
                break

    # The parent

    def _note_best(self, sweep: Sweep, curves: dict[str, Curve]) -> None:
        goal = sweep.request.primary_metric_config.goal
        found = best_of({child: curves[child] for child in _children(sweep) if child in curves}, goal)
        if found is None or (sweep.best is not None and not _is_better(found.value, sweep.best.value, goal)):
            return
        sweep.best = found
        add_best(self._service, sweep, final=False)

    def _note_end_of_time(self, sweep: Sweep) -> None:
        if sweep.deadline is None or time.time() < sweep.deadline or sweep.cancel:
            return
        sweep.cancel = True
        message = f"The sweep reached its maximum duration, {sweep.minutes} minute{'s' * (sweep.minutes != 1)}."
        self._service.runs.add_warning(sweep.run_id, "MaxDurationReached", message)
        self._log(sweep, message)

    def _end(self, sweep: Sweep, statuses: dict[str, RunStatus]) -> None:
        failed = [child for child, status in statuses.items() if status is RunStatus.FAILED]
        if sweep.failure is not None:
            status = RunStatus.FAILED
            self._service.runs.set_error(sweep.run_id, "ServiceError", sweep.failure)
        elif sweep.cancel:
            status = RunStatus.CANCELED
        elif failed and len(failed) == len(statuses):
            status = RunStatus.FAILED
            self._service.runs.set_error(sweep.run_id, "UserError", f"All {len(failed)} runs of the sweep failed.")
        else:
            status = RunStatus.COMPLETED
        add_best(self._service, sweep, final=True)
        self._service.runs.set_status(sweep.run_id, status)
        self._log(sweep, f"The sweep is {self._service.runs.get(sweep.run_id).status}.")
        self._curves.forget(sweep)

    def _log(self, sweep: Sweep, line: str) -> None:
        sweep.log.append(f"[{utc_now()}] {line}")
        artifact = self._service.artifacts.reserve(RUN_ORIGIN, f"dcid.{sweep.run_id}", LOG_NAME)
        self._service.blobs.commit_bytes(artifact.blob_key, ("\n".join(sweep.log) + "\n").encode())


def _children(sweep: Sweep) -> list[str]:
    return [f"{sweep.run_id}_{number}" for number in range(sweep.started)]


def _total(sweep: Sweep) -> int:
    """The number of children that a sweep will have; a grid may be smaller than what was asked for."""
    bayesian = sweep.request.generator_config.name.upper() == BAYESIAN
    return sweep.request.max_total_jobs if bayesian else len(sweep.samples)


def _is_better(value: float, than: float, goal: str) -> bool:
    return value > than if goal == "maximize" else value < than
