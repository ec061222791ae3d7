"""The process that watches over one run: starts the job, keeps the record, collects what it leaves.

It detaches from whoever submitted the run and holds the run's ``supervisor`` lock for as long as it lives. The
kernel frees that lock when it dies, however it dies, so a run that is under way and whose lock is free has
lost its supervisor. Whoever notices takes the lock and ends the run with :func:`take_over`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from backends.local_store import LocalStore
from backends.local_support import processes, workdir
from trainer.artifacts import ArtifactStore
from trainer.errors import TrainerError
from trainer.failures import LINES, failure
from trainer.records import ModelRef, RunFailure, RunInfo, RunStatus
from trainer.runfolder import RunFolder
from trainer.runtime.layout import MODEL_FILE

SUPERVISOR_LOCK = "supervisor"
# Takes what the supervisor itself has to say, a traceback at worst.
SUPERVISOR_LOG = "supervisor_log.txt"
_POLL_SECONDS = 0.2
_MINUTE = 60.0


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    status: RunStatus
    failure: RunFailure | None = None


def cancel_flag(folder: RunFolder) -> Path:
    """The file whose existence asks for the run to stop."""
    return folder.path / ".cancel"


def supervise(folder: RunFolder, store: ArtifactStore, *, minute: float = _MINUTE) -> None:
    """Run the folder's job to its end. The caller holds the supervisor's lock.

    Args:
        folder: The run, with its staged snapshot.
        store: Takes the model.
        minute: Seconds in a minute of the job's cap.
    """
    if folder.info().status.terminal:
        return
    try:
        outcome = _run_job(folder, minute)
    except OSError as error:
        processes.stop_children()
        outcome = Outcome(RunStatus.FAILED, RunFailure(message=f"The job could not be started: {_words(error)}."))
    finish(folder, store, outcome)


def take_over(folder: RunFolder, store: ArtifactStore) -> RunInfo:
    """End a run whose supervisor has died. The caller holds the supervisor's lock.

    What is left of the job is stopped rather than adopted: its exit status went with its parent, and it has
    left a checkpoint from which ``trainer resume`` goes on. A run that was being finalized is finalized.
    """
    info = folder.info()
    if info.status.terminal:
        return info
    processes.stop(processes.leftovers(folder.path))
    if info.status is RunStatus.FINALIZING:
        outcome = Outcome(RunStatus.COMPLETED)
    elif cancel_flag(folder).exists():
        outcome = Outcome(RunStatus.CANCELED)
    else:
        message = "The process that supervised the run died: it was killed, or this machine was restarted."
        outcome = Outcome(RunStatus.FAILED, RunFailure(message=message, log_tail=folder.log_tail()))
    return finish(folder, store, outcome)


def finish(folder: RunFolder, store: ArtifactStore, outcome: Outcome) -> RunInfo:
    """Collect the outputs, register the model of a job that succeeded, and write the last word.

    Collecting removes the working directory, so on a disk that the job has filled there is room for that word.
    """
    model, warnings = None, folder.info().warnings
    try:
        if outcome.status is RunStatus.COMPLETED:
            folder.update(status=RunStatus.FINALIZING)
        workdir.collect(folder)
    except OSError as error:
        # The job's own failure is the better reason.
        outcome = Outcome(RunStatus.FAILED, outcome.failure or _lost(folder, "outputs could not be kept", error))
    if outcome.status is RunStatus.COMPLETED:
        try:
            model, warnings = _register(folder, store, warnings)
        except (OSError, TrainerError) as error:
            outcome = Outcome(RunStatus.FAILED, _lost(folder, "model could not be registered", error))
    return folder.update(status=outcome.status, failure=outcome.failure, model=model, warnings=warnings)


def _run_job(folder: RunFolder, minute: float) -> Outcome:
    job = folder.job()
    host = socket.gethostname()
    folder.update(status=RunStatus.PREPARING, detail={"host": host, "supervisor_pid": os.getpid()})
    work = workdir.make(folder)
    if _unwanted(folder):
        return Outcome(RunStatus.CANCELED)
    process = processes.start(job.command(sys.executable), work, folder.log_path, folder.path)
    detail = {"host": host, "supervisor_pid": os.getpid(), "pid": process.pid}
    folder.update(status=RunStatus.RUNNING, started=time.time(), detail=detail)
    deadline = None if job.max_minutes is None else time.monotonic() + job.max_minutes * minute
    while (exit_code := processes.wait(process, _POLL_SECONDS)) is None:
        processes.reap_adopted(process)
        if _unwanted(folder):
            processes.stop_children()
            return Outcome(RunStatus.CANCELED)
        if deadline is not None and time.monotonic() > deadline:
            processes.stop_children()
            message = f"It was stopped after {job.max_minutes} min, the cap that it was submitted with."
            return Outcome(RunStatus.FAILED, RunFailure(message=message, log_tail=folder.log_tail()))
    # Processes that outlive the job would go on writing to outputs that are about to be collected.
    processes.stop_children()
    if exit_code == 0:
        return Outcome(RunStatus.COMPLETED)
    return Outcome(RunStatus.FAILED, failure(exit_code, folder.log_tail(LINES)))


def _unwanted(folder: RunFolder) -> bool:
    return cancel_flag(folder).exists() or not folder.path.is_dir()


def _register(
    folder: RunFolder, store: ArtifactStore, warnings: tuple[str, ...]
) -> tuple[ModelRef | None, tuple[str, ...]]:
    name = folder.job().model_name
    if name is None:
        return None, warnings
    if not (folder.outputs / MODEL_FILE).is_file():
        return None, (*warnings, f"The script left no outputs/{MODEL_FILE}, so no model was registered.")
    model = store.register(folder, name)
    return ModelRef(name=model.name, version=model.version, sha256=model.sha256), warnings


def _lost(folder: RunFolder, what: str, error: OSError | TrainerError) -> RunFailure:
    words = error.message if isinstance(error, TrainerError) else f"{_words(error)}."
    return RunFailure(message=f"The job succeeded, but its {what}: {words}", log_tail=folder.log_tail())


def _words(error: OSError) -> str:
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"


def main(run_dir: str, models: str) -> None:
    """Detach, supervise, and return when the run has ended.

    The process that was started ends as soon as the detached one holds the run's lock.
    """
    ready, announce = os.pipe()
    if os.fork():
        os.close(announce)
        # Nothing is written if the detached process dies first.
        os._exit(0 if os.read(ready, 1) else 1)
    os.close(ready)
    os.setsid()
    folder = RunFolder(Path(run_dir))
    # A terminal's end must not end the run; a shutdown, or a plain kill, is a cancel.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: cancel_flag(folder).touch())
    processes.become_subreaper()
    with folder.locked(SUPERVISOR_LOCK):
        os.write(announce, b"1")
        os.close(announce)
        try:
            supervise(folder, LocalStore(Path(models)))
        finally:
            processes.stop_children()
    log = folder.logs / SUPERVISOR_LOG
    if log.is_file() and not log.stat().st_size:
        log.unlink()


if __name__ == "__main__":
    main(*sys.argv[1:])
