"""Samples of a parameter space.

Distributions are those of ``azureml.train.hyperdrive.parameter_expressions``, after hyperopt's: a list
``[name, arguments]``.
"""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

from azureml_emulator.errors import bad_request

MAX_SAMPLES = 10_000


def draw(space: dict[str, list[Any]], method: str, count: int, seed: int | str) -> list[dict[str, Any]]:
    """Draw up to ``count`` samples of a space; a grid may have fewer.

    Args:
        space: Distribution by parameter name.
        method: ``RANDOM`` or ``GRID``.
        count: Number of samples.
        seed: Makes the random choices repeatable.

    Raises:
        ServiceError: 400, a method or a distribution that is not emulated.
    """
    if count > MAX_SAMPLES:
        raise bad_request(f"A sweep may have {MAX_SAMPLES} runs, not {count}.")
    try:
        if method.upper() == "GRID":
            return _grid(space, count)
        if method.upper() == "RANDOM":
            generator = random.Random(seed)  # noqa: S311 - repeatable, not secret
            return [{name: _draw(spec, generator) for name, spec in space.items()} for _ in range(count)]
    except (IndexError, TypeError, ValueError) as error:
        raise bad_request(f"The parameter space is invalid: {error}") from None
    raise bad_request(f"Sampling by {method!r} is not emulated, only RANDOM and GRID.")


def _grid(space: dict[str, list[Any]], count: int) -> list[dict[str, Any]]:
    for name, spec in space.items():
        if spec[0] != "choice":
            raise bad_request(f"Grid sampling takes only choice, not {spec[0]!r} for {name}.")
    points = itertools.product(*(spec[1][0] for spec in space.values()))
    return [dict(zip(space, point, strict=True)) for point in itertools.islice(points, count)]


def _draw(spec: list[Any], generator: random.Random) -> object:
    name, arguments = spec
    if name == "choice":
        return generator.choice(arguments[0])
    if name == "randint":
        return generator.randrange(arguments[0])
    quantum = arguments[2] if name.startswith("q") else None
    value = _draw_continuous(name.removeprefix("q"), arguments[0], arguments[1], generator)
    return value if quantum is None else round(value / quantum) * quantum


def _draw_continuous(name: str, first: float, second: float, generator: random.Random) -> float:
    if name == "uniform":
        return generator.uniform(first, second)
    if name == "loguniform":
        return math.exp(generator.uniform(first, second))
    if name == "normal":
        return generator.gauss(first, second)
    if name == "lognormal":
        return math.exp(generator.gauss(first, second))
    raise bad_request(f"The distribution {name!r} is not emulated.")
