"""Starts the processes of a distributed command job on this machine.

``python ranks.py one PATTERN LINE`` is one rank of an MPI job, started by mpiexec.
``python ranks.py torch PATTERN NODES PROCESSES LINE`` starts all processes of a PyTorch job, with the variables that
``torch.distributed`` reads, and ends the others when one fails.

LINE is a command for bash. ``{rank}`` in PATTERN, the path of a log, is the number of a process. Imports nothing of the
package: it is started by its path, by the job's interpreter.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

RANK_VARIABLES = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")
_POLL = 0.05


def run_rank(pattern: str, line: str) -> None:
    """Become the command, with its output in a log of its own."""
    rank = next((os.environ[name] for name in RANK_VARIABLES if name in os.environ), "0")
    descriptor = os.open(pattern.format(rank=rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.execv("/bin/bash", ["bash", "-c", line])  # noqa: S606 - the command is the job's own


def run_all(pattern: str, nodes: int, processes: int, line: str) -> int:
    """Run every process of a PyTorch job.

    Returns:
        The exit code of the first that failed, or 0.
    """
    world = nodes * processes
    port = _free_port()
    running: dict[int, subprocess.Popen[bytes]] = {}
    for rank in range(world):
        variables = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank % processes),
            "NODE_RANK": str(rank // processes),
            "WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        with open(pattern.format(rank=rank), "ab") as log:  # noqa: PTH123 - the pattern is a path already
            running[rank] = subprocess.Popen(
                ["/bin/bash", "-c", line], env=os.environ | variables, stdout=log, stderr=log
            )
    while running:
        for rank, process in list(running.items()):
            code = process.poll()
            if code is None:
                continue
            del running[rank]
            if code != 0:
                # The job's supervisor ends what these have started.
                for other in running.values():
                    other.terminate()
                return code if code > 0 else 128 - code
        time.sleep(_POLL)
    return 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    if sys.argv[1] == "one":
        run_rank(sys.argv[2], sys.argv[3])
    sys.exit(run_all(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]))
