"""Looking runs up: one by what was typed, or all of them, fast."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

import msgspec

from trainer import recordfile
from trainer.backend import Backend, load_backend
from trainer.config import load_config
from trainer.errors import DamagedRecordError, NoLocksError, TrainerError
from trainer.failures import reason
from trainer.findrun import find_run
from trainer.handle import Run
from trainer.home import Home
from trainer.host import elsewhere
from trainer.records import RunInfo
from trainer.runfolder import STATUS_FILE, RunFolder, check_info
from trainer.runids import run_ids

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
        info = read_info(home, run_id, problems)
        if info is not None and refresh and not info.status.terminal:
            info = refreshed(info, home, backends, load, problems)
        if info is not None:
            infos.append(info)
    return Listing(tuple(infos), tuple(problems), len(known) - len(known[:limit]))


def read_info(home: Home, run_id: str, problems: list[str]) -> RunInfo | None:
    """Read one run's record.

    Args:
        home: Where runs are kept.
        run_id: The run.
        problems: Gets a line about a record that is missing or damaged.

    Returns:
        The record, or None if there is none to be read.
    """
    path = f"{home.runs}/{run_id}/{STATUS_FILE}"
    try:
        info = recordfile.read(path, _DECODER)
        check_info(info, path)
    except FileNotFoundError:
        if (home.runs / run_id).is_dir():  # else it was removed meanwhile
            problems.append(
                f"Run {run_id} has no {STATUS_FILE}: its submission was killed. To set it aside: "
                "trainer doctor --repair"
            )
        return None
    except DamagedRecordError as error:
        problems.append(f"{error.message} To set it aside: trainer doctor --repair")
        return None
    return info


def refreshed(
    info: RunInfo,
    home: Home,
    backends: dict[str, Backend],
    load: Callable[[str, Home], Backend],
    problems: list[str],
) -> RunInfo:
    """Bring a run that has not ended up to date, or leave it as it was last seen and say why.

    Args:
        info: Its record.
        home: Where runs are kept.
        backends: Those that have been made, by name; a new one is added.
        load: Makes a backend from its name.
        problems: Gets a line about a run that could not be asked.
    """
    try:
        if info.backend not in backends:
            backends[info.backend] = load(info.backend, home)
        backend = backends[info.backend]
        if (host := elsewhere(info)) and not backend.remote:
            problems.append(f"{info.run_id}: showing the last known status; it runs on {host}.")
            return info
        return backend.refresh(RunFolder(home.runs / info.run_id))
    except NoLocksError as error:
        text = f"The file system of {home.runs} has no locks ({error.why}): showing the last known status of runs."
        if text not in problems:  # once, however many there are
            problems.append(text)
    except (TrainerError, OSError) as error:
        problems.append(f"{info.run_id}: showing the last known status; {reason(error)}")
    return info
