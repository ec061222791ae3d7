"""Samples of a parameter space.

Distributions are those of ``azureml.train.hyperdrive.parameter_expressions``, after hyperopt's: a list
``[name, arguments]``. Bounds of the logarithmic ones are natural logarithms. The quantised ones round to the nearest
multiple of q, and may so leave their bounds by up to q / 2.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from typing import Any

from azureml_emulator.errors import bad_request

RANDOM, GRID, BAYESIAN = "RANDOM", "GRID", "BAYESIANOPTIMIZATION"
METHODS = (RANDOM, GRID, BAYESIAN)
MAX_POINTS = 100_000
"""Of a quantised parameter, in Bayesian sampling."""
LARGEST_LOGARITHM = 709
"""The last whole number whose exponential a float can hold."""

Sample = dict[str, Any]
Space = dict[str, list[Any]]


def check_space(space: Space, method: str) -> None:
    """See that a space can be sampled.

    Raises:
        ServiceError: 400, a method or a distribution that there is not, or one that is malformed.
    """
    if method.upper() not in METHODS:
        raise bad_request(f"There is no sampling method {method!r}, only RANDOM, GRID and BayesianOptimization.")
    if not space:
        raise bad_request("The parameter space is empty.")
    for name, expression in space.items():
        _check(name, expression)
        if method.upper() == GRID and expression[0] != "choice":
            raise bad_request(f"Grid sampling takes only choice, not {expression[0]!r} for {name}.")
        if method.upper() == BAYESIAN:
            _check_bayesian(name, *expression)


def grid(space: Space, count: int) -> list[Sample]:
    """Return the first ``count`` points of the grid; the last parameter changes fastest."""
    points = itertools.product(*(arguments[0] for _, arguments in space.values()))
    return [dict(zip(space, point, strict=True)) for point in itertools.islice(points, count)]


def random_sample(space: Space, seed: str, number: int) -> Sample:
    """Draw one sample, with replacement; it depends on the seed and on its number alone."""
    generator = random.Random(f"{seed}/{number}")  # noqa: S311 - repeatable, not secret
    return {name: _draw(kind, arguments, generator) for name, (kind, arguments) in space.items()}


def _draw(kind: str, arguments: list[Any], generator: random.Random) -> object:
    if kind == "choice":
        return generator.choice(arguments[0])
    if kind == "randint":
        return generator.randrange(arguments[0])
    base = kind.removeprefix("q")
    first, second = arguments[:2]
    value = generator.gauss(first, second) if base.endswith("normal") else generator.uniform(first, second)
    if base.startswith("log"):
        value = math.exp(value)
    return value if base == kind else round(value / arguments[2]) * arguments[2]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return _is_number(value) and float(value).is_integer()  # type: ignore[arg-type]


def _is_choice(values: object) -> bool:
    """Tell whether these are values that can be given to a script as one argument each."""
    return isinstance(values, list) and bool(values) and all(isinstance(each, str | int | float) for each in values)


def _is_range(pair: list[Any]) -> bool:
    return all(map(_is_number, pair)) and pair[0] < pair[1]


def _is_log_range(pair: list[Any]) -> bool:
    return all(map(_is_number, pair)) and pair[0] <= pair[1] <= LARGEST_LOGARITHM


def _is_spread(pair: list[Any]) -> bool:
    return all(map(_is_number, pair)) and pair[1] >= 0


def _is_log_spread(pair: list[Any]) -> bool:
    return _is_spread(pair) and pair[0] + 10 * pair[1] <= LARGEST_LOGARITHM


_CONTINUOUS: dict[str, tuple[Callable[[list[Any]], bool], str]] = {
    "uniform": (_is_range, "two numbers, the first less than the second"),
    "loguniform": (_is_log_range, "two natural logarithms of floats, the first not more than the second"),
    "normal": (_is_spread, "a mean, and a standard deviation that is not negative"),
    "lognormal": (_is_log_spread, "mean and standard deviation of the natural logarithm"),
}


def _check(name: str, expression: list[Any]) -> None:
    try:
        kind, arguments = expression
        takes, fits = _requirement(kind, arguments)
    except (TypeError, ValueError, AttributeError, KeyError):
        raise bad_request(f"The expression of {name} is not a distribution and its arguments.") from None
    if not fits:
        raise bad_request(f"The expression of {name} is invalid: {kind} takes {takes}, not {arguments}.")


def _requirement(kind: str, arguments: list[Any]) -> tuple[str, bool]:
    """Return what a distribution takes, and whether it is given that."""
    if kind == "choice":
        return "a list of texts and numbers", len(arguments) == 1 and _is_choice(arguments[0])
    if kind == "randint":
        fits = len(arguments) == 1 and _is_whole(arguments[0]) and isinstance(arguments[0], int) and arguments[0] > 0
        return "a whole number that is more than 0", fits
    if kind.removeprefix("q") not in _CONTINUOUS:
        raise bad_request(f"There is no distribution {kind!r}.")
    test, takes = _CONTINUOUS[kind.removeprefix("q")]
    if not kind.startswith("q"):
        return takes, len(arguments) == 2 and test(arguments)
    fits = len(arguments) == 3 and test(arguments[:2]) and _is_whole(arguments[2]) and arguments[2] > 0
    return f"{takes}, and a whole number q", fits


def _check_bayesian(name: str, kind: str, arguments: list[Any]) -> None:
    """Refuse what HyperDrive's Bayesian sampling does not take, by the SDK's own tests."""
    if kind not in ("choice", "uniform", "quniform"):
        raise bad_request(f"Bayesian sampling takes choice, uniform and quniform, not {kind!r} for {name}.")
    if kind == "choice" and len({isinstance(value, str) for value in arguments[0]}) > 1:
        raise bad_request(f"Bayesian sampling takes either texts or numbers, not both, for {name}.")
    if kind == "quniform" and not all(isinstance(value, int) for value in arguments):
        raise bad_request(f"Bayesian sampling takes quniform of whole numbers only, not {arguments} for {name}.")
    if kind == "quniform" and (arguments[1] - arguments[0]) / arguments[2] > MAX_POINTS:
        raise bad_request(f"Bayesian sampling takes quniform of {MAX_POINTS} points at most, for {name}.")
