"""Stopping trials early: Azure ML's three policies, judged at equal intervals; ASHA is Optuna's.

An interval is one value of the primary metric. A policy applies at every multiple of ``interval`` that is at least
``delay`` (azureml.train.hyperdrive.policy), and at interval n it sees what every trial had logged up to its own
interval n, so a young trial is not judged by an old one's later values. Each multiple that a trial has passed since
the last look is judged once, whatever the number of values that arrived together. docs/tuning.md has the formulas.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence

import msgspec

from trainer.errors import UsageError
from trainer.records import Stopped

Curve = Sequence[float | None]

POLICIES = ("bandit", "median", "truncation", "asha")
_SETTINGS = {
    "bandit": ("slack", "amount", "interval", "delay"),
    "median": ("interval", "delay"),
    "truncation": ("percent", "interval", "delay"),
    "asha": ("min", "factor", "interval", "delay"),
}
DEFAULT_SLACK = 0.1


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy and its settings.

    Attributes:
        name: One of :data:`POLICIES`.
        interval: Judge at multiples of so many values.
        delay: Don't judge before so many values.
        slack: Of ``bandit``, the slack as a ratio; None where ``amount`` is given.
        amount: Of ``bandit``, the slack as a difference.
        percent: Of ``truncation``, how many of 100 trials are stopped.
        min: Of ``asha``, the first rung, in values.
        factor: Of ``asha``, one in so many goes on, and rungs are so many times apart.
    """

    name: str
    interval: int = 1
    delay: int = 0
    slack: float | None = None
    amount: float | None = None
    percent: float = 20.0
    min: int = 1
    factor: int = 3

    def describe(self) -> str:
        """Return it as ``--stop`` takes it."""
        given = [(name, getattr(self, name)) for name in _SETTINGS[self.name]]
        return f"{self.name}:" + ",".join(f"{name}={value:g}" for name, value in given if value is not None)


def parse_policy(text: str) -> Policy:
    """Read ``--stop``: ``bandit``, ``bandit:slack=0.1,interval=1,delay=3``.

    Raises:
        UsageError: There is no such policy, or a setting is not its own or unusable.
    """
    name, _, body = text.partition(":")
    if name not in POLICIES:
        raise UsageError(f"--stop {name!r}: there is no such policy.", f"Policies: {', '.join(POLICIES)}.")
    given: dict[str, float] = {}
    for part in filter(None, body.split(",")):
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals or key not in _SETTINGS[name]:
            raise UsageError(f"--stop {text!r}: {name} has no setting {part!r}.", f"It has {_settings(name)}.")
        given[key] = _setting(text, key, value)
    if "slack" in given and "amount" in given:
        raise UsageError(f"--stop {text!r}: slack and amount exclude each other.", "Give one of them.")
    if name == "bandit" and "amount" not in given:
        given.setdefault("slack", DEFAULT_SLACK)
    return msgspec.convert({"name": name, **given}, Policy, strict=False)


def judge(policy: Policy, goal: str, number: int, interval: int, curves: Mapping[int, Curve]) -> Stopped | None:
    """Say whether a trial is stopped at one interval.

    Args:
        policy: Bandit, median or truncation.
        goal: ``max`` or ``min``.
        number: The trial that is judged.
        interval: Where; it has logged at least so many values.
        curves: What every trial of the study has logged, by trial number; None stands for NaN.

    Returns:
        What stopped it, or None if it goes on.
    """
    if interval < max(1, policy.delay) or interval % policy.interval:
        return None
    sign = 1.0 if goal == "max" else -1.0
    upto = {other: [_signed(value, sign) for value in curve[:interval]] for other, curve in curves.items()}
    mine = max(upto[number])
    if policy.name == "truncation":
        mine = upto[number][interval - 1]
        bound = _truncation(policy.percent, interval, upto)
    elif policy.name == "median":
        others = [statistics.fmean(values) for values in upto.values() if len(values) == interval]
        bound = statistics.median(others)
    else:
        bound = _bandit(policy, max(value for values in upto.values() for value in values), goal)
    # Not "<=": HyperDrive stops what is worse than the bound, and equal trials must not stop each other.
    if not mine < bound:
        return None
    return Stopped(by=policy.name, step=interval, value=_shown(mine, sign), bound=_shown(bound, sign))


def intervals(policy: Policy, judged: int, logged: int) -> list[int]:
    """The intervals to judge of a trial that has logged ``logged`` values and was judged up to ``judged``."""
    first = max(judged + 1, policy.delay, 1)
    return [n for n in range(first, logged + 1) if n % policy.interval == 0]


def _bandit(policy: Policy, leader: float, goal: str) -> float:
    """The bound, with ``leader`` and the result signed so that more is better.

    Azure states it for positive metrics: maximising, best / (1 + slack); minimising, best * (1 + slack). The distance
    that this leaves is taken from the absolute value, or the leader of a negative metric would be stopped by itself.
    """
    if policy.amount is not None:
        return leader - policy.amount
    slack = policy.slack if policy.slack is not None else DEFAULT_SLACK
    return leader - abs(leader) * (slack / (1 + slack) if goal == "max" else slack)


def _truncation(percent: float, interval: int, upto: Mapping[int, Sequence[float]]) -> float:
    """The least value that goes on: of the N trials that got so far, floor(N * percent / 100) are below it."""
    reached = sorted(values[interval - 1] for values in upto.values() if len(values) >= interval)
    return reached[min(len(reached) - 1, math.floor(len(reached) * percent / 100))]


def _signed(value: float | None, sign: float) -> float:
    return -math.inf if value is None else sign * value


def _shown(value: float, sign: float) -> float | None:
    return sign * value if math.isfinite(value) else None


def _setting(text: str, key: str, value: str) -> float:
    whole = key in ("interval", "delay", "min", "factor")
    if not re.fullmatch(r"-?[0-9]+" if whole else r"-?[0-9]*\.?[0-9]+([eE][+-]?[0-9]+)?", value.strip()):
        raise UsageError(
            f"--stop {text!r}: {key} must be a {'whole ' * whole}number.", "For example: --stop bandit:slack=0.1"
        )
    number = int(value) if whole else float(value)
    least = {"interval": 1, "min": 1, "factor": 2}.get(key, 0)
    if number < least or (key == "percent" and not 1 <= number <= 99) or not math.isfinite(number):
        said = "from 1 to 99" if key == "percent" else f"at least {least}"
        raise UsageError(f"--stop {text!r}: {key} must be {said}.", "Give another.")
    return number


def _settings(name: str) -> str:
    return ", ".join(_SETTINGS[name])
