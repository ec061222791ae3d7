"""A job of several ranks on this machine: mpiexec starts them, and the first that ends badly ends them all.

::

    supervisor ──> mpiexec ──> one launcher per rank
         │                          │
         └── reads .ranks/ <────────┘ its process number; of the first that ended badly, its exit status

Rank 0 writes into the run's log, each other rank into ``logs/std_log_process_N.txt``, and mpiexec itself into
``.ranks/``. All ranks are on this machine, whatever number of nodes the job asks for.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from backends import local_processes as processes
from trainer.errors import ConfigError
from trainer.finish import Outcome
from trainer.job import TrainingJob
from trainer.ranks import each_batch
from trainer.runfolder import RunFolder
from trainer.runtime.layout import RANKS_DIR_VARIABLE
from trainer.runtime.ranks import FAILED, PID
from trainer.runtime.versions import installed_version
from trainer.trees import remove_tree

# How long a rank that has said that it ends badly may take to end the others.
_GRACE_SECONDS = 5.0
_MPIEXEC_LOG = "mpiexec.txt"
_COPIED_LINES = 60
# What Hydra, MPICH's mpiexec, says of the first process that a signal ended; and, where it is asked for them, the wait
# statuses of all by rank.
_PID = re.compile(r"^=   PID (\d+) RUNNING AT ", re.MULTILINE)
_SIGNAL = re.compile(r"^YOUR APPLICATION TERMINATED WITH THE EXIT STRING: .*\(signal (\d+)\)", re.MULTILINE)
_STATUSES = re.compile(r"^\[mpiexec@[^]]*\] Exit codes: \[[^]]*\] ([\d,]+)$", re.MULTILINE)
# Ranks of one machine need no network but shared memory and loopback; a variable of the user's own wins.
_VARIABLES = {"HYDRA_IFACE": "lo", "FI_PROVIDER": "tcp"} if sys.platform == "linux" else {}


def find_mpiexec() -> Path:
    """Return the program that starts ranks: this interpreter's own, else the one on the path.

    Raises:
        ConfigError: There is none, or no mpi4py.
    """
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    missing = [name for name, there in (("mpi4py", installed_version("mpi4py")), ("mpiexec", found)) if not there]
    if found is None or missing:
        raise ConfigError(
            f"Several processes per run need {' and '.join(missing)}, and this installation has none.",
            "Install MPI: pip install 'chainer-trainer[mpi]'",
        )
    return Path(found)


def advice(nodes: int) -> tuple[str, ...]:
    """Return what to know about a job of so many nodes here."""
    if nodes == 1:
        return ()
    return (f"--nodes {nodes} is simulated: all ranks run on this machine and share its cores and memory.",)


def describe(job: TrainingJob) -> dict[str, str]:
    """Return the lines of a plan that say what each rank gets.

    Args:
        job: It has several ranks.
    """
    ranks = f"{job.ranks} on this machine"
    if job.nodes > 1:
        ranks += f", in the place of {job.nodes} nodes with {job.processes_per_node} each"
    return {"ranks": ranks, **each_batch(job)}


class RankJobs:
    """Starts, waits for and stops the ranks of a run; see :class:`backends.local_supervisor.Jobs`.

    Args:
        folder: The run.
        ranks: How many there are.
    """

    def __init__(self, folder: RunFolder, ranks: int) -> None:
        self._ranks = ranks
        self._words = folder.path / ".ranks"
        self._failed_at: float | None = None

    def start(self, command: Sequence[str], directory: Path, folder: RunFolder) -> subprocess.Popen[bytes]:
        """Start mpiexec, which starts the ranks."""
        remove_tree(self._words)
        self._words.mkdir()
        self._failed_at = None
        mpiexec = find_mpiexec()
        asked = ["-print-all-exitcodes"] if mpiexec.with_name("mpiexec.hydra").exists() else []
        return processes.start(
            [str(mpiexec), *asked, "-n", str(self._ranks), *command],
            directory,
            folder,
            log=self._words / _MPIEXEC_LOG,
            variables=_VARIABLES | folder.job_environment() | {RANKS_DIR_VARIABLE: str(self._words)},
        )

    def wait(self, process: subprocess.Popen[bytes], seconds: float) -> int | None:
        """Wait; a rank that ended badly, and whose word reaches nobody, ends the job all the same.

        Returns:
            The exit status of the first rank that ended badly, negative for a signal.
        """
        code = processes.wait(process, seconds)
        if code is None and self._said() is not None:
            self._failed_at = self._failed_at or time.monotonic()
            if time.monotonic() - self._failed_at < _GRACE_SECONDS:
                return None
            return self._first(1)[1]
        return code if not code else self._first(code)[1]

    reap_adopted = staticmethod(processes.reap_adopted)
    stop_children = staticmethod(processes.stop_children)

    def outcome(self, folder: RunFolder, code: int, *, out_of_memory: bool) -> Outcome:
        """Judge the job by the rank that ended it, and show the end of that rank's log in the run's."""
        rank, _ = self._first(code)
        if code == 0:
            return Outcome.from_exit_code(folder, code)
        if rank is None:
            _append(folder, _read(self._words / _MPIEXEC_LOG).splitlines())
            return Outcome.from_exit_code(folder, code, out_of_memory=out_of_memory)
        # The last word of a rank that ends the others is MPI's.
        lines = [line for line in folder.log_tail(1000, rank) if not line.startswith("Abort(")]
        if rank:
            last = [f"rank {rank}: {line}" for line in lines[-_COPIED_LINES:]]
            _append(folder, [f"rank {rank} ended the job; the end of {folder.rank_log(rank).name}:", *last])
        return Outcome.from_exit_code(folder, code, lines, f"rank {rank}: ", out_of_memory=out_of_memory)

    def _said(self) -> tuple[int, int] | None:
        """The first rank that has said that it ends badly, and its exit status."""
        words = _read(self._words / FAILED).split()
        if len(words) == 2 and words[0].isdecimal() and words[1].isdecimal() and int(words[0]) < self._ranks:
            return int(words[0]), int(words[1])
        return None

    def _first(self, code: int) -> tuple[int | None, int]:
        said = self._said()
        if said is not None or code == 0:
            return said or (None, code)
        log = _read(self._words / _MPIEXEC_LOG)
        pid, by = _PID.search(log), _SIGNAL.search(log)
        if by is not None and int(by[1]) in set(signal.Signals):
            code = -int(by[1])
        if pid is not None:
            return next((rank for rank in range(self._ranks) if self._pid(rank) == pid[1]), None), code
        statuses = [int(status) for found in _STATUSES.findall(log) for status in found.split(",") if status]
        if len(statuses) == self._ranks and any(statuses):
            rank = next(rank for rank, status in enumerate(statuses) if status)
            code = os.waitstatus_to_exitcode(statuses[rank])
            return rank, code
        return None, code

    def _pid(self, rank: int) -> str:
        return _read(self._words / f"{PID}{rank}").strip()


def _append(folder: RunFolder, lines: Sequence[str]) -> None:
    with suppress(OSError), folder.log_path.open("a", encoding="utf-8", errors="replace") as stream:
        stream.write("".join(f"{line}\n" for line in lines))


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")[-100_000:] if path.is_file() else ""
    except OSError:
        return ""
