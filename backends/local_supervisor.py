"""The process that watches over one run: starts the job, keeps the record, collects what it leaves.

It detaches from the client that submitted the run and holds the run's ``supervisor`` lock for as long as it lives. The
kernel frees that lock when it dies, however it dies, so a run that is under way and whose lock is free has
lost its supervisor. The client that notices takes the lock and ends the run with :func:`take_over`.

A job that is ended by a signal, or whose supervisor has died, is started again in its working directory as often as it
was allowed to (``--max-restarts``), and goes on from its last checkpoint: :mod:`trainer.runtime.attempts`.

The job works on a copy of the snapshot, in the run's folder: :mod:`backends.local_workdir`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec

from backends import local_processes as processes
from backends.local_cap import Cap
from backends.local_contention import Watch
from backends.local_store import LocalStore
from backends.local_workdir import collect_outputs, make_workdir, release_reserve, working_directory
from trainer.artifacts import ArtifactStore
from trainer.errors import TrainerError
from trainer.failures import failure, reason
from trainer.finish import Outcome, finish
from trainer.job import TrainingJob
from trainer.records import Restart, RunFailure, RunInfo, RunStatus
from trainer.runfolder import RunFolder
from trainer.runtime.attempts import find_checkpoint, lay, pattern_for, trim_metrics, words_for
from trainer.runtime.layout import BLAS_VARIABLES, METRICS_FILE, OUTPUTS_DIR

SUPERVISOR_LOCK = "supervisor"
# Takes what the supervisor itself prints: nothing, or a traceback.
SUPERVISOR_LOG = "supervisor_log.txt"
_POLL_SECONDS = 0.2
_MINUTE = 60.0
_TRIES = 25
# Sent from outside the script: by a person, the system's shortage of memory, a shutdown. A crash is the script's fault.
_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGHUP}
_SUPERVISOR_DIED = "the process that supervised the run died: it was killed, or this machine was restarted"


def cancel_flag(folder: RunFolder) -> Path:
    """Return the file whose existence asks for the run to stop."""
    return folder.path / ".cancel"


class Jobs(Protocol):
    """How a job's processes are started, waited for and stopped; :mod:`backends.local_processes` is one way."""

    def start(self, command: list[str], directory: Path, folder: RunFolder) -> Any:  # noqa: ANN401
        """Start the job; what is returned has a ``pid``."""

    def wait(self, process: Any, seconds: float) -> int | None:  # noqa: ANN401
        """Wait for it to end; return its exit status, or None when the time is over."""

    def reap_adopted(self, job: Any) -> None:  # noqa: ANN401
        """Collect the ended processes that it left to us."""

    def stop_children(self) -> None:
        """End it, and every process that it started."""


def supervise(folder: RunFolder, store: ArtifactStore, *, minute: float = _MINUTE, jobs: Jobs = processes) -> None:
    """Run the folder's job to its end. The caller holds the supervisor's lock.

    Args:
        folder: The run, with its staged snapshot.
        store: Takes the model.
        minute: Seconds in a minute of the job's cap.
        jobs: Starts and stops processes.
    """
    info = folder.info()
    if info.status.terminal:
        return
    if info.status is not RunStatus.NOT_STARTED and not goes_on(folder):
        take_over(folder, store)
        return
    try:
        outcome = _run_job(folder, minute, jobs)
    except Exception as error:  # job.json may be damaged, the snapshot unreadable, the disk full: the run must end
        jobs.stop_children()
        outcome = Outcome(RunStatus.FAILED, RunFailure(message=f"The job could not be started: {reason(error)}"))
    _finish(folder, store, outcome)


def goes_on(folder: RunFolder) -> bool:
    """Return whether a run whose supervisor has died is to be started again. The caller holds the supervisor's lock."""
    try:
        info = folder.info()
        was_at_work = info.status in (RunStatus.PREPARING, RunStatus.RUNNING) and info.failure is None
        return was_at_work and not cancel_flag(folder).exists() and _may_restart(folder)
    except TrainerError:  # a damaged record
        return False


def _may_restart(folder: RunFolder) -> bool:
    return len(folder.info().restarts) < (folder.job().max_restarts or 0)


def take_over(folder: RunFolder, store: ArtifactStore) -> RunInfo:
    """End a run whose supervisor has died. The caller holds the supervisor's lock.

    What is left of the job is stopped rather than adopted: its exit status went with its parent, and it has
    left a checkpoint from which ``trainer resume`` goes on. A run that was being finalized is finalized.
    """
    info = folder.info()
    if info.status.terminal:
        return info
    processes.stop(processes.find_processes(folder.path))
    if info.status is RunStatus.FINALIZING:
        outcome = Outcome(RunStatus.COMPLETED)
    elif info.failure is not None:
        # The supervisor knew how the script had ended, and died while it collected the outputs.
        outcome = Outcome(RunStatus.FAILED, info.failure)
    elif cancel_flag(folder).exists():
        outcome = Outcome(RunStatus.CANCELED)
    else:
        message = f"{_SUPERVISOR_DIED[0].upper()}{_SUPERVISOR_DIED[1:]}."
        outcome = Outcome(RunStatus.FAILED, RunFailure(message=message, log_tail=folder.log_tail(), lost=True))
    return _finish(folder, store, outcome)


def _finish(folder: RunFolder, store: ArtifactStore, outcome: Outcome) -> RunInfo:
    # Collecting removes the working directory, which makes more room for the record on a disk that the job has filled.
    release_reserve(folder)
    return finish(folder, lambda: store, outcome, collect=lambda: collect_outputs(folder))


