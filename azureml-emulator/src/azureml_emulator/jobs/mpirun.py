"""Starts the ranks of an MPI job, and says which of them a signal has ended in the words of Azure's Open MPI.

``python mpirun.py MPIEXEC -n N COMMAND ARG...`` runs MPIEXEC. If a signal ends a rank, or a rank exits with another
status than 0, MPICH's mpiexec says a process number at most; the rank is known from the file that each rank leaves.
``python mpirun.py rank FOLDER COMMAND ARG...`` is such a rank, and becomes the command.

The words are those of ``orte/tools/orterun/help-orterun.txt`` (Open MPI 4.1). Imports nothing of the package: it is
started by its path, by the job's interpreter.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

RANK_VARIABLES = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")
# What MPICH's mpiexec says of the first process that ended badly.
_PID = re.compile(rb"^=   PID (\d+) RUNNING AT ", re.MULTILINE)
_STATUSES = re.compile(rb"^\[mpiexec@[^]]*\] Exit codes: \[[^]]*\] ([\d,]+)$", re.MULTILINE)
_SIGNAL = re.compile(rb"^YOUR APPLICATION TERMINATED WITH THE EXIT STRING: ([^(\n]*\S) \(signal (\d+)\)", re.MULTILINE)
_KEPT = 1 << 16
KILLED = "mpirun noticed that process rank {rank} with PID {pid} on node {node} exited on signal {number} ({name})."
EXITED = """\
mpirun detected that one or more processes exited with non-zero status, thus causing
the job to be terminated. The first process to do so was:

  Process name: [[1,1],{rank}]
  Exit code:    {code}"""
_LINE = "-" * 74


def run(mpiexec: str, count: list[str], command: list[str]) -> int:
    """Run the ranks; returns mpiexec's exit code."""
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        start = [sys.executable, "-I", "-S", __file__, "rank", folder]
        asked = ["-print-all-exitcodes"] if Path(mpiexec).with_name("mpiexec.hydra").exists() else []
        process = subprocess.Popen(
            [mpiexec, *asked, *count, *start, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        said = b""
        for line in process.stdout or ():
            said = (said + line)[-_KEPT:]
            if not _STATUSES.match(line):
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
        code = process.wait()
        words = blame(said, Path(folder)) if code else ""
    if words:
        sys.stdout.write(f"{_LINE}\n{words}\n{_LINE}\n")
    return code if code >= 0 else 128 - code


def blame(said: bytes, folder: Path) -> str:
    """Return what Open MPI would say of the rank that ended first; empty if it is not known.

    Args:
        said: What mpiexec has said.
        folder: Has a file for each rank, named by its process number.
    """
    pid, signalled = _PID.search(said), _SIGNAL.search(said)
    if pid is not None and signalled is not None and (folder / pid[1].decode()).exists():
        number, name, which = pid[1].decode(), signalled[1].decode(), signalled[2].decode()
        killed = (folder / number).read_text()
        return KILLED.format(rank=killed, pid=number, node=os.uname().nodename, number=which, name=name)
    # The wait statuses of all ranks: more than one node has a line each.
    statuses = [int(status) for found in _STATUSES.findall(said) for status in found.split(b",") if status]
    rank, status = next(((rank, status) for rank, status in enumerate(statuses) if status), (0, 0))
    return EXITED.format(rank=rank, code=os.WEXITSTATUS(status)) if os.WIFEXITED(status) and status else ""


def become(folder: str, command: list[str]) -> None:
    """Leave word of this rank's process number, and become its command."""
    rank = next((os.environ[name] for name in RANK_VARIABLES if name in os.environ), "0")
    Path(folder, str(os.getpid())).write_text(rank)
    os.execvp(command[0], command)  # noqa: S606 - the command is the job's own


if __name__ == "__main__":
    if sys.argv[1] == "rank":
        become(sys.argv[2], sys.argv[3:])
    sys.exit(run(sys.argv[1], sys.argv[2:4], sys.argv[4:]))
