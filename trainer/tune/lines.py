"""One line per study for lists of runs, read without the rest of this package."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from trainer import recordfile
from trainer.errors import DamagedRecordError
from trainer.locks import is_locked


class StudyLine(NamedTuple):
    """What a list of runs shows of a study.

    Attributes:
        study: Its id.
        backend: Where its trials run.
        status: ``Running``, or how it ended.
        created: When it was begun, in seconds since the epoch.
        took: How long its last command took, in seconds; None while it runs.
        dataset: The data set of its trials, or None.
        model: The model version registered from it, as ``name:version``, or an empty text.
        finished: How many of its trials have ended.
        runs: The ids of its trials' runs.
    """

    study: str
    backend: str
    status: str
    created: float
    took: float | None
    dataset: str | None
    model: str
    finished: int
    runs: frozenset[str]

    def row(self) -> tuple[str, ...]:
        """Return the cells of a table of runs."""
        took = "" if self.took is None else f"{self.finished} trial{'s' * (self.finished != 1)}"
        created = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.created))
        return self.study, self.backend, self.status, created, took, self.dataset or "", self.model


class _Job(msgspec.Struct):
    dataset: str | None = None


class _Definition(msgspec.Struct):
    study: str
    backend: str
    created: float
    job: _Job
    driver: str = "client"


class _Trial(msgspec.Struct):
    number: int
    run_id: str
    state: str


class _Model(msgspec.Struct):
    name: str
    version: int


class _Outcome(msgspec.Struct):
    status: str
    seconds: float = 0.0
    model: _Model | None = None


_DEFINITION = msgspec.json.Decoder(_Definition)
_TRIAL = msgspec.json.Decoder(_Trial)
_OUTCOME = msgspec.json.Decoder(_Outcome)
_LARGEST_TRIALS = 512 << 20


def study_lines(studies: Path) -> tuple[StudyLine, ...]:
    """Return a line per study that can be read; ``trainer studies`` says what is wrong with the others."""
    found = []
    for path in studies.iterdir():
        try:
            definition = recordfile.read(path / "study.json", _DEFINITION)
            found.append(_line(path, definition))
        except (OSError, DamagedRecordError):
            continue
    return tuple(found)


def _line(path: Path, definition: _Definition) -> StudyLine:
    states: dict[int, str] = {}
    runs = set()
    try:
        data = recordfile.read_bytes(path / "trials.jsonl", _LARGEST_TRIALS)
    except FileNotFoundError:
        data = b""
    for text in data.splitlines():
        try:
            trial = recordfile.decode(text, _TRIAL, path / "trials.jsonl")
        except DamagedRecordError:
            continue
        states[trial.number] = trial.state
        runs.add(trial.run_id)
    outcome: _Outcome | None = None
    if is_locked(path / ".driver.lock"):
        status = "Running"
    else:
        try:
            outcome = recordfile.read(path / "outcome.json", _OUTCOME)
        except (OSError, DamagedRecordError):
            outcome = None
        # One that a service drives goes on without a command.
        status = outcome.status if outcome else "Running" if definition.driver == "service" else "Interrupted"
    model = outcome.model if outcome else None
    return StudyLine(
        study=definition.study,
        backend=definition.backend,
        status=status,
        created=definition.created,
        took=outcome.seconds if outcome else None,
        dataset=definition.job.dataset,
        model=f"{model.name}:{model.version}" if model else "",
        finished=sum(state not in ("Running", "Interrupted") for state in states.values()),
        runs=frozenset(runs),
    )
