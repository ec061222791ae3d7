"""What a drill is: something that is done to the program many times, and a promise that holds each time."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class NotHereError(Exception):
    """This system can't run the drill; its text says why."""


@dataclass(frozen=True)
class Drill:
    """One row of the table in docs/reliability.md.

    Attributes:
        name: As the command line takes it.
        promise: What holds, in a sentence.
        run: Does it in an empty directory. The second argument scales it: 1.0 for the table, less to try a drill out.
            Returns what was done how often, such as ``{"kills": 727}``. Raises ``AssertionError`` where the promise
            is broken, and ``NotHereError``.
    """

    name: str
    promise: str
    run: Callable[[Path, float], dict[str, int]]


def pytest_cases(*words: str) -> int:
    """Run tests, and return how many passed.

    Raises:
        AssertionError: One failed.
        NotHereError: All were skipped.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    if not passed:
        raise NotHereError("every test was skipped")
    return int(passed[1])
