"""The job's processes: starting them, and stopping every one of them."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import ConfigError
from trainer.interpreter import own_module
from trainer.runtime.layout import RUN_DIR_VARIABLE

if TYPE_CHECKING:
    import psutil

    from trainer.runfolder import RunFolder

GRACE_SECONDS = 5.0
# "oom_kill" counts those of containers too: mm/oom_kill.c.
_VMSTAT = Path("/proc/vmstat")
# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def start_detached(
    module: str, *arguments: str, directory: Path, environment: Mapping[str, str], log: Path, seconds: float
) -> str | None:
    """Start a module of this package that detaches itself, and wait until it says that it has.

    Args:
        module: Its dotted name; it calls :func:`detach`, or keeps to its protocol.
        arguments: Its command line.
        directory: Its working directory.
        environment: Its environment.
        log: Takes its output, behind what is there.
        seconds: How long it may take.

    Returns:
        None if it runs; else the last line of the log, which may be empty.

    Raises:
        OSError: It can't be started.
        subprocess.TimeoutExpired: It took longer.
    """
    with log.open("ab") as stream:
        started = subprocess.Popen(
            [*own_module(module), *arguments],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    with started:
        try:
            status = wait(started, seconds)  # Popen.wait() with a timeout looks every 50 ms
            if status is None:
                raise subprocess.TimeoutExpired(started.args, seconds)
        except BaseException:
            started.kill()
            raise
    if not status:
        return None
    return (log.read_text("utf-8", "replace").strip().splitlines() or [""])[-1]


def start_or_explain(
    what: str,
    module: str,
    *arguments: str,
    directory: Path,
    environment: Mapping[str, str],
    log: Path,
    seconds: float,
    anew: bool = False,
) -> None:
    """Do :func:`start_detached`, and say of a process that doesn't run why.

    Args:
        what: What it is called, at the beginning of a sentence.
        module: See :func:`start_detached`, as for those that follow.
        arguments: Its command line.
        directory: Its working directory.
        environment: Its environment.
        log: Takes its output.
        seconds: How long it may take.
        anew: Whether an earlier log is removed first.

    Raises:
        ConfigError: It could not be started.
    """
    try:
        if anew:
            log.unlink(missing_ok=True)
        last = start_detached(
            module, *arguments, directory=directory, environment=environment, log=log, seconds=seconds
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{what} could not be started: {error}.", f"Look into {log}.") from error
    if last is not None:
        raise ConfigError(f"{what} could not be started: {last or 'it ended at once'}.", f"Look into {log}.")


def detach() -> Callable[[], None]:
    """Go on in a process of a session of its own, which no terminal's end ends.

    The process that was started ends with exit code 0 as soon as what is returned is called, and with 1 if the
    detached one dies before.
    """
    ready, announce = os.pipe()
    if os.fork():
        os.close(announce)
        # Nothing is written if the detached process dies first.
        os._exit(0 if os.read(ready, 1) else 1)
    os.close(ready)
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def tell() -> None:
        os.write(announce, b"1")
        os.close(announce)

    return tell


def become_subreaper() -> None:
    """Have processes whose parent dies reparented here, so that no daemon of the job is lost sight of. Linux only."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def start(
    command: Sequence[str],
    directory: Path,
    folder: RunFolder,
    *,
    log: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start the job in a session of its own, with no input and its output in the log.

    Args:
        command: The command line.
        directory: Its working directory.
        folder: The run. Its log takes standard output and standard error.
        log: Takes them instead.
        variables: Its environment; None for that of a job of the run.

    Raises:
        OSError: It can't be started.
    """
    with (log or folder.log_path).open("ab") as stream:
        return subprocess.Popen(
            command,
            cwd=directory,
            env=folder.job_environment() if variables is None else dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A job that nobody supervises would know no cap and no cancel. Safe here: there are no threads.
            preexec_fn=_die_with_parent,
        )


def wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Wait for a process to end, without polling it.

    Returns:
        Its exit status, or None when the time is over.
    """
    if process.poll() is None and sys.platform == "linux":
        descriptor = os.pidfd_open(process.pid)
        try:
            select.select([descriptor], [], [], seconds)
        finally:
            os.close(descriptor)
    elif process.returncode is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    return process.poll()


def reap_adopted(job: subprocess.Popen[bytes]) -> None:
    """Collect the ended processes that the job left to us; the job's own end is for ``Popen`` to collect."""
    with suppress(ChildProcessError):
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid == job.pid:
                return
            os.waitpid(ended.si_pid, 0)


def oom_kills() -> int:
    """Return how many processes Linux has killed for want of memory since this machine was started; 0 elsewhere."""
    try:
        lines = _VMSTAT.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def stop_children() -> None:
    """End every process below this one: SIGTERM, a few seconds, SIGKILL."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        # No child, and so nothing below: most jobs leave none, and psutil takes its time to import.
        return
    _stop_descendants()


def _stop_descendants() -> None:
    import psutil

    stop(psutil.Process().children(recursive=True))
    # What they started while they were being stopped. A process that not even SIGKILL ends hangs in the kernel.
    for _ in range(3):
        left = [process for process in psutil.Process().children(recursive=True) if _alive(process)]
        if left:
            stop(left, grace=0)


def signal_all(processes: Iterable[psutil.Process], number: int) -> None:
    """Send a signal to each process that is still there."""
    import psutil

    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def stop(processes: Iterable[psutil.Process], grace: float = GRACE_SECONDS) -> None:
    """End processes: SIGTERM, ``grace`` seconds, SIGKILL."""
    import psutil

    alive = [process for process in processes if _alive(process)]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        _, alive = psutil.wait_procs(alive, timeout=grace if number == signal.SIGTERM else GRACE_SECONDS)
        alive = [process for process in alive if _alive(process)]


def find_processes(folder: Path, variable: str = RUN_DIR_VARIABLE) -> list[psutil.Process]:
    """Find every process of a run, or of something else with a folder, by the environment it was started with."""
    import psutil

    found = []
    for process in psutil.process_iter():
        # AccessDenied: another user's. A job's processes are the user's own.
        with suppress(psutil.Error, OSError):
            if process.environ().get(variable) == str(folder):
                found.append(process)
    return found


def _alive(process: psutil.Process) -> bool:
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _prctl(option: int, value: int) -> None:
    if _LIBC is not None:
        _LIBC.prctl(option, value, 0, 0, 0)


# Loaded before any fork: a child that will exec must not.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
