"""The studies as the page shows them: all of them in short, and one with its trials."""

from __future__ import annotations

import math
import os
import threading
from typing import Any

import msgspec

from trainer.console.study import stopped_text
from trainer.errors import NotFoundError, TrainerError
from trainer.home import Home
from trainer.tune.study import STUDY_ID, StudyDefinition, StudyFolder, Trial, TrialState, best_of, study_ids
from trainer.tune.trials import objective
from trainer.view.curves import Curves

_Stamp = tuple[object, ...]


class Studies:
    """Reads studies, and each again only when its files have changed.

    Args:
        home: Where they are kept.
        curves: What the trials have logged.
    """

    def __init__(self, home: Home, curves: Curves) -> None:
        self._home, self._curves = home, curves
        self._lock = threading.Lock()
        self._known: dict[str, tuple[_Stamp, StudyDefinition, dict[int, Trial]]] = {}

    def listed(self) -> list[dict[str, Any]]:
        """Return every study in short, newest first; a damaged one says so in its ``status``."""
        found = []
        for study_id in study_ids(self._home.studies):
            try:
                found.append(self._short(StudyFolder(self._home.studies / study_id)))
            except TrainerError as error:
                found.append({"study": study_id, "status": "Damaged", "reason": error.message})
        return found

    def one(self, study_id: str, since: str = "") -> dict[str, Any]:
        """Return a study with its trials.

        Args:
            study_id: The whole id.
            since: The ``stamp`` of an earlier answer.

        Returns:
            ``stamp`` alone if nothing has changed since that answer. Otherwise ``stamp``, what the list has, ``space``
            (name and description of each parameter), ``search`` (sampler and stopping policy) and ``trials``: ``why``
            says why one was stopped, or failed, and ``value`` of one under way is the objective so far.

        Raises:
            NotFoundError: There is no such study.
            ConfigError: It is damaged.
        """
        if not STUDY_ID.fullmatch(study_id):
            raise NotFoundError(f"{study_id[:60]!r} is no study's id.", "")
        folder = StudyFolder(self._home.studies / study_id)
        short = self._short(folder)
        definition, trials = self._read(folder)
        shown = [self._trial(definition, trial) for trial in trials.values()]
        stamp = f"{hash(msgspec.json.encode([short, shown])):x}"
        if stamp == since:
            return {"stamp": stamp}
        return short | {
            "stamp": stamp,
            "space": [{"name": each.name, "text": each.describe()} for each in definition.space],
            "search": definition.sampler + ("" if definition.stop is None else f", stops by {definition.stop.name}"),
            "trials": shown,
        }

    def _short(self, folder: StudyFolder) -> dict[str, Any]:
        definition, trials = self._read(folder)
        status, outcome, best = folder.status, folder.outcome(), best_of(definition, trials)
        model = outcome.model if outcome else None
        counts = {str(state): sum(trial.state is state for trial in trials.values()) for state in TrialState}
        return {
            "study": folder.study_id,
            "status": status,
            "reason": outcome.reason if outcome and status != "Running" else "",
            "created": definition.created,
            "seconds": outcome.seconds if outcome else None,
            "backend": definition.backend,
            "script": definition.job.script,
            "metric": definition.metric,
            "goal": definition.goal,
            "trials_in_all": max(definition.trials, len(trials), outcome.trials if outcome else 0),
            "counts": {state: count for state, count in counts.items() if count},
            "best": None if best is None else {"number": best.number, "run_id": best.run_id, "value": best.value},
            "model": None if model is None else f"{model.name}:{model.version}",
        }

    def _trial(self, definition: StudyDefinition, trial: Trial) -> dict[str, Any]:
        why = trial.reason if trial.stopped is None else stopped_text(trial.stopped, definition.metric)
        return {
            "number": trial.number,
            "run_id": trial.run_id,
            "values": trial.values,
            "state": trial.state,
            "value": self._so_far(definition, trial) if trial.state is TrialState.RUNNING else trial.value,
            "why": why,
            "started": trial.started,
            "ended": trial.ended,
        }

    def _so_far(self, definition: StudyDefinition, trial: Trial) -> float | None:
        values = self._curves.values(trial.run_id, definition.metric)
        return objective(definition, [value if math.isfinite(value) else None for value in values])[0]

    def _read(self, folder: StudyFolder) -> tuple[StudyDefinition, dict[int, Trial]]:
        stamp = tuple(_stamp(f"{folder.path}/{name}") for name in ("study.json", "trials.jsonl"))
        with self._lock:
            known = self._known.get(folder.study_id)
        if known is None or known[0] != stamp:
            known = (stamp, folder.definition(), folder.trials())
            with self._lock:
                self._known[folder.study_id] = known
        return known[1], known[2]


def _stamp(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116  # every second, of all studies
    except OSError:
        return (0, 0)
    return status.st_mtime_ns, status.st_size
