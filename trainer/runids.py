"""Ids of runs: how one is made, and which there are."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from trainer.errors import ConfigError

RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[a-z2-7]{6}")
# In the order in which texts sort.
_ALPHABET = "234567abcdefghijklmnopqrstuvwxyz"


def new_run_id(now: float | None = None) -> str:
    """Return an id that sorts by time (UTC) and can be typed: ``20261123-180501-k3xq2m``.

    Of the six letters, three count 32,768ths of the second, and three are drawn at random.
    """
    now = time.time() if now is None else now
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    fraction = int(now % 1 * 32**3)
    digits = (fraction >> 10, fraction >> 5, fraction, *os.urandom(3))
    return f"{stamp}-{''.join(_ALPHABET[digit % 32] for digit in digits)}"


def unused_run_id(runs: Path) -> str:
    """Return a new id that no run in the directory of all runs has."""
    while True:
        run_id = new_run_id(time.time())
        if not os.path.lexists(runs / run_id):
            return run_id


def run_ids(runs: Path) -> list[str]:
    """Every run's id, newest first.

    Raises:
        ConfigError: ``runs`` is no directory.
    """
    try:
        # Not Path.iterdir: ten thousand Path objects take longer than everything else that listing does.
        return sorted(filter(RUN_ID.fullmatch, os.listdir(runs)), reverse=True)  # noqa: PTH208
    except FileNotFoundError:
        return []
    except NotADirectoryError as error:
        raise ConfigError(f"{runs} is not a directory.", "Move it away, or set TRAINER_HOME to a directory.") from error
