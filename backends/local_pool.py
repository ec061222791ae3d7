"""The process that supervises the trials of one study and starts them from a warm interpreter.

It does for many runs what :mod:`backends.local_supervisor` does for one, with the same code, a thread per run. The
scripts are forked by a child of its own, :mod:`trainer.runtime.warm`, which has the study's own copy of the runtime
imported; they become children of this process, so a script that crashes, or is killed, harms no other.

Runs are handed to it through a named pipe in the study's folder, one id per line. It ends when nobody drives the study
any more and the last run is over; a driver that comes back meanwhile finds it by the same pipe.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from backends import local_processes as processes
from backends.local_store import LocalStore
from backends.local_supervisor import SUPERVISOR_LOCK, cancel_flag, supervise
from backends.local_workdir import copy_linked
from trainer.locks import is_locked, locked
from trainer.records import RunStatus
from trainer.runfolder import RunFolder
from trainer.runids import RUN_ID, new_run_id
from trainer.runtime.layout import JOB_DIR, RUN_DIR_VARIABLE
from trainer.tune.study import StudyFolder

POOL_LOCK = ".pool.lock"
POOL_LOG = "worker_log.txt"
_PIPE = ".pool"
_WORKER = ".worker"
_IDLE_SECONDS = 0.2
_CHUNK = 1 << 16


def send(study: Path, run_id: str) -> bool:
    """Hand a run to the study's pool; return whether there is one."""
    try:
        descriptor = os.open(study / _PIPE, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # no pipe, or nobody reads it
        return False
    try:
        os.write(descriptor, run_id.encode() + b"\n")  # less than PIPE_BUF, so whole (POSIX, write)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def is_alive(study: Path) -> bool:
    """Whether the study has a pool."""
    return is_locked(study / POOL_LOCK)


class _UnsafeError(Exception):
    """Trials can't be forked here."""


class Worker:
    """The warm interpreter.

    Args:
        study: The study, with its staged snapshot.
        runs: Where runs are kept.
    """

    def __init__(self, study: StudyFolder, runs: Path) -> None:
        self._study, self._runs = study, runs
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stream: Any = None
        self.pids: set[int] = set()

    def start(self) -> None:
        """Start it, and wait until it has imported everything.

        Raises:
            _UnsafeError: It says that forking is not safe.
        """
        root = self._study.path / _WORKER
        if not root.is_dir():
            # Not from the snapshot itself: Python writes its bytecode beside the modules.
            making = root.with_name(f"{_WORKER}.{os.getpid()}")
            shutil.rmtree(making, ignore_errors=True)
            copy_linked(self._study.snapshot, making)
            making.replace(root)
        ours, theirs = socket.socketpair()
        script = root / JOB_DIR / "trainer" / "runtime" / "warm.py"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(script), str(theirs.fileno())],
                cwd=root,
                # Each script writes its own run over the path, which has the same length; see warm.py.
                env={**os.environ, "PYTHONUNBUFFERED": "1", RUN_DIR_VARIABLE: str(self._runs / new_run_id())},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._stream = ours.makefile("rwb")
        ours.close()
        answer = self._read()
        if answer.get("problem") != "":
            raise _UnsafeError(answer.get("problem") or "the worker ended at once")

    def fork(self, request: dict[str, Any]) -> int:
        """Start a script; return its process id.

        Raises:
            OSError: The worker is gone, and a new one can't be had.
        """
        with self._lock:
            for attempt in range(2):
                try:
                    self._stream.write(json.dumps(request).encode() + b"\n")
                    self._stream.flush()
                    pid = int(self._read().get("pid", 0))
                    if pid:
                        self.pids.add(pid)
                        return pid
                except OSError:
                    pass
                if attempt == 0:
                    self.stop()
                    try:
                        self.start()
                    except _UnsafeError as error:
                        raise OSError(0, str(error)) from error
        raise OSError(0, "the warm worker ended twice")

    def strangers(self) -> list[int]:
        """Return our children that are neither it nor a script that is waited for."""
        with self._lock:  # a script that is being forked is in nobody's list yet
            known = {self.pid, *self.pids}
            return [pid for pid in _children() if pid not in known]

    def stop(self) -> None:
        """End it; the scripts that it has forked go on."""
        with suppress(OSError):
            self._stream.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid if self._process is not None else 0

    def _read(self) -> dict[str, Any]:
        line = self._stream.readline()
        found: dict[str, Any] = json.loads(line) if line else {}
        return found


