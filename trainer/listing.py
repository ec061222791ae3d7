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
from trainer.handle import Run
from trainer.home import Home
from trainer.host import elsewhere
from trainer.records import RunInfo
from trainer.runfolder import STATUS_FILE, RunFolder, check_info, find_run, run_ids

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
            info = _read(f"{home.runs}/{run_id}/{STATUS_FILE}")
        except FileNotFoundError:
            if (home.runs / run_id).is_dir():  # else it was removed meanwhile
                problems.append(
                    f"Run {run_id} has no {STATUS_FILE}: its submission was killed. To set it aside: "
                    "trainer doctor --repair"
                )
            continue
        except DamagedRecordError as error:
            problems.append(f"{error.message} To set it aside: trainer doctor --repair")
            continue
        if refresh and not info.status.terminal:
            try:
                if info.backend not in backends:
                    backends[info.backend] = load(info.backend, home)
                backend = backends[info.backend]
                if (host := elsewhere(info)) and not backend.remote:
                    problems.append(f"{run_id}: showing the last known status; it runs on {host}.")
                else:
                    info = backend.refresh(RunFolder(home.runs / run_id))
            except NoLocksError as error:
                text = (
                    f"The file system of {home.runs} has no locks ({error.why}): showing the last known status of runs."
                )
                if text not in problems:  # once, however many there are
                    problems.append(text)
            except (TrainerError, OSError) as error:
                problems.append(f"{info.run_id}: showing the last known status; {reason(error)}")
        infos.append(info)
    return Listing(tuple(infos), tuple(problems), len(known) - len(known[:limit]))


def _read(path: str) -> RunInfo:
    info = recordfile.read(path, _DECODER)
    check_info(info, path)
    return info
