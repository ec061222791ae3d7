"""The process that watches over one run: starts the job, keeps the record, collects what it leaves.

It detaches from the client that submitted the run and holds the run's ``supervisor`` lock for as long as it lives. The
kernel frees that lock when it dies, however it dies, so a run that is under way and whose lock is free has
lost its supervisor. The client that notices takes the lock and ends the run with :func:`take_over`.

The job works on a copy of the snapshot, in the run's folder:

    work/            a copy of snapshot/, the job's working directory while it runs
    work/outputs/    a real directory, so that scripts may remove and make it
    outputs          meanwhile a link to it; afterwards the directory itself
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

from backends import local_processes as processes
from backends.local_store import LocalStore
from trainer.artifacts import ArtifactStore
from trainer.failures import reason
from trainer.finish import Outcome, finish
from trainer.records import RunFailure, RunInfo, RunStatus
from trainer.runfolder import RunFolder
from trainer.runtime.layout import OUTPUTS_DIR

SUPERVISOR_LOCK = "supervisor"
# Takes what the supervisor itself prints: nothing, or a traceback.
SUPERVISOR_LOG = "supervisor_log.txt"
_POLL_SECONDS = 0.2
_MINUTE = 60.0


def cancel_flag(folder: RunFolder) -> Path:
    """Return the file whose existence asks for the run to stop."""
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
        outcome = Outcome(RunStatus.FAILED, RunFailure(message=f"The job could not be started: {reason(error)}"))
    _finish(folder, store, outcome)


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
    elif cancel_flag(folder).exists():
        outcome = Outcome(RunStatus.CANCELED)
    else:
        message = "The process that supervised the run died: it was killed, or this machine was restarted."
        outcome = Outcome(RunStatus.FAILED, RunFailure(message=message, log_tail=folder.log_tail()))
    return _finish(folder, store, outcome)


def _finish(folder: RunFolder, store: ArtifactStore, outcome: Outcome) -> RunInfo:
    # Collecting removes the working directory, which makes room for the record on a disk that the job has filled.
    return finish(folder, lambda: store, outcome, collect=lambda: collect_outputs(folder))


def _run_job(folder: RunFolder, minute: float) -> Outcome:
    job = folder.job()
    host = socket.gethostname()
    folder.update(status=RunStatus.PREPARING, detail={"host": host, "supervisor_pid": os.getpid()})
    work = make_workdir(folder)
    if _stop_requested(folder):
        return Outcome(RunStatus.CANCELED)
    process = processes.start(job.command(sys.executable), work, folder)
    detail = {"host": host, "supervisor_pid": os.getpid(), "pid": process.pid}
    folder.update(status=RunStatus.RUNNING, started=time.time(), detail=detail)
    deadline = None if job.max_minutes is None else time.monotonic() + job.max_minutes * minute
    while (exit_code := processes.wait(process, _POLL_SECONDS)) is None:
        processes.reap_adopted(process)
        if _stop_requested(folder):
            processes.stop_children()
            return Outcome(RunStatus.CANCELED)
        if deadline is not None and time.monotonic() > deadline:
            processes.stop_children()
            return Outcome.over_cap(folder)
    # Processes that outlive the job would go on writing to outputs that are about to be collected.
    processes.stop_children()
    return Outcome.from_exit_code(folder, exit_code)


def _stop_requested(folder: RunFolder) -> bool:
    return cancel_flag(folder).exists() or not folder.path.is_dir()


def working_directory(folder: RunFolder) -> Path:
    """Return the directory in which the run's job works."""
    return folder.path / "work"


def make_workdir(folder: RunFolder) -> Path:
    """Copy the snapshot and show its outputs in the run's folder.

    Raises:
        OSError: It can't be written.
    """
    work = working_directory(folder)
    shutil.copytree(folder.snapshot, work, copy_function=_copy_writable)
    (work / OUTPUTS_DIR).mkdir()
    folder.outputs.rmdir()
    folder.outputs.symlink_to(Path(work.name) / OUTPUTS_DIR)
    return work


def _copy_writable(source: str, target: str) -> None:
    # A file of the snapshot may be a read-only link to one that other runs share. The job gets bytes of its own.
    shutil.copy2(source, target)
    Path(target).chmod(Path(target).stat().st_mode | 0o200)


def collect_outputs(folder: RunFolder) -> None:
    """Move the outputs into the run's folder and remove the rest. Again after a kill: it goes on where it was.

    Raises:
        OSError: It can't be written.
    """
    work, outputs = working_directory(folder), folder.outputs
    made = work / OUTPUTS_DIR
    if made.is_dir() and not made.is_symlink():
        _keep_link_targets(made, work)
    if outputs.is_symlink():
        outputs.unlink()
    if made.is_symlink() or made.is_file():
        # The script put something else in the directory's place.
        outputs.mkdir(exist_ok=True)
        if made.is_dir():
            shutil.copytree(made, outputs, symlinks=True, dirs_exist_ok=True)
        elif made.is_file():
            shutil.copy2(made, outputs / OUTPUTS_DIR)
    elif made.is_dir():
        made.replace(outputs)
    outputs.mkdir(exist_ok=True)
    _remove_workdir(folder)


def _remove_workdir(folder: RunFolder) -> None:
    """Remove the working directory, also where the script took away its own permissions."""
    work = working_directory(folder)
    if not work.exists():
        return
    for directory, _, _ in os.walk(work):
        Path(directory).chmod(0o700)
    shutil.rmtree(work)


def _keep_link_targets(outputs: Path, work: Path) -> None:
    """Make links among the outputs survive the move; a file outside them that one points to is copied."""
    root = outputs.resolve()
    for path in sorted(outputs.rglob("*")):
        if not path.is_symlink():
            continue
        target = path.resolve()
        if target.is_relative_to(root):
            if path.readlink().is_absolute():
                path.unlink()
                path.symlink_to(os.path.relpath(target, path.parent.resolve()))
        elif target.is_file() and target.is_relative_to(work.resolve()):
            path.unlink()
            shutil.copy2(target, path)


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