class Forked:
    """A script that the worker has forked. What :class:`subprocess.Popen` is for one that was started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._descriptor = os.pidfd_open(pid)

    def wait(self, seconds: float) -> int | None:
        """Wait for its end; return its exit status, negative for a signal, or None when the time is over."""
        if self.returncode is None and select.select([self._descriptor], [], [], seconds)[0]:
            _, status = os.waitpid(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
            os.close(self._descriptor)
        return self.returncode


class WarmJobs:
    """How one run's script is started and stopped here; see :mod:`backends.local_processes`.

    Args:
        worker: Forks it.
        folder: The run.
    """

    def __init__(self, worker: Worker, folder: RunFolder) -> None:
        self._worker = worker
        self._folder = folder
        self._job: Forked | None = None

    def start(self, command: list[str], directory: Path, folder: RunFolder) -> Forked:
        """See :func:`backends.local_processes.start`. ``command`` begins with Python and the launcher."""
        request = {
            "argv": command[2:],
            "cwd": str(directory),
            "environment": folder.job_environment(),
            "log": str(folder.log_path),
        }
        self._job = Forked(self._worker.fork(request))
        return self._job

    def wait(self, process: Forked, seconds: float) -> int | None:
        """See :func:`backends.local_processes.wait`."""
        return process.wait(seconds)

    def reap_adopted(self, job: Forked) -> None:
        """Do nothing: what the script leaves behind is collected at its end."""

    def stop_children(self) -> None:
        """End the script and every process that it has started."""
        import psutil

        if self._job is not None and self._job.returncode is None:
            tree = []
            with suppress(psutil.NoSuchProcess):
                root = psutil.Process(self._job.pid)
                tree = [*root.children(recursive=True), root]
            processes.signal_all(tree, signal.SIGTERM)
            if self._job.wait(processes.GRACE_SECONDS) is None:
                processes.signal_all(tree, signal.SIGKILL)
                self._job.wait(processes.GRACE_SECONDS)
            processes.stop(tree[:-1], grace=0)
        if self._job is not None:
            self._worker.pids.discard(self._job.pid)
        self._stop_adopted()

    def _stop_adopted(self) -> None:
        """End the processes that the script left to us."""
        for pid in self._worker.strangers():
            if _run_of(pid) in (None, str(self._folder.path)):
                import psutil

                with suppress(psutil.NoSuchProcess):
                    root = psutil.Process(pid)
                    processes.stop([*root.children(recursive=True), root])
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


class Pool:
    """Supervises a study's trials until there are no more.

    Args:
        study: The study.
        runs: Where runs are kept.
        store: Takes models.
        worker: Started.
    """

    def __init__(self, study: StudyFolder, runs: Path, store: LocalStore, worker: Worker) -> None:
        self._study, self._runs, self._store, self._worker = study, runs, store, worker
        self._threads: dict[str, threading.Thread] = {}

    def serve(self, pipe: int) -> None:
        """Take runs from the pipe until nobody drives the study and none is under way."""
        pending = b""
        while True:
            if select.select([pipe], [], [], _IDLE_SECONDS)[0]:
                *lines, pending = (pending + os.read(pipe, _CHUNK)).split(b"\n")
                for line in lines:
                    self._take(line.decode("ascii", "replace"))
                continue
            self._threads = {name: thread for name, thread in self._threads.items() if thread.is_alive()}
            if not self._threads and not self._study.is_driven:
                return

    def cancel_all(self) -> None:
        """Ask every run that is under way to stop."""
        for name, thread in list(self._threads.items()):
            if thread.is_alive():
                cancel_flag(RunFolder(self._runs / name)).touch()

    def _take(self, name: str) -> None:
        if RUN_ID.fullmatch(name) and (self._runs / name).is_dir():
            thread = threading.Thread(target=self._supervise, args=(RunFolder(self._runs / name),), name=name)
            self._threads[name] = thread
            thread.start()

    def _supervise(self, folder: RunFolder) -> None:
        try:
            with folder.locked(SUPERVISOR_LOCK, blocking=False):
                if folder.info().status is RunStatus.NOT_STARTED:  # it may have been handed over twice
                    jobs = WarmJobs(self._worker, folder)
                    try:
                        supervise(folder, self._store, jobs=jobs)
                    finally:
                        jobs.stop_children()
        except BlockingIOError:
            return


def _children() -> list[int]:
    """Return this process's children, of all its threads."""
    found: list[int] = []
    for task in os.listdir("/proc/self/task"):  # noqa: PTH208
        with suppress(FileNotFoundError):
            found += map(int, Path(f"/proc/self/task/{task}/children").read_text().split())
    return found


def _run_of(pid: int) -> str | None:
    """Return the run whose environment a process has; None if it is a zombie, or has none."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    mark = f"{RUN_DIR_VARIABLE}=".encode()
    return next((os.fsdecode(each[len(mark) :]) for each in environment.split(b"\0") if each.startswith(mark)), None)


def main(study_dir: str, models: str) -> None:
    """Detach, and supervise. The process that was started ends when the worker is warm, or can't be."""
    study = StudyFolder(Path(study_dir))
    announce = processes.detach()
    with suppress(BlockingIOError), locked(study.path / POOL_LOCK, blocking=False):
        _run(study, LocalStore(Path(models)), announce)
        return
    announce()  # another one serves the study


def _run(study: StudyFolder, store: LocalStore, announce: Callable[[], None]) -> None:
    processes.become_subreaper()
    path = study.path / _PIPE
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    # Open for writing too, or reading would end whenever a driver closes its end.
    pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    runs = study.path.parents[1] / "runs"
    worker = Worker(study, runs)
    pool = Pool(study, runs, store, worker)
    # A shutdown, or a plain kill, cancels what runs.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: pool.cancel_all())
    try:
        worker.start()
        announce()
        pool.serve(pipe)
    except _UnsafeError as error:
        # The last line of the log is what whoever started this is told.
        sys.stderr.write(f"{str(error)[:4000]}\n")
    finally:
        path.unlink(missing_ok=True)
        worker.stop()
        shutil.rmtree(study.path / _WORKER, ignore_errors=True)


def wait_until_taken(study: Path, folder: RunFolder, seconds: float) -> bool:
    """Wait until the pool supervises a run that was sent; return whether it does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if folder.info().status is not RunStatus.NOT_STARTED:
            return True
        if not is_alive(study):
            return False
        time.sleep(0.002)
    return False


if __name__ == "__main__":
    main(*sys.argv[1:])
