"""Runs ChainerMN's own tests as ranks: one mpiexec per file, and another for what a desynchronised test leaves.

A test that fails on one rank and passes on another, or that hangs, leaves messages behind which the next test of that
process would read. What was to follow it is therefore run by fresh ranks.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from report import Outcome

# What a test is said to have done is the worst that it did on any rank.
_WORST = ("passed", "skipped", "failed", "error", "hung")
_POLL_SECONDS = 0.2
_STARTING_SECONDS = 240.0  # imports, on a busy machine
_NO_TESTS = 5  # pytest's exit status where it runs none


def run(command: list[str], tests: Path, paths: list[str], environment: dict[str, str], *, ranks: int, patience: float,
        scratch: Path) -> Iterator[Outcome]:  # fmt: skip
    """Run the files below ``paths`` and yield what became of each test.

    Args:
        command: pytest's, but for the file.
        tests: The folder that the paths are relative to.
        paths: Files and folders.
        environment: Of the processes.
        ranks: How many there are.
        patience: Seconds without a word after which the ranks hang.
        scratch: A folder for what they say.
    """
    for path in paths:
        found = tests / path
        files = [found] if found.is_file() else sorted(found.rglob("test_*.py"))
        for file in files:
            yield from _run_file(command, tests, file, environment, ranks, patience, scratch)


def _run_file(
    command: list[str], tests: Path, file: Path, environment: dict[str, str], ranks: int, patience: float, scratch: Path
) -> Iterator[Outcome]:
    name = file.relative_to(tests).as_posix()
    done: list[str] = []
    while True:
        said, code = _start(command, tests, name, environment, ranks, patience, scratch, done)
        outcomes = _merge(said)
        if not outcomes:
            if not done and code not in (0, _NO_TESTS):
                yield Outcome(name, "error", f"no test ran: exit status {code}")
            return
        for outcome, in_step in outcomes:
            yield outcome
            done.append(outcome.test)
            sys.stderr.write(f"{outcome.outcome:8}{outcome.test}\n")
            if not in_step:
                break
        else:
            return


def _start(command: list[str], tests: Path, name: str, environment: dict[str, str], ranks: int, patience: float,
           scratch: Path, done: list[str]) -> tuple[list[list[Outcome]], int]:  # fmt: skip
    """Run a file's tests but those that are done; return what each rank has said, in order."""
    for old in scratch.glob("rank-*"):
        old.unlink()
    (scratch / "done").write_text("\n".join(done))
    mpiexec = Path(sys.executable).with_name("mpiexec")
    starter = str(mpiexec) if mpiexec.exists() else shutil.which("mpiexec")
    if starter is None:
        sys.exit("error: no mpiexec; pip install mpich mpi4py")
    variables = {"HYDRA_IFACE": "lo", "FI_PROVIDER": "tcp", **environment, "UPSTREAM_RANKS": str(scratch)}
    with (scratch / "ranks.log").open("ab") as log:
        process = subprocess.Popen(
            [starter, "-n", str(ranks), *command, name],
            cwd=tests, env=variables, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        size, since = -1, time.monotonic()
        while process.poll() is None:
            time.sleep(_POLL_SECONDS)
            now = sum(path.stat().st_size for path in scratch.glob("rank-*"))
            if now != size:
                size, since = now, time.monotonic()
            elif time.monotonic() - since > patience + (0 if size else _STARTING_SECONDS):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return [_read(scratch / f"rank-{rank}") for rank in range(ranks)], process.returncode


def _read(path: Path) -> list[Outcome]:
    if not path.exists():
        return []
    return [Outcome(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _merge(said: list[list[Outcome]]) -> list[tuple[Outcome, bool]]:
    """What became of each test, in the order of the start, and whether all ranks were in step after it."""
    order = list(dict.fromkeys(outcome.test for rank in said for outcome in rank))
    merged = []
    for test in order:
        ends = [
            next((outcome for outcome in rank if outcome.test == test and outcome.outcome != "started"), None)
            for rank in said
        ]
        kinds = ["hung" if end is None else end.outcome for end in ends]
        worst = max(kinds, key=_WORST.index)
        rank = kinds.index(worst)
        end = ends[rank]
        text = f"rank {rank}: " + ("does not end" if end is None else end.text)
        in_step = len(set(kinds)) == 1 and worst != "hung"
        merged.append((Outcome(test, worst, "" if worst in ("passed", "skipped") else text), in_step))
    return merged
