"""How many threads BLAS uses.

OpenBLAS waits for its threads by spinning. On a machine with other work to do, a second thread makes
an epoch of small matrix products many times slower, and on an idle one it gains little before layers
have about a thousand units (``docs/performance.md`` has both measurements). The number also decides how
sums are ordered, so it must not depend on the load: the same seed would give another model. So
the default is one thread, whatever the machine.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from trainer.runtime import ranks
from trainer.runtime.faults import RuntimeFault
from trainer.runtime.layout import BLAS_VARIABLES, THREADS_VARIABLE

DEFAULT = 1

# Called with the number whenever it is set: for other libraries whose threads are to be as many.
FOLLOWERS: list[Callable[[int], object]] = []


@dataclass(frozen=True)
class Threads:
    """The number of BLAS threads in use.

    Attributes:
        count: The number; None where BLAS could not be asked.
        reason: Who chose it, for people.
    """

    count: int | None
    reason: str

    def __str__(self) -> str:
        return f"{self.count or 'unknown'} ({self.reason})"


def begin(source: bytes) -> None:
    """Have BLAS start no threads that a script is going to switch off. Before NumPy is imported.

    OpenBLAS starts a thread per core with NumPy, and each spins for a while before it sleeps. A script that calls
    ``use_device`` leaves the number to :func:`limit`, which starts those that are asked for.

    Args:
        source: The script's.
    """
    calls = b"use_device(" in source and (b"trainer.runtime" in source or b"from trainer import" in source)
    if calls and not any(os.environ.get(name) for name in (THREADS_VARIABLE, *BLAS_VARIABLES)):
        ranks.chosen_threads = str(DEFAULT)
        os.environ.update(dict.fromkeys(BLAS_VARIABLES, ranks.chosen_threads))


def limit(count: int | None = None) -> Threads:
    """Set the number of BLAS threads of this process.

    Args:
        count: The number; None for ``TRAINER_THREADS``, else what the environment tells BLAS itself
            (``OPENBLAS_NUM_THREADS``, ``MKL_NUM_THREADS``, ``OMP_NUM_THREADS``), else one.

    Raises:
        RuntimeFault: A number in the environment is not a positive integer.
    """
    reason = "--threads"
    if count is None:
        count, reason = _from_environment()
    if count < 1:
        raise RuntimeFault(f"{reason} is {count}; a thread count is a positive number", "use 1 or more")
    for follow in FOLLOWERS:
        follow(count)
    try:
        threadpoolctl = importlib.import_module("threadpoolctl")
    except ImportError:
        return Threads(None, "threadpoolctl is not installed: BLAS decides")
    loaded = threadpoolctl.ThreadpoolController().select(user_api="blas")  # looks for the libraries, once
    loaded.limit(limits=count)
    found = [pool["num_threads"] for pool in loaded.info()]
    if not found:
        return Threads(None, "no BLAS library that threadpoolctl knows is loaded")
    return Threads(max(found), reason)


def asked_for() -> int:
    """The number that the environment asks for, else one: ``TRAINER_THREADS`` first, then BLAS's own variables.

    Raises:
        RuntimeFault: A number there is not a positive integer.
    """
    return _from_environment()[0]


def _from_environment() -> tuple[int, str]:
    for name in (THREADS_VARIABLE, *BLAS_VARIABLES):
        text = os.environ.get(name, "").strip()
        if text and text != ranks.chosen_threads:
            # OpenMP allows a list, one number a nesting level; the first counts here.
            first = text.split(",")[0]
            if not first.isdecimal() or int(first) < 1:
                raise RuntimeFault(
                    f"{name} is {text!r}, not a number of threads", f"set it to 1 or more, or unset {name}"
                )
            return int(first), name
    return DEFAULT, "the default"
