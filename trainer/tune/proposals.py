"""Which trial comes next, and with which values."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from trainer.errors import UsageError
from trainer.tune.optuna_study import OptunaStudy
from trainer.tune.sampling import grid_index, grid_point, grid_size, point
from trainer.tune.space import Value
from trainer.tune.study import StudyDefinition, StudyFolder, Trial, TrialState

Finished = Iterable[tuple[Trial, Sequence[float | None]]]


class Proposals:
    """Hands out trials by number: first those that were interrupted, then ``--try``'s, then the sampler's.

    Args:
        definition: The study.
        known: Its trials so far.
        total: How many it is to have.
        optuna: Chooses for ``tpe``; also follows along where ASHA stops trials.
        done: Values that earlier studies have tried, which a grid leaves out.
    """

    def __init__(
        self,
        definition: StudyDefinition,
        known: Mapping[int, Trial],
        total: int,
        optuna: OptunaStudy | None = None,
        done: Sequence[Mapping[str, Value]] = (),
    ) -> None:
        self._definition = definition
        self._optuna = optuna
        self._again = [trial for trial in known.values() if trial.state is TrialState.INTERRUPTED]
        self._grid = _grid(definition, done, total) if definition.sampler == "grid" else None
        if self._grid is not None:
            total = min(total, len(definition.tries) + len(self._grid))
        self.total = total
        self._numbers = iter(number for number in range(total) if number not in known)

    def next(self) -> tuple[int, dict[str, Value]] | None:
        """Return a trial's number and values, or None when there are no more."""
        if self._again:
            trial = self._again.pop(0)
            return trial.number, self._told(trial.number, trial.values)
        number = next(self._numbers, None)
        if number is None:
            return None
        definition = self._definition
        if number < len(definition.tries):
            return number, self._told(number, definition.tries[number])
        if definition.sampler == "tpe":
            assert self._optuna is not None
            return number, self._optuna.ask(number)
        index = number - len(definition.tries)
        if self._grid is not None:
            return number, self._told(number, grid_point(definition.space, self._grid[index]))
        return number, self._told(number, point(definition.sampler, definition.space, definition.seed, index))

    def again(self, trial: Trial) -> None:
        """Run a trial once more."""
        self._again.append(trial)

    @property
    def has_again(self) -> bool:
        """Whether a trial waits to run once more."""
        return bool(self._again)

    def _told(self, number: int, values: dict[str, Value]) -> dict[str, Value]:
        if self._optuna is not None:
            self._optuna.ask(number, values)
        return values


def make_optuna(
    definition: StudyDefinition, study: StudyFolder, known: Finished, earlier: Finished
) -> OptunaStudy | None:
    """Return Optuna's side of a study that needs it, with all that is known told to it; else None.

    Raises:
        MissingExtraError: Optuna is not installed.
    """
    uses = definition.sampler == "tpe" or (definition.stop is not None and definition.stop.name == "asha")
    return OptunaStudy(definition, study.journal, itertools.chain(earlier, known)) if uses else None


def check_warm_start(definition: StudyDefinition, other: StudyDefinition) -> None:
    """Refuse an earlier study that can't teach this one anything.

    Raises:
        UsageError: It had another metric, goal or space, or this study's sampler learns from no trial.
    """
    if definition.sampler not in ("tpe", "grid", "bayesian"):
        raise UsageError(
            f"The {definition.sampler} sampler learns nothing from --warm-start.",
            "Use --sampler tpe, or grid, which leaves out what was tried.",
        )
    for what in ("metric", "goal"):
        if getattr(definition, what) != getattr(other, what):
            raise UsageError(
                f"Study {other.study} has another {what}: {getattr(other, what)}.", "Leave it out of --warm-start."
            )
    if {each.name: each for each in definition.space} != {each.name: each for each in other.space}:
        raise UsageError(f"Study {other.study} has another space.", "Leave it out of --warm-start.")


def _grid(definition: StudyDefinition, done: Sequence[Mapping[str, Value]], most: int) -> list[int]:
    """The numbers of the grid's first points that were not tried: a grid may have more than can be listed."""
    tried = {grid_index(definition.space, values) for values in (*definition.tries, *done)}
    left = (index for index in range(grid_size(definition.space)) if index not in tried)
    return list(itertools.islice(left, most))