def _run_job(folder: RunFolder, minute: float, jobs: Jobs) -> Outcome:
    info, job = folder.info(), folder.job()
    ranks = None
    if job.ranks > 1:
        from backends.local_ranks import RankJobs

        jobs = ranks = RankJobs(folder, job.ranks)
    lost = ""
    cap = Cap(folder, minute)
    if info.status is not RunStatus.NOT_STARTED:
        lost = _SUPERVISOR_DIED
        processes.stop(processes.find_processes(folder.path))
    folder.update(status=RunStatus.PREPARING, detail={"supervisor_pid": os.getpid(), **cap.detail})
    work = make_workdir(folder) if info.started is None else working_directory(folder)
    while True:
        killed = processes.oom_kills()
        outcome = _attempt(folder, cap, jobs, work, _again(folder, job, work, lost) if lost else ())
        if isinstance(outcome, Outcome):
            return outcome
        out_of_memory = processes.oom_kills() > killed
        lost = _loss(outcome, out_of_memory=out_of_memory)
        if not lost or not _may_restart(folder):
            judge = ranks.outcome if ranks else Outcome.from_exit_code
            return judge(folder, outcome, out_of_memory=out_of_memory)


def _again(folder: RunFolder, job: TrainingJob, work: Path, lost: str) -> tuple[str, ...]:
    """Lay out what a further attempt goes on from, and record it; return what is added to the script's arguments."""
    script = work / job.script
    with _one_blas_thread():
        found = find_checkpoint(work / OUTPUTS_DIR, pattern_for(script, job.checkpoints))
    lay(found, work)
    trim_metrics(folder.path / METRICS_FILE, found)

    def add(now: RunInfo) -> RunInfo:
        attempt = 2 + len(now.restarts)
        restart = Restart(attempt=attempt, time=time.time(), reason=lost, epoch=found.epoch, checkpoint=found.newest)
        return msgspec.structs.replace(now, restarts=(*now.restarts, restart))

    folder.update(add)
    return words_for(script, found)


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Let NumPy, if it is imported meanwhile, start no threads: a process that has some can't start another safely."""
    before = {name: os.environ.get(name) for name in BLAS_VARIABLES}
    os.environ.update(dict.fromkeys(BLAS_VARIABLES, "1"))
    try:
        yield
    finally:
        # The next attempt's environment is made from this one.
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _loss(exit_code: int, *, out_of_memory: bool) -> str:
    """Say how a job was lost; empty for one that has ended by itself."""
    if -exit_code not in _FROM_OUTSIDE:
        return ""
    message = failure(exit_code, (), out_of_memory=out_of_memory).message.rstrip(".")
    return message[0].lower() + message[1:]


def _attempt(folder: RunFolder, cap: Cap, jobs: Jobs, work: Path, words: tuple[str, ...]) -> Outcome | int:
    """Run the job once. Returns its exit status, or what ended it."""
    job = folder.job()
    if _stop_requested(folder):
        return Outcome(RunStatus.CANCELED)
    cap.begin()
    if cap.is_over():
        return Outcome.over_cap(folder)
    process = jobs.start([*job.command(sys.executable), *words], work, folder)
    detail = {"supervisor_pid": os.getpid(), "pid": process.pid, **cap.detail}
    started = folder.info().started or time.time()
    folder.update(status=RunStatus.RUNNING, started=started, detail=detail)
    watch = Watch(folder.job_environment())
    while (exit_code := jobs.wait(process, _POLL_SECONDS)) is None:
        jobs.reap_adopted(process)
        with suppress(OSError, TrainerError):  # a full disk, or a folder that was removed
            folder.mend()
            if advice := watch.advice(process.pid):
                folder.update(warnings=(*folder.info().warnings, advice))
        if _stop_requested(folder):
            jobs.stop_children()
            return Outcome(RunStatus.CANCELED)
        if cap.is_over():
            jobs.stop_children()
            return Outcome.over_cap(folder)
    # Processes that outlive the job would go on writing to outputs that are about to be collected.
    jobs.stop_children()
    return exit_code


def _stop_requested(folder: RunFolder) -> bool:
    return cancel_flag(folder).exists() or not folder.path.is_dir()


def _take_lock(stack: ExitStack, folder: RunFolder) -> bool:
    """Take the supervisor's lock, which whoever looks for a living supervisor holds for a moment."""
    for _ in range(_TRIES):
        with suppress(BlockingIOError):
            stack.enter_context(folder.locked(SUPERVISOR_LOCK, blocking=False))
            return True
        time.sleep(_POLL_SECONDS)
    return False


def main(run_dir: str, models: str) -> None:
    """Detach, supervise, and return when the run has ended.

    The process that was started ends as soon as the detached one holds the run's lock.
    """
    announce = processes.detach()
    folder = RunFolder(Path(run_dir))
    # A shutdown, or a plain kill, is a cancel.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: cancel_flag(folder).touch())
    processes.become_subreaper()
    with ExitStack() as stack:
        if not _take_lock(stack, folder):
            announce()  # another process supervises the run by now
            return
        announce()
        try:
            supervise(folder, LocalStore(Path(models)))
        finally:
            processes.stop_children()
    log = folder.logs / SUPERVISOR_LOG
    if log.is_file() and not log.stat().st_size:
        log.unlink()


if __name__ == "__main__":
    main(*sys.argv[1:])
