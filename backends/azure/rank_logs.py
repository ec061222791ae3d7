"""The logs of a job of several ranks on Azure ML: which file is whose, and which rank has ended the job."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from trainer.failures import LINES, failure

if TYPE_CHECKING:
    from trainer.records import RunFailure
    from trainer.runfolder import RunFolder

# Of today's workspaces, and of older ones.
_LOG = re.compile(r"(?:user_logs/std_log_process|azureml-logs/70_driver_log)_(\d{1,6})\.txt")
# What trainer.runtime.ranks writes into the log of a rank that ends badly.
_ENDS = re.compile(r"rank (\d+) ends the job with exit status (\d+)")
# What Open MPI says of a rank that could say nothing itself: orte/tools/orterun/help-orterun.txt. It wraps no lines.
_SIGNALLED = re.compile(r"process rank (\d+) with PID \d+ on node \S+ exited on signal (\d+)")
_EXITED = re.compile(r"Process name: \[\[\d+,\d+\],\s*(\d+)\]\s+Exit code:\s+(\d+)")
_KILLED_IN_A_SHELL = 128 + signal.SIGKILL
_CHUNK = 1 << 20


def urls(logs: Mapping[str, str]) -> dict[int, str]:
    """Return where the log of each rank is, of all the logs that the service names."""
    return {int(match[1]): url for name, url in logs.items() if (match := _LOG.fullmatch(name))}


def is_of_rank(name: str) -> bool:
    """Return whether a log is that of a rank."""
    return _LOG.fullmatch(name) is not None


def reason(folder: RunFolder) -> RunFailure | None:
    """Describe the failure of a job by the rank that ended it; None if it is not known, or there is one process.

    A rank that raises or exits says so in its log. Of one that is killed, MPI says it, in a log of its own or in that
    of rank 0.

    Args:
        folder: The run, with all of its logs.
    """
    ranks = range(folder.job().ranks)
    if len(ranks) == 1:
        return None
    for rank in ranks:
        lines = _end(folder.rank_log(rank)).splitlines()
        at = next((at for at, line in enumerate(lines) if (said := _ENDS.fullmatch(line)) and int(said[1]) == rank), -1)
        if at >= 0:
            status = int(lines[at].rpartition(" ")[2])
            own = [line for line in lines[:at] + lines[at + 1 :] if not line.startswith("Abort(")]
            return _of(rank, status, own)
    for path in sorted(folder.logs.glob("*.txt")):
        words = _end(path)
        if (killed := _SIGNALLED.search(words)) and int(killed[1]) in ranks:
            return _of(int(killed[1]), -int(killed[2]), folder.log_tail(LINES, int(killed[1])))
        if (exited := _EXITED.search(words)) and int(exited[1]) in ranks:
            code = int(exited[2])
            status = -signal.SIGKILL if code == _KILLED_IN_A_SHELL else code
            return _of(int(exited[1]), status, folder.log_tail(LINES, int(exited[1])))
    return None


def _end(path: Path) -> str:
    try:
        return path.read_bytes()[-_CHUNK:].decode("utf-8", "replace")
    except OSError:
        return ""


def _of(rank: int, status: int, lines: tuple[str, ...] | list[str]) -> RunFailure:
    found = failure(status, lines[-LINES:])
    return msgspec.structs.replace(found, message=f"rank {rank}: {found.message}")
