"""Interleaved measurements: every subject once, then every subject again, so that all share the machine's moods."""

from __future__ import annotations

import ctypes
import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
# BLAS's and OpenMP's threads go on spinning for a while when their work is done: they'd take a core from the next.
_SPINNING = 0.5


@dataclass
class Samples:
    """What was measured of one subject.

    Attributes:
        wall: Seconds by the clock.
        cpu: Seconds of processor time, of all threads and child processes.
        peak: Largest resident set of any process in MiB; empty if it was not measured.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median of the wall times."""
        return statistics.median(self.wall)

    @property
    def least(self) -> float:
        """Least of the wall times: the one with the least of other people's work in it."""
        return min(self.wall)

    @property
    def cpu_median(self) -> float:
        """Median of the processor times."""
        return statistics.median(self.cpu)


def interleaved(subjects: Mapping[str, Callable[[], object]], repeats: int, warm_up: int = 1) -> dict[str, Samples]:
    """Time functions in this process.

    Args:
        subjects: Name to function.
        repeats: How often each is timed.
        warm_up: How often each is called before.
    """
    for function in subjects.values():
        for _ in range(warm_up):
            function()
    samples = {name: Samples() for name in subjects}
    for _ in range(repeats):
        for name, function in subjects.items():
            cpu, wall = time.process_time(), time.perf_counter()
            function()
            samples[name].wall.append(time.perf_counter() - wall)
            samples[name].cpu.append(time.process_time() - cpu)
    return samples


@dataclass(frozen=True)
class Command:
    """A command line to time from start to end.

    Attributes:
        words: The command.
        environment: Added to this process's.
    """

    words: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


def always(command: Command) -> Callable[[Path], Command]:
    """A subject whose command does not depend on its working directory."""
    return lambda _: command


def interleaved_commands(
    subjects: Mapping[str, Callable[[Path], Command]], repeats: int, folder: Path
) -> dict[str, Samples]:
    """Time command lines, each in an empty working directory of its own.

    Args:
        subjects: Name to what makes the command, given that directory.
        repeats: How often each is timed.
        folder: Where the directories are made.

    Raises:
        RuntimeError: A command failed; the message has the end of its output.
    """
    _adopt_orphans()
    samples = {name: Samples() for name in subjects}
    for number in range(repeats):
        for index, (name, make) in enumerate(subjects.items()):
            cwd = folder / f"{index}-{number}"
            cwd.mkdir(parents=True)
            _time_command(make(cwd), cwd, samples[name])
    return samples


def interleaved_workers(subjects: Mapping[str, Command], repeats: int, steps: int) -> dict[str, Samples]:
    """Time steps of processes that all live at the same time and work one after the other.

    Args:
        subjects: Name to a command that does as many steps as a line of its input says, and then prints seconds by the
            clock and of processor time per step.
        repeats: How often each is timed, after one time that does not count.
        steps: How many steps at once.

    Raises:
        RuntimeError: A command ended early; what it had to say stands on stderr.
    """
    samples = {name: Samples() for name in subjects}
    workers = {
        name: subprocess.Popen(
            list(command.words),
            env={**os.environ, **command.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, command in subjects.items()
    }
    try:
        for number in range(repeats + 1):
            for name, worker in workers.items():
                time.sleep(_SPINNING)
                assert worker.stdin is not None
                assert worker.stdout is not None
                print(steps, file=worker.stdin, flush=True)
                answer = worker.stdout.readline().split()
                if len(answer) != 2:
                    raise RuntimeError(f"{' '.join(subjects[name].words)} ended early")
                if number:
                    samples[name].wall.append(float(answer[0]))
                    samples[name].cpu.append(float(answer[1]))
    finally:
        for worker in workers.values():
            worker.kill()
            worker.communicate()
    return samples


def _time_command(command: Command, cwd: Path, samples: Samples) -> None:
    with (cwd / "output.txt").open("wb") as output:
        wall = time.perf_counter()
        process = subprocess.Popen(
            list(command.words), cwd=cwd, env={**os.environ, **command.environment}, stdout=output, stderr=output
        )
        # wait4 gives the processor time and peak memory of this child and those it waited for.
        _, status, usage = os.wait4(process.pid, 0)
        samples.wall.append(time.perf_counter() - wall)
    usages = [usage, *_orphans()]
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        text = (cwd / "output.txt").read_text(errors="replace")
        raise RuntimeError(f"{' '.join(command.words)} ended with {process.returncode}:\n{text[-2000:]}")
    samples.cpu.append(sum(each.ru_utime + each.ru_stime for each in usages))
    samples.peak.append(max(each.ru_maxrss for each in usages) / 1024)


def _adopt_orphans() -> None:
    # A run is detached from the command that started it; as their reaper this process learns its cost too. prctl(2).
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _orphans() -> list[resource.struct_rusage]:
    found: list[resource.struct_rusage] = []
    # They end about when their command does; a process that keeps the machine busy on purpose never does.
    waits = 20
    while waits:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid:
            found.append(usage)
        else:
            waits -= 1
            time.sleep(0.05)
    return found
