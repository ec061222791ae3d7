"""The thread that moves jobs on."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from azureml_emulator.jobs.collect import collect, stream
from azureml_emulator.jobs.command import CommandPlan
from azureml_emulator.jobs.eviction import LOG_FOLDERS, error_of_eviction, has_lost_its_node
from azureml_emulator.jobs.files import keep_outputs
from azureml_emulator.jobs.local import TARGET as LOCAL_TARGET
from azureml_emulator.jobs.nodes import NodePool
from azureml_emulator.jobs.plans import plan_of
from azureml_emulator.jobs.process import Attempt, Outcome, prepare_job
from azureml_emulator.private import tighten_all
from azureml_emulator.service import Service
from azureml_emulator.store.artifacts import RUN_ORIGIN
from azureml_emulator.store.compute import NodeStateCounts, ScaleSettings
from azureml_emulator.store.jobs import Job, JobState
from azureml_emulator.store.runs import RunStatus

TICK = 0.1
NOTE_INTERVAL = 5.0
"""Seconds between two notes that the emulator is there."""
STREAM_INTERVAL = 0.5
"""Seconds between two looks for new files in a running job's ./logs."""
CLAIM_TIMEOUT = 60.0
"""Seconds after which a supervisor that has not shown up is taken for lost."""
LOCAL_TIMEOUT = 600.0
"""The same for a local run, whose client copies its files first."""
END_TIMEOUT = 30.0
"""Seconds that a supervisor has to end after it has written the outcome."""

COMPLETED = Outcome("exited", 0)

log = logging.getLogger(__name__)


