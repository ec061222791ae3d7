"""The process that watches over one job, and outlives the emulator.

Started as ``python -I supervisor.py SPEC``, in a session of its own. It runs the job's commands one after the other,
stops them when they run out of time or when it gets SIGTERM, leaves no process behind, and writes how it ended to a
file. So an emulator that was restarted in between finds out what became of the job.

Imports nothing of the package: it is started by its path.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import psutil

POLL_INTERVAL = 0.05
PR_SET_CHILD_SUBREAPER = 36


class StoppedError(Exception):
    """The job has to stop; the argument says why."""


class Supervisor:
    """Runs a job.

    Args:
        spec: ``commands`` (lists of arguments), ``cwd``, ``env``, ``log``, ``claim`` and ``outcome`` (files to write),
            ``deadline`` (POSIX time or None) and ``grace`` (seconds between SIGTERM and SIGKILL).
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._terminated = False

    def run(self) -> None:
        """Run the commands in order up to the first that fails, and write the outcome."""
        # Before the claim, which says where to send it.
        signal.signal(signal.SIGTERM, self._on_terminate)
        if not self._claim():
            return
        # Orphans of the job become children of this process, so that none can escape being stopped.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        reason, code = "exited", 0
        try:
            with Path(self._spec["log"]).open("ab", buffering=0) as log:
                for command in self._spec["commands"]:
                    code = code or self._run_command(command, log)
        except StoppedError as stopped:
            reason, code = str(stopped), -1
        except OSError as error:
            reason, code = f"could not start: {error}", -1
        finally:
            self._stop_descendants()
        self._write_outcome({"reason": reason, "code": code, "ended": time.time()})

    def _claim(self) -> bool:
        """Say who runs this job; False if someone else does, or has given up waiting for this process."""
        path = Path(self._spec["claim"])
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps({"pid": os.getpid(), "created": psutil.Process().create_time()}))
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
        finally:
            partial.unlink()
        return True

    def _run_command(self, command: list[str], log: BinaryIO) -> int:
        process = subprocess.Popen(
            command,
            cwd=self._spec["cwd"],
            env=self._spec["env"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        deadline = self._spec["deadline"]
        while (code := process.poll()) is None:
            if self._terminated:
                raise StoppedError("terminated")
            if deadline is not None and time.time() >= deadline:
                raise StoppedError("timeout")
            time.sleep(POLL_INTERVAL)
        return code

    def _on_terminate(self, _signal: int, _frame: object) -> None:
        self._terminated = True

    def _stop_descendants(self) -> None:
        processes = psutil.Process().children(recursive=True)
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        psutil.wait_procs(processes, timeout=self._spec["grace"])
        # Those that were started while the others were being stopped are found by looking again.
        while alive := psutil.Process().children(recursive=True):
            for process in alive:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(alive, timeout=POLL_INTERVAL)

    def _write_outcome(self, outcome: dict[str, Any]) -> None:
        path = Path(self._spec["outcome"])
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(outcome))
        partial.replace(path)


if __name__ == "__main__":
    Supervisor(json.loads(Path(sys.argv[1]).read_text())).run()
