"""Which values a trial gets, from the study's seed and the trial's number alone.

So a study that is resumed goes on with new values, trials may end in any order, and every backend gets the same ones.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

from trainer.errors import UsageError
from trainer.tune.space import Space, Value

SAMPLERS = ("random", "grid", "qmc", "tpe", "bayesian")
"""The last is a service's; the others are the client driver's."""
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)
_BITS = 53  # of a float's significand


def uniform(*words: object) -> float:
    """Return a number, uniform on the open interval (0, 1), that depends on ``words`` alone.

    The first 53 bits of SHA-256 over their texts, at the middle of each of the 2^53 intervals.
    """
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return min(((int.from_bytes(digest[:8], "big") >> (64 - _BITS)) + 0.5) * 2.0**-_BITS, 1 - 2.0**-_BITS)


def seed_of(*words: object) -> int:
    """Return a seed of 32 bits that depends on ``words`` alone, for another library's generator."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, words)).encode()).digest()[:4], "big")


def random_point(space: Space, seed: int, number: int) -> dict[str, Value]:
    """Return independent values for one trial. Values may come twice, as with HyperDrive's random sampling."""
    return {each.name: each.at(uniform("random", seed, number, each.name)) for each in space}


def qmc_point(space: Space, seed: int, number: int) -> dict[str, Value]:
    """Return the values of one point of a scrambled Halton sequence, which covers the space more evenly.

    Halton (1960), doi:10.1007/BF01386213, with the random digit permutations of Owen (2017), arXiv:1706.02808:
    dimension j writes the number in base p_j, the j-th prime, and reads its permuted digits backwards behind the
    point. Dimension and digit each have a permutation of their own, drawn from the seed.

    Raises:
        UsageError: The space has more dimensions than there are good bases.
    """
    if len(space) > len(_PRIMES):
        raise UsageError(
            f"qmc covers up to {len(_PRIMES)} parameters, and the space has {len(space)}.", "Use --sampler random."
        )
    return {each.name: each.at(_halton(base, seed, number)) for each, base in zip(space, _PRIMES, strict=False)}


def grid_size(space: Space) -> int:
    """Return the number of points of the space's grid.

    Raises:
        UsageError: A parameter is a range, which has no grid.
    """
    for each in space:
        if each.grid() is None:
            raise UsageError(
                f"A grid needs listed values, and {each.name} is {each.kind}.",
                f"Give {each.name} a choice or int:LOW..HIGH:STEP, or use --sampler random.",
            )
    return math.prod(len(each.grid() or ()) for each in space)


def grid_point(space: Space, number: int) -> dict[str, Value]:
    """Return the grid's point of that number; the last parameter changes fastest."""
    point: dict[str, Value] = {}
    for each in reversed(space):
        listed = each.grid() or ()
        number, index = divmod(number, len(listed))
        point[each.name] = listed[index]
    return {each.name: point[each.name] for each in space}


def grid_index(space: Space, values: Mapping[str, Value]) -> int | None:
    """Return the number of the grid's point that has these values; None if there is none."""
    number = 0
    for each in space:
        listed = each.grid() or ()
        if values[each.name] not in listed:
            return None
        number = number * len(listed) + listed.index(values[each.name])
    return number


def _halton(base: int, seed: int, number: int) -> float:
    digits = math.ceil(_BITS * math.log(2) / math.log(base))
    value, scale = 0.0, 1.0
    for position in range(digits):
        number, digit = divmod(number, base)
        scale /= base
        value += _permutation(base, seed, position)[digit] * scale
    return min(max(value + 0.5 * scale, 2.0**-_BITS), 1 - 2.0**-_BITS)


def _permutation(base: int, seed: int, position: int) -> list[int]:
    return sorted(range(base), key=lambda digit: uniform("halton", seed, base, position, digit))


def point(sampler: str, space: Space, seed: int, number: int) -> dict[str, Value]:
    """Return the values that ``random``, ``grid`` or ``qmc`` gives to a trial."""
    if sampler == "grid":
        return grid_point(space, number)
    return qmc_point(space, seed, number) if sampler == "qmc" else random_point(space, seed, number)