class Scheduler:
    """Queues jobs on clusters, starts them, and sees how they end.

    All it knows is in the database and in the jobs' directories, and it looks at both again on every tick. So after a
    restart it goes on with jobs that are still running, and finds those that are gone.

    Args:
        service: The emulator's state.
        on_tick: Called on every tick, for what else needs driving.
    """

    def __init__(self, service: Service, on_tick: Callable[[], None] = lambda: None) -> None:
        self._service = service
        self._on_tick = on_tick
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="scheduler", daemon=True)
        self._workers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="job")
        self._pending: dict[str, Future[None]] = {}
        self._supervisors: dict[str, subprocess.Popen[bytes]] = {}
        self._next_stream: dict[str, float] = {}
        self._pools: dict[str, NodePool] = {}
        self._pools_lock = threading.Lock()
        self._next_note = time.monotonic()
        for job in service.jobs.active():
            if job.state is JobState.RUNNING and job.compute != LOCAL_TARGET:
                self._pool(job.compute).busy += job.nodes

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, *, kill_jobs: bool = False) -> None:
        """Stop the thread. Jobs go on, unless they are to be killed."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._workers.shutdown(wait=True)
        if kill_jobs:
            for job in self._service.jobs.active():
                self._attempt(job).kill()

    def node_counts(self, compute: str) -> NodeStateCounts:
        """Return what the nodes of a cluster are doing."""
        with self._pools_lock:
            return self._pool(compute).counts()

    def forget_compute(self, compute: str) -> None:
        """Forget the nodes of a cluster that has been deleted."""
        with self._pools_lock:
            self._pools.pop(compute, None)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                self.tick()
            except Exception:
                # One bad job must not keep the others from running.
                log.exception("the scheduler's tick failed")
            self._stopping.wait(TICK)

    def tick(self) -> None:
        """Look at every job once."""
        now = time.time()
        if time.monotonic() >= self._next_note:
            self._next_note = time.monotonic() + NOTE_INTERVAL
            self._service.note_being_here()
        self._settle_pools(now)
        blocked: set[str] = set()
        # Before the jobs are read: what a worker has done with one by now is in the database.
        busy = {run_id for run_id in list(self._pending) if self._is_busy(run_id)}
        for job in self._service.jobs.active():
            if job.run_id in busy:
                continue
            if job.state is JobState.PREPARING:
                self._prepare(job, now)
            elif job.state is JobState.QUEUED:
                self._try_to_start(job, now, blocked)
            else:
                self._watch(job, now)
        self._on_tick()

    def _is_busy(self, run_id: str) -> bool:
        future = self._pending.get(run_id)
        if future is None:
            return False
        if not future.done():
            return True
        del self._pending[run_id]
        future.result()
        return False

    # Preparing and Queued

    def _prepare(self, job: Job, now: float) -> None:
        if job.cancel:
            self._end(job, RunStatus.CANCELED)
        elif now >= job.ready_at:
            self._service.runs.set_status(job.run_id, RunStatus.QUEUED)
            ready_at = now + self._service.settings.phase_duration
            self._service.jobs.update(job.run_id, state=JobState.QUEUED, ready_at=ready_at)

    def _try_to_start(self, job: Job, now: float, blocked: set[str]) -> None:
        if job.cancel:
            self._end(job, RunStatus.CANCELED)
            return
        cluster = self._service.computes.find(job.compute)
        if cluster is None:
            self._end(job, RunStatus.FAILED, "ComputeTargetNotFound", f"Cluster {job.compute} has been deleted.")
            return
        if job.compute in blocked or now < max(job.ready_at, cluster.ready_at):
            # First in, first out: nobody overtakes a job that waits for more nodes.
            blocked.add(job.compute)
            return
        with self._pools_lock:
            pool = self._pool(job.compute)
            scale = cluster.spec.scale_settings
            pool.scale_to(pool.busy + job.nodes, scale, self._service.settings.node_start_duration, now)
            taken = pool.take(job.nodes)
        if not taken:
            blocked.add(job.compute)
            return
        # Recorded before the process exists: a crash in between shows as a job without a claim, never as two.
        job = self._service.jobs.update(
            job.run_id, state=JobState.RUNNING, attempt=job.attempt + 1, started_at=now, evict=False
        )
        self._service.runs.set_status(job.run_id, RunStatus.STARTING)
        self._pending[job.run_id] = self._workers.submit(self._launch, job)

    def _launch(self, job: Job) -> None:
        try:
            attempt = self._attempt(job)
            prepare_job(self._service, job, attempt)
            self._supervisors[job.run_id] = attempt.start()
            self._service.runs.set_status(job.run_id, RunStatus.RUNNING)
        except Exception as error:
            log.exception("starting %s failed", job.run_id)
            self._release_nodes(job)
            self._end(job, RunStatus.FAILED, "JobNotStarted", f"The job could not be started: {error}")

    # Running

    def _watch(self, job: Job, now: float) -> None:
        attempt = self._attempt(job)
        supervisor = self._supervisors.get(job.run_id)
        if supervisor is not None:
            supervisor.poll()
        sight = attempt.look()
        alive, outcome = sight.alive, sight.outcome
        if alive and job.compute == LOCAL_TARGET:
            self._service.runs.start(job.run_id)
        if alive and now >= self._next_stream.get(job.run_id, 0.0):
            self._next_stream[job.run_id] = now + STREAM_INTERVAL
            self._stream_logs(job, attempt)
        if outcome is not None and (not job.evict or outcome == COMPLETED):
            self._pending[job.run_id] = self._workers.submit(self._finish, job, outcome)
        elif job.evict:
            if outcome is not None or has_lost_its_node(self._service, job, attempt, now):
                self._evict(job, attempt)
        elif not sight.claimed:
            self._wait_for_claim(job, attempt, now)
        elif not alive:
            message = "The job's processes are gone, and left no exit code."
            self._pending[job.run_id] = self._workers.submit(self._finish, job, Outcome(message, -1))
        elif job.cancel and job.cancelled_at is None:
            self._service.runs.set_status(job.run_id, RunStatus.CANCEL_REQUESTED)
            self._service.jobs.update(job.run_id, cancelled_at=now)
            attempt.terminate()
        elif job.cancelled_at is not None and now > job.cancelled_at + self._service.settings.cancel_grace + 10:
            attempt.kill()

    def _stream_logs(self, job: Job, attempt: Attempt) -> None:
        if self._service.command_jobs.find(job.run_id) is not None:
            container = self._service.runs.get(job.run_id).data_container_id
            stream(attempt.work, container, self._service.artifacts, self._service.blobs)

    def _wait_for_claim(self, job: Job, attempt: Attempt, now: float) -> None:
        waited = now - job.started_at
        if job.compute != LOCAL_TARGET:
            if waited > CLAIM_TIMEOUT and attempt.void():
                self._requeue(job)
        elif job.cancel and attempt.void():
            self._end(job, RunStatus.CANCELED)
        elif waited > LOCAL_TIMEOUT and attempt.void():
            self._end(job, RunStatus.FAILED, "JobNotStarted", "The client has not started its local run.")

    def _finish(self, job: Job, outcome: Outcome) -> None:
        service = self._service
        run = service.runs.get(job.run_id)
        plan = plan_of(service, run)
        attempt = self._attempt(job)
        _wait_for_end(attempt)
        try:
            if isinstance(plan, CommandPlan):
                keep_outputs(service, plan, attempt.directory)
            collect(attempt.work, plan.folders, run.data_container_id, service.artifacts, service.blobs)
        except OSError as error:
            log.exception("collecting the files of %s failed", job.run_id)
            service.runs.add_warning(job.run_id, "OutputCollection", f"Not all files were collected: {error}")
        # The SDK opens some of a job's folders to all, whatever the umask.
        tighten_all(attempt.directory)
        service.runs.set_status(job.run_id, RunStatus.FINALIZING)
        self._release_nodes(job)
        if outcome.reason == "terminated" or (outcome.reason != "exited" and job.cancelled_at is not None):
            self._end(job, RunStatus.CANCELED)
        elif outcome.reason == "timeout":
            message = "The run reached its maximum duration and was cancelled."
            service.runs.add_warning(job.run_id, "MaxRunDurationReached", message)
            self._end(job, RunStatus.CANCELED)
        elif outcome.reason == "exited" and outcome.code == 0:
            self._end(job, RunStatus.COMPLETED)
        elif outcome.reason == "exited":
            message = f"The process exited with code {outcome.code}. See user_logs/{plan.log_names()[0]}."
            self._end(job, RunStatus.FAILED, "JobFailed", message)
        else:
            self._end(job, RunStatus.FAILED, "NodeLost", outcome.reason)

    def _evict(self, job: Job, attempt: Attempt) -> None:
        attempt.kill()
        with self._pools_lock:
            self._pool(job.compute).lose(job.nodes)
        # What the script had to say of its own end is not why the run ends.
        self._service.runs.update(job.run_id, lambda run: setattr(run, "error", None))
        error = error_of_eviction(self._service, job)
        if error is None:
            self._requeue(job, nodes_lost=True)
        else:
            self._end(job, RunStatus.FAILED, *error)

    def _requeue(self, job: Job, *, nodes_lost: bool = False) -> None:
        if not nodes_lost:
            self._release_nodes(job)
        run = self._service.runs.get(job.run_id)
        # What has been uploaded stays, and its names are taken. Logs begin again, with the next attempt's.
        self._service.artifacts.forget(RUN_ORIGIN, run.data_container_id, LOG_FOLDERS)
        self._service.runs.set_status(job.run_id, RunStatus.QUEUED)
        self._service.jobs.update(job.run_id, state=JobState.QUEUED, evict=False, noticed_at=None)

    def _end(self, job: Job, status: RunStatus, code: str = "", message: str = "") -> None:
        if status is RunStatus.FAILED:
            self._service.runs.set_error(job.run_id, code, message)
        with self._service.database.transaction():
            self._service.runs.set_status(job.run_id, status)
            self._service.jobs.update(job.run_id, state=JobState.ENDED)
        self._next_stream.pop(job.run_id, None)
        supervisor = self._supervisors.pop(job.run_id, None)
        if supervisor is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                supervisor.wait(1)

    # Nodes

    def _attempt(self, job: Job) -> Attempt:
        return Attempt(self._service.state.jobs / job.run_id / str(job.attempt))

    def _pool(self, compute: str) -> NodePool:
        return self._pools.setdefault(compute, NodePool())

    def _settle_pools(self, now: float) -> None:
        for cluster in self._service.computes.list():
            with self._pools_lock:
                scale: ScaleSettings = cluster.spec.scale_settings
                if cluster.failure is None and now >= cluster.ready_at:
                    self._pool(cluster.name).settle(scale, self._service.settings.node_start_duration, now)

    def _release_nodes(self, job: Job) -> None:
        if job.compute == LOCAL_TARGET:
            return
        with self._pools_lock:
            self._pool(job.compute).give_back(job.nodes, time.time())


def _wait_for_end(attempt: Attempt) -> None:
    """Wait until nothing of an attempt is left: its supervisor writes the outcome just before it ends."""
    end = time.monotonic() + END_TIMEOUT
    while attempt.process() is not None and time.monotonic() < end:
        time.sleep(0.01)
