"""The early termination policies, judged at equal intervals.

An interval is one value of the primary metric. A policy applies at every multiple of ``evaluation_interval`` that is
at least ``delay_evaluation``. At interval n it sees of each run what that one had logged up to its own interval n, so a
young run is not judged by an old one's later values. After ``azureml.train.hyperdrive.policy``:

Bandit
    stops a run whose best value up to n is worse than the best of all runs up to n by more than the slack. With leader
    b and best value v, maximising: v (1 + slack_factor) < b, or v < b - slack_amount; minimising:
    v > b (1 + slack_factor), or v > b + slack_amount. Of a negative b, the slack is a part of the absolute value.
MedianStopping
    stops a run whose best value up to n is worse than the median of the running averages, over 1 to n, of all runs that
    have got so far.
TruncationSelection
    of the N runs that have got to n, finished ones among them, stops those of the floor(N truncation_percentage / 100)
    lowest by their value at n, unless it equals that of the lowest which goes on.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from azureml_emulator.bodies import problems
from azureml_emulator.errors import bad_request


class Curve:
    """What a run has logged, signed so that more is better; NaN is worse than all.

    Args:
        values: In the order in which they were logged.
        goal: ``maximize`` or ``minimize``.
    """

    def __init__(self, values: Iterable[float], goal: str) -> None:
        self.goal = goal
        sign = self.sign = 1.0 if goal == "maximize" else -1.0
        self.values = [-math.inf if math.isnan(value) else sign * value for value in values]
        self._best = list(itertools.accumulate(self.values, max))
        self._sums = list(itertools.accumulate(map(_exact, self.values), _add))

    def __len__(self) -> int:
        return len(self.values)

    def best(self, interval: int) -> float:
        """Return the best value up to an interval; the worst of all if there is none."""
        return self._best[min(interval, len(self)) - 1] if self.values else -math.inf

    def average(self, interval: int) -> float:
        """Return the mean of the first ``interval`` values."""
        total = self._sums[interval - 1]
        return -math.inf if total is None else float(total / interval)


def _exact(value: float) -> Fraction | None:
    # Exact sums: the average of equal values is that value, and equal runs don't stop each other.
    return Fraction(value) if math.isfinite(value) else None


def _add(total: Fraction | None, value: Fraction | None) -> Fraction | None:
    return None if total is None or value is None else total + value


@dataclass(frozen=True)
class Verdict:
    """Why a run is stopped.

    Attributes:
        interval: Where it was judged.
        value: What it had.
        bound: What it would have needed.
    """

    interval: int
    value: float
    bound: float


class Policy(BaseModel):
    """What the policies have in common."""

    model_config = ConfigDict(extra="forbid")

    evaluation_interval: int = Field(default=1, ge=1)
    delay_evaluation: int = Field(default=0, ge=0)

    def intervals(self, judged: int, logged: int) -> range:
        """Return the intervals to judge: those passed since interval ``judged``, of a run with ``logged`` values."""
        step = self.evaluation_interval
        first = max(judged + 1, self.delay_evaluation, 1)
        return range(math.ceil(first / step) * step, logged + 1, step)

    def judge(self, curve: Curve, others: Sequence[Curve], interval: int) -> Verdict | None:
        """Say whether a run is stopped at an interval that it has reached.

        Args:
            curve: The run's.
            others: Those of all other runs.
            interval: Where.

        Returns:
            Why it is stopped, or None if it goes on.
        """
        value, bound = self._compare(curve, [curve, *others], interval)
        # Not "<=": what is stopped is worse than the bound, and equal runs must not stop each other.
        if not value < bound:
            return None
        return Verdict(interval, curve.sign * value, curve.sign * bound)

    def _compare(self, curve: Curve, everyone: Sequence[Curve], interval: int) -> tuple[float, float]:
        raise NotImplementedError


class Bandit(Policy):
    """The Bandit policy."""

    slack_factor: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    slack_amount: float | None = Field(default=None, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one_slack(self) -> Bandit:
        if (self.slack_factor is None) == (self.slack_amount is None):
            raise ValueError("Bandit takes one of slack_factor, which is more than 0, and slack_amount")
        return self

    def _compare(self, curve: Curve, everyone: Sequence[Curve], interval: int) -> tuple[float, float]:
        leader = max(each.best(interval) for each in everyone)
        if self.slack_amount is not None:
            return curve.best(interval), leader - self.slack_amount
        assert self.slack_factor is not None
        part = self.slack_factor / (1 + self.slack_factor) if curve.goal == "maximize" else self.slack_factor
        return curve.best(interval), leader - abs(leader) * part


class MedianStopping(Policy):
    """The Median Stopping policy."""

    def _compare(self, curve: Curve, everyone: Sequence[Curve], interval: int) -> tuple[float, float]:
        averages = [each.average(interval) for each in everyone if len(each) >= interval]
        return curve.best(interval), statistics.median(averages)


class TruncationSelection(Policy):
    """The Truncation Selection policy."""

    truncation_percentage: int = Field(ge=1, le=99)
    exclude_finished_jobs: Literal[False] = False

    def _compare(self, curve: Curve, everyone: Sequence[Curve], interval: int) -> tuple[float, float]:
        reached = sorted(each.values[interval - 1] for each in everyone if len(each) >= interval)
        return curve.values[interval - 1], reached[len(reached) * self.truncation_percentage // 100]


_POLICIES: tuple[type[Policy], ...] = (Bandit, MedianStopping, TruncationSelection)


def make_policy(name: str, properties: dict[str, Any]) -> Policy | None:
    """Return the policy of a sweep; None for the default, which stops nothing.

    Raises:
        ServiceError: 400, there is no such policy, or it can't have these properties.
    """
    if name.lower() == "default":
        return None
    kind = next((each for each in _POLICIES if each.__name__.lower() == name.lower()), None)
    if kind is None:
        known = ", ".join(each.__name__ for each in _POLICIES)
        raise bad_request(f"There is no policy {name!r}, only {known} and Default.")
    try:
        return kind.model_validate({key: value for key, value in properties.items() if value is not None})
    except ValidationError as error:
        raise bad_request(f"The {name} policy is invalid: {problems(error)}.") from None
