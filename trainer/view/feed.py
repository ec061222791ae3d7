"""What has changed among the runs since somebody last looked."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import msgspec

from trainer import recordfile
from trainer.backend import Backend, backend_type, load_backend
from trainer.errors import DamagedRecordError, TrainerError
from trainer.history import RunRow, differing, main_metrics, read_history, read_row
from trainer.home import Home
from trainer.labels import all_tags
from trainer.records import RunInfo
from trainer.runfolder import STATUS_FILE, RunFolder
from trainer.runids import run_ids
from trainer.runtime.layout import METRICS_FILE
from trainer.view.curves import Curves

_INFO = msgspec.json.Decoder(RunInfo)
_MOST_FILES = 2000


class Feed:
    """Keeps every run's row, and numbers the changes.

    Runs on this machine are brought up to date, as ``trainer runs`` does. One that is elsewhere is shown as its folder
    has it, which ``trainer attach`` keeps up to date.

    Args:
        home: Where runs are kept.
        curves: Their metrics.
    """

    def __init__(self, home: Home, curves: Curves) -> None:
        self.home = home
        self._curves = curves
        self._rows: dict[str, tuple[int, RunRow]] = {}
        self._stamps: dict[str, tuple[int, ...]] = {}
        self._removed: dict[str, int] = {}
        self._version = 0
        self._backends: dict[str, Backend | None] = {}
        self._lock = threading.Lock()
        self._first = True

    def changes(self, since: int) -> dict[str, Any]:
        """Return the rows that have changed after version ``since``; with 0 all of them.

        Returns:
            ``version`` to ask with next; ``rows``; ``removed``, ids; and for the table ``parameters`` that differ and
            ``metrics``, those that are compared first in front.
        """
        with self._lock:
            self._update()
            rows = [row for version, row in self._rows.values() if version > since]
            everything = [row for _, row in self._rows.values()]
            answer: dict[str, Any] = {
                "version": self._version,
                "rows": [row.as_object() | {"counts": _counts(row)} for row in rows],
                "removed": [run_id for run_id, version in self._removed.items() if version > since],
            }
            if rows or answer["removed"] or not since:
                answer |= {"parameters": differing(everything), "metrics": main_metrics(everything)}
            return answer

    def run(self, run_id: str) -> dict[str, Any]:
        """Return what there is of one run besides its row: its files and its command.

        Raises:
            NotFoundError: There is no such run.
        """
        folder = self.folder(run_id)
        info, job = folder.info(), folder.job()
        return {
            "run_id": run_id,
            "info": info,
            "command": [job.script, *job.arguments],
            "tags": all_tags(folder.path, job.tags),
            "dataset_note": job.dataset_note,
            "files": files(folder.outputs.resolve()),
        }

    def folder(self, run_id: str) -> RunFolder:
        """Return a run's folder.

        Raises:
            NotFoundError: There is no such run.
        """
        # Not find_run: a page asks for whole ids, and what it asks for must be the name of a folder there.
        folder = RunFolder(self.home.runs / run_id)
        folder.info()
        return folder

    def _update(self) -> None:
        known = run_ids(self.home.runs)
        if self._first:
            # The index makes the first look fast.
            self._first = False
            for row in read_history(self.home, refresh=False).rows:
                run_id = row.info.run_id
                self._put(run_id, row, self._stamp(run_id, live=not row.info.status.terminal))
        for run_id in known:
            row_now = self._rows.get(run_id)
            live = row_now is None or not row_now[1].info.status.terminal
            if live and row_now is not None:
                self._refresh(row_now[1].info)
            stamp = self._stamp(run_id, live=live)
            if stamp != self._stamps.get(run_id):
                self._read(run_id, stamp)
        present = set(known)
        for run_id in [run_id for run_id in self._rows if run_id not in present]:
            self._version += 1
            del self._rows[run_id]
            self._removed[run_id] = self._version
            self._stamps.pop(run_id, None)

    def _read(self, run_id: str, stamp: tuple[int, ...]) -> None:
        path = self.home.runs / run_id
        try:
            info = recordfile.read(path / STATUS_FILE, _INFO)
            row = read_row(path, info, self._curves.summary(run_id))
        except (OSError, DamagedRecordError):
            return  # being made, being removed, or damaged: then the command line says so
        self._put(run_id, row, stamp)

    def _put(self, run_id: str, row: RunRow, stamp: tuple[int, ...]) -> None:
        self._stamps[run_id] = stamp
        if run_id not in self._rows or self._rows[run_id][1] != row:
            self._version += 1
            self._rows[run_id] = (self._version, row)

    def _stamp(self, run_id: str, *, live: bool) -> tuple[int, ...]:
        path = f"{self.home.runs}/{run_id}"
        try:
            changed = os.stat(path).st_mtime_ns  # noqa: PTH116  # every second, of thousands
        except OSError:
            return ()
        if not live:
            return (changed,)
        try:
            return (changed, os.stat(f"{path}/{METRICS_FILE}").st_size)  # noqa: PTH116
        except OSError:
            return (changed, 0)

    def _refresh(self, info: RunInfo) -> None:
        try:
            if info.backend not in self._backends:
                remote = backend_type(info.backend).remote
                self._backends[info.backend] = None if remote else load_backend(info.backend, self.home)
            backend = self._backends[info.backend]
            if backend is not None:
                backend.refresh(RunFolder(self.home.runs / info.run_id))
        except (TrainerError, OSError):
            self._backends.setdefault(info.backend, None)


def files(root: Path) -> list[dict[str, Any]]:
    """Return the files below a directory, each with its path and size; links that lead outside are left out."""
    found: list[dict[str, Any]] = []
    for directory, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = Path(directory, name)
            if len(found) < _MOST_FILES and safe(root, path) and path.is_file():
                shown = path.relative_to(root).as_posix().encode("utf-8", "replace").decode()
                found.append({"path": shown, "size": path.stat().st_size})
    return found


def safe(root: Path, path: Path) -> bool:
    """Return whether ``path``, with all links followed, lies below ``root``, which is free of links itself."""
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError, ValueError):
        return False


def _counts(row: RunRow) -> dict[str, int]:
    return {name: summary.count for name, summary in row.metrics.items()}
