"""Runs of small scripts on the local backend."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from backends.local import LocalBackend
from trainer.handle import Run
from trainer.home import Home
from trainer.submission import JobRequest, prepare, submit

SECONDS = 600.0
SLEEP = "import time\nprint('up', flush=True)\ntime.sleep(600)\n"
# Starts a child, and a daemon in a session of its own whose parent has died; then waits.
FAMILY = """
import os, subprocess, sys, time
from pathlib import Path
DAEMON = "import os, time\\nif os.fork(): os._exit(0)\\nos.setsid()\\nprint(os.getpid(), flush=True)\\ntime.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
reader, writer = os.pipe()
subprocess.run([sys.executable, "-c", DAEMON], stdout=writer, check=True)
Path("outputs/pids.tmp").write_text(f"{os.getpid()} {child.pid} {os.read(reader, 20).decode()}")
Path("outputs/pids.tmp").rename("outputs/pids")
time.sleep(float(sys.argv[1]))
"""


def start(home: Home, directory: Path, source: str, *words: str, **request: Any) -> Run:
    """Submit a script with this source."""
    directory.mkdir(parents=True, exist_ok=True)
    script = directory / "train.py"
    script.write_text(source)
    asked = JobRequest(script=script, script_args=words, **{"model_name": None, **request})
    return submit(prepare(asked, home), LocalBackend(home, {}), home)


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that is bound to happen."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in {SECONDS} s"
        time.sleep(0.02)


def supervisor(run: Run) -> psutil.Process:
    """The run's supervisor process."""
    return psutil.Process(run.folder.info().detail["supervisor_pid"])


def worker(run: Run) -> psutil.Process:
    """The run's script process."""
    until(lambda: "pid" in run.folder.info().detail, "the script's start")
    return psutil.Process(run.folder.info().detail["pid"])


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has collected yet counts."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def family(run: Run) -> list[int]:
    """The process ids of a script that is ``FAMILY``."""
    path = run.folder.outputs / "pids"
    until(path.exists, "the family's start")
    return [int(word) for word in path.read_text().split()]
