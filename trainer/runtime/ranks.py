"""Ranks: the processes that MPI has started as one job.

Each has its number from the environment, before MPI itself is initialised: MPICH's Hydra, Open MPI and PMIx each have
variables of their own. :func:`begin` and :func:`end_badly` are the launcher's. A rank that raises, or exits with a
status other than zero, would otherwise wait in ``MPI_Finalize`` for the others, and they in a collective operation
for it, for ever: it ends them by ``MPI_Abort`` (MPI 4.0, section 9.7).

This module imports the standard library alone.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer.runtime.layout import BLAS_VARIABLES, RANKS_DIR_VARIABLE, RUN_DIR_VARIABLE, THREADS_VARIABLE, rank_log

FAILED = "failed"
"""The file in the folder of the ranks that says which one ended badly first: its number and its exit status."""
PID = "pid."
"""How the files there begin that hold each rank's process number."""
_RANK = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK")
_SIZE = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
_LOCAL_RANK = ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK")
_LOCAL_SIZE = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_LOCAL_SIZE")
# What a rank that ends badly may still take: threads of the script that do not end, functions at exit.
_SECONDS_TO_END = 3.0

_owner: int | None = None
_status = 0
chosen_threads = ""
"""The number of BLAS threads that this process has put into its environment itself; empty if it has not."""


def rank() -> int:
    """Return this process's rank, 0 without MPI."""
    return _number(_RANK, 0)


def size() -> int:
    """Return how many ranks there are, 1 without MPI."""
    return max(1, _number(_SIZE, 1))


def local_size() -> int:
    """Return how many of them are on this machine."""
    return max(1, _number(_LOCAL_SIZE, size()))


def local_rank() -> int:
    """Return this process's number among the ranks of its machine; 0 without MPI."""
    return _number(_LOCAL_RANK, rank() % local_size())


def _number(names: tuple[str, ...], otherwise: int) -> int:
    text = next((os.environ[name] for name in names if name in os.environ), "")
    return int(text) if text.isdecimal() else otherwise


def begin() -> None:
    """Prepare this process as a rank, before NumPy is imported; does nothing where there is one process.

    Its output goes to a log of its own, where the job's supervisor has asked for that. Where nothing says how many
    threads BLAS is to use, they are this machine's cores divided by its ranks: OpenBLAS waits by spinning, and ranks
    that each have a thread per core keep one another from working.
    """
    global _owner, chosen_threads
    if size() == 1:
        return
    _owner = os.getpid()
    folder = os.environ.get(RANKS_DIR_VARIABLE)
    if folder:
        _redirect(Path(os.environ[RUN_DIR_VARIABLE], *rank_log(rank())))
        with suppress(OSError):
            Path(folder, f"{PID}{rank()}").write_text(str(_owner))
    if not any(os.environ.get(name) for name in (THREADS_VARIABLE, *BLAS_VARIABLES)):
        chosen_threads = str(max(1, _cores() // local_size()))
        os.environ.update(dict.fromkeys(BLAS_VARIABLES, chosen_threads))
    atexit.register(_abort)  # the first to be registered, so the last to be called


def end_badly(error: BaseException) -> None:
    """Arrange for the job to end, where this process is a rank of several and ``error`` ends it badly.

    Returns at once: Python shows the error first. What the script has registered with ``atexit`` still runs.
    """
    global _status
    if _owner != os.getpid():
        return
    code = error.code if isinstance(error, SystemExit) else 1
    status = 0 if code is None else code if isinstance(code, int) else 1
    if status == 0:
        return
    _status = status & 0xFF or 1
    _say_failed()
    timer = threading.Timer(_SECONDS_TO_END, _abort)
    timer.daemon = True
    timer.start()


def _abort() -> None:
    if not _status or _owner != os.getpid():
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    mpi: Any = sys.modules.get("mpi4py.MPI")
    if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized():
        mpi.COMM_WORLD.Abort(_status)
    elif threading.current_thread() is not threading.main_thread():
        os._exit(_status)  # mpiexec ends the others


def _say_failed() -> None:
    folder = os.environ.get(RANKS_DIR_VARIABLE)
    if not folder:
        # On a node: a client reads the logs of all ranks, and MPI's libraries say it in ways of their own.
        sys.stderr.write(f"rank {rank()} ends the job with exit status {_status}\n")
        return
    draft = Path(folder, f"{FAILED}.{rank()}")
    # A link, because it is made at once and fails where another rank was first.
    with suppress(OSError):
        draft.write_text(f"{rank()} {_status}")
        draft.with_name(FAILED).hardlink_to(draft)


def _redirect(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
