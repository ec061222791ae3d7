"""Looking runs up: one by what was typed, or all of them, fast."""

from __future__ import annotations

import os
from collections.abc import Callable, Container
from dataclasses import dataclass

import msgspec

from trainer.backend import Backend, load_backend
from trainer.config import load_config
from trainer.errors import TrainerError
from trainer.home import Home
from trainer.records import RunInfo
from trainer.run import Run
from trainer.runfolder import RunFolder, find_run, run_ids

_DECODER = msgspec.json.Decoder(RunInfo)


@dataclass(frozen=True)
class Listing:
    """Every run's record, newest first.

    Attributes:
        infos: The records.
        problems: What could not be read or brought up to date, one line each.
        left_out: How many older runs the limit hides.
    """

    infos: tuple[RunInfo, ...]
    problems: tuple[str, ...] = ()
    left_out: int = 0


def open_run(home: Home, reference: str) -> Run:
    """Return a handle on the run that ``reference`` names, with the backend that it was submitted to.

    Args:
        home: Where runs are kept.
        reference: A run id, an unambiguous beginning or ending of one, or ``latest``.

    Raises:
        NotFoundError: No run fits.
        UsageError: More than one fits, or its backend is not installed.
        ConfigError: The configuration is wrong.
    """
    folder = find_run(home.runs, reference)
    config = load_config(home, {"backend": folder.info().backend})
    return Run(folder, load_backend(config["backend"], home, config.options()))


def list_infos(
    home: Home,
    *,
    refresh: bool = True,
    limit: int | None = None,
    load: Callable[[str, Home], Backend] = load_backend,
    without: Container[str] = (),
) -> Listing:
    """Read every run's record.

    A run that has ended is only read, so a long history costs little and imports no backend; the others are
    brought up to date. One that can't be is listed as it was last seen.

    Args:
        home: Where runs are kept.
        refresh: Bring runs that have not ended up to date.
        limit: Only so many of the newest; None for all.
        load: Makes a backend from its name, once for each.
        without: Ids of runs to leave out; they don't count for the limit.
    """
    infos: list[RunInfo] = []
    problems: list[str] = []
    backends: dict[str, Backend] = {}
    known = [run_id for run_id in run_ids(home.runs) if run_id not in without]
    for run_id in known[:limit]:
        try:
            info = _read(f"{home.runs}/{run_id}/status.json")
        except FileNotFoundError:
            continue  # being made, or being removed
        except (OSError, msgspec.DecodeError) as error:
            problems.append(f"{home.runs / run_id / 'status.json'} can't be read: {error}")
            continue
        if refresh and not info.status.terminal:
            try:
                if info.backend not in backends:
                    backends[info.backend] = load(info.backend, home)
                info = backends[info.backend].refresh(RunFolder(home.runs / run_id))
            except TrainerError as error:
                problems.append(f"{info.run_id} is shown as last seen: {error.message}")
        infos.append(info)
    return Listing(tuple(infos), tuple(problems), len(known) - len(known[:limit]))


def _read(path: str) -> RunInfo:
    # Not Path.read_bytes: with ten thousand runs its layers cost as much as the reading.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return _DECODER.decode(os.read(descriptor, 1 << 20))
    finally:
        os.close(descriptor)
