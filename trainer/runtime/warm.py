"""A process that has imported what training scripts import, and forks one that runs a script when it is told to.

    python DIR/trainer/runtime/warm.py CHANNEL

``CHANNEL`` is the number of an inherited socket. A request is one line of JSON: ``argv``, the words after the launcher;
``cwd``; ``environment``, all of it; ``log``, the file that takes the output. The answer is a line with the ``pid``.
The first line of all says whether forking is safe: ``{"problem": ""}``, or why not.

What a script sees is what a process started for it would show it: its own session, directory, environment, log, random
numbers and launcher. The process is handed to the one that started this (a subreaper, prctl(2)), which waits for it,
and gets SIGTERM when that one dies.

A process that has initialized CUDA can't fork one that uses it (CUDA C++ Programming Guide, "Initialization"), so this
one imports CuPy with Chainer and asks the driver whether that has initialized it.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

# As in trainer.runtime.layout, which can't be imported yet.
RUN_DIR_VARIABLE = "TRAINER_RUN_DIR"
_RUNTIME_DIR = Path(__file__).absolute().parent
_ROOT = str(_RUNTIME_DIR.parent.parent)
# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1
_CUDA_ERROR_NOT_INITIALIZED = 3
_HANDOVER_SECONDS = 10.0

# What the included script, its launcher and most Chainer scripts import.
_IMPORTED = (
    "argparse",
    "numpy",
    "chainer",
    "chainer.functions",
    "chainer.links",
    "chainer.training.extensions",
    "chainer.datasets",
    "trainer.runtime.compat.auto",
    "trainer.runtime.datasets",
    "trainer.runtime.datasets.dataset",
    "trainer.runtime.flags",
    "trainer.runtime.hints",
    "trainer.runtime.networks",
    "trainer.runtime.service_values",
    "trainer.runtime.shadowing",
    "trainer.runtime.training.checkpoint",
    "trainer.runtime.training.compiled",
    "trainer.runtime.training.extensions",
    "trainer.runtime.training.iterator",
    "trainer.runtime.training.machine",
    "trainer.runtime.training.recording",
)
_OPTIONAL = ("threadpoolctl",)


def main() -> None:
    """Serve until the channel closes. In a forked process: run the script that was asked for."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    sys.path[:] = [entry for entry in sys.path if Path(entry).absolute() != _RUNTIME_DIR]
    path = list(sys.path)
    sys.path.insert(0, _ROOT)
    launch = importlib.import_module("trainer.runtime.launch")
    problem = _prepare()
    sys.path[:] = path
    _answer(channel, {"problem": problem})
    request = None if problem else _serve(channel)
    channel.close()
    if request is not None:
        launch.main(request["argv"])


def _prepare() -> str:
    """Import what scripts import; return why forking is not safe, or an empty text."""
    from trainer.runtime import compat, environment, fast, recording
    from trainer.runtime.faults import RuntimeFault

    try:
        compat.apply()
        fast.install()
        for name in _IMPORTED:
            importlib.import_module(name)
        recording.prepare()
        environment.facts()
    except RuntimeFault as fault:
        return fault.message
    except Exception as error:  # a broken installation: a fresh process says what is wrong, in its own log
        return f"{type(error).__name__}: {error}"
    for name in _OPTIONAL:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    shadowed = _shadowed(Path(_ROOT).parent)
    if shadowed:
        return f"{shadowed} has the name of a module that is imported already"
    if cuda_is_initialized():
        return "importing Chainer initializes CUDA here"
    gc.collect()
    # Pages that the collector never writes to stay shared between all forked processes.
    gc.freeze()
    return ""


def _shadowed(snapshot: Path) -> str:
    """Return a file of the script's own that ``import`` would no longer find, or an empty text."""
    for folder, folders, files in os.walk(snapshot):
        if Path(folder) == snapshot and Path(_ROOT).name in folders:
            folders.remove(Path(_ROOT).name)
        for name in (*folders, *(file.removesuffix(".py") for file in files if file.endswith(".py"))):
            # "trainer" has a way of its own; see launch.give_way.
            if name in sys.modules and name not in ("__main__", "trainer"):
                return str(Path(folder).relative_to(snapshot) / name)
    return ""


def cuda_is_initialized() -> bool:
    """Ask the CUDA driver whether this process has initialized it. Doesn't load the driver itself."""
    try:
        loaded = "libcuda.so" in Path("/proc/self/maps").read_text()
    except OSError:
        return False
    if not loaded:
        return False
    count = ctypes.c_int()
    answer: int = ctypes.CDLL("libcuda.so.1").cuDeviceGetCount(ctypes.byref(count))
    return answer != _CUDA_ERROR_NOT_INITIALIZED


def _serve(channel: socket.socket) -> dict[str, Any] | None:
    """Fork a process per request. Return None at the end of the requests, and in a forked process its request."""
    parent = os.getppid()
    stream = channel.makefile("rb")
    while line := stream.readline():
        request: dict[str, Any] = json.loads(line)
        reader, writer = os.pipe()
        middle = os.fork()
        if middle == 0:
            # Forked twice: the process whose parent ends becomes a child of the one that waits for it.
            child = os.fork()
            if child:
                os.write(writer, b"%d" % child)
                os._exit(0)
            os.close(reader)
            os.close(writer)
            _become(request, parent)
            return request
        os.close(writer)
        os.waitpid(middle, 0)
        with os.fdopen(reader, "rb") as told:
            pid = int(told.read() or b"0")
        _answer(channel, {"pid": pid})
    return None


def _become(request: dict[str, Any], parent: int) -> None:
    """Become the process that the request describes."""
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)
    deadline = time.monotonic() + _HANDOVER_SECONDS
    while os.getppid() != parent and time.monotonic() < deadline:
        time.sleep(0.0005)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it died meanwhile
    _show(request["environment"].get(RUN_DIR_VARIABLE, ""))
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    # Forked processes would all draw the same; Python's own generator sees to itself.
    importlib.import_module("numpy").random.seed()


def _show(run_dir: str) -> None:
    """Let others see which run this process is of, and so those that it forks, as they see it of every other job.

    The kernel shows the environment that a program was started with (proc(5), /proc/pid/environ). This one was started
    with a path of the same length in the variable's place.
    """
    text = f"{RUN_DIR_VARIABLE}={run_dir}\0".encode()
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[47]), int(fields[48])  # env_start and env_end, fields 50 and 51 of all
    except (OSError, ValueError, IndexError):
        return
    block = ctypes.string_at(start, end - start)
    at = block.find(f"{RUN_DIR_VARIABLE}=".encode())
    if at >= 0 and block.find(b"\0", at) == at + len(text) - 1:
        ctypes.memmove(start + at, text, len(text))


def _answer(channel: socket.socket, answer: dict[str, Any]) -> None:
    channel.sendall(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
