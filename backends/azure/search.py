"""A study as Azure ML's own search: what that can do, with either SDK, and how its values are ours.

:func:`check` asks nobody and imports no SDK; the bounds are those that the SDKs and Azure's documentation state
(https://learn.microsoft.com/azure/machine-learning/v1/how-to-tune-hyperparameters-v1 and
https://learn.microsoft.com/azure/machine-learning/how-to-tune-hyperparameters).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from backends.azure.restarts import launcher_arguments
from trainer.errors import RefusedError
from trainer.runtime.layout import SERVICE_VALUES
from trainer.tune.space import Parameter, Value

if TYPE_CHECKING:
    from trainer.tune.study import StudyDefinition

BAYESIAN = "bayesian"
SAMPLERS = ("random", "grid", BAYESIAN)
POLICIES = ("bandit", "median", "truncation")
OURS = "This program can: --driver client"
"""The hint of what only the client driver does."""
# Of BayesianParameterSampling: azureml.train.hyperdrive.sampling.
_BAYESIAN_KINDS = ("choice", "int", "uniform", "quniform")
_BAYESIAN_POINTS = 100_000
_MOST_TRIALS = 1000
# A choice's values travel in a tag of the run.
_MOST_VALUES = 1000


class Abilities(NamedTuple):
    """What is different about the search of an SDK.

    Attributes:
        name: What it is called, at the beginning of a sentence.
        most_at_once: Trials under way at a time.
        most_minutes: Minutes that it may take.
        largest_seed: The largest seed of random sampling; 0 if it takes none.
        most_parents: From how many earlier studies Bayesian sampling can learn.
    """

    name: str
    most_at_once: int
    most_minutes: int
    largest_seed: int
    most_parents: int


Refusal = tuple[str, str]
"""What can't be done, and what can."""


def check(definition: StudyDefinition, can: Abilities, more: Sequence[Refusal]) -> None:
    """Refuse what the search can't do.

    Args:
        definition: The study.
        can: What the search can do.
        more: What else the caller has found.

    Raises:
        RefusedError: It can't; the message says why, the hint what can.
    """
    for problem, hint in (*_search(definition, can), *_course(definition, can), *more):
        raise RefusedError(problem, hint)


def _search(definition: StudyDefinition, can: Abilities) -> list[Refusal]:
    """What of the search it can't do, with what can."""
    name = can.name
    found: list[Refusal] = []
    if definition.job.ranks > 1:
        found.append((f"{name} takes no trials of {definition.job.ranks} ranks.", OURS))
    if definition.sampler not in SAMPLERS:
        found.append((f"{name} has no sampler {definition.sampler}; it has {', '.join(SAMPLERS)}.", OURS))
    if definition.seed and not can.largest_seed:
        found.append((f"{name} draws values itself and takes no seed.", f"Leave out --seed. {OURS}"))
    elif definition.seed and definition.sampler != "random":
        found.append((f"{name} takes no seed with {definition.sampler}.", f"Leave out --seed. {OURS}"))
    elif definition.seed > can.largest_seed:
        found.append((f"{name} takes a seed up to {can.largest_seed:,}.", f"Give a smaller --seed. {OURS}"))
    if definition.tries:
        found.append((f"{name} tries no values of your own first (--try).", OURS))
    if definition.warm_start and not can.most_parents:
        found.append((f"{name} learns nothing from --warm-start.", "This program's tpe and grid do: --driver client"))
    elif definition.warm_start and definition.sampler != BAYESIAN:
        found.append(
            (
                f"{name}'s {definition.sampler} sampling learns nothing from --warm-start.",
                f"Use --sampler {BAYESIAN}. This program's tpe and grid do: --driver client",
            )
        )
    if len(definition.warm_start) > can.most_parents > 0:
        found.append((f"{name} learns from up to {can.most_parents} earlier studies.", "Name fewer."))
    for each in definition.space:
        found += _parameter(each, definition.sampler, name)
    return found


def _parameter(each: Parameter, sampler: str, name: str) -> list[Refusal]:
    listed = each.grid() or ()
    if len(listed) > _MOST_VALUES:
        return [(f"{each.name} has {len(listed):,} values; with {name} up to {_MOST_VALUES:,}.", OURS)]
    whole_steps = not each.kind.startswith("q") or each.step.is_integer()
    if sampler != BAYESIAN:
        return [] if whole_steps else [(f"{name} takes whole steps in {each.kind}: {each.name}.", OURS)]
    if each.kind not in _BAYESIAN_KINDS:
        return [(f"{name}'s Bayesian sampling takes {', '.join(_BAYESIAN_KINDS)}, not {each.kind}.", OURS)]
    if each.kind == "choice" and len({isinstance(value, str) for value in listed}) > 1:
        return [(f"{name}'s Bayesian sampling takes texts or numbers in a choice, not both: {each.name}.", OURS)]
    if each.kind == "quniform":
        whole = all(number.is_integer() for number in (each.low, each.high, each.step))
        if not whole or (each.high - each.low) / each.step > _BAYESIAN_POINTS:
            what = f"whole numbers in quniform, and up to {_BAYESIAN_POINTS:,} points"
            return [(f"{name}'s Bayesian sampling takes {what}: {each.name}.", OURS)]
    return []


def _course(definition: StudyDefinition, can: Abilities) -> list[Refusal]:
    """What of how trials are run and stopped it can't do, with what can."""
    name = can.name
    found: list[Refusal] = []
    policy = definition.stop
    if policy is not None:
        if policy.name not in POLICIES:
            found.append((f"{name} has no policy {policy.name}; it has {', '.join(POLICIES)}.", OURS))
        if definition.sampler == BAYESIAN:
            found.append((f"{name}'s Bayesian sampling takes no policy.", "Leave out --stop."))
        if policy.name == "truncation" and not policy.percent.is_integer():
            found.append((f"{name} truncates by a whole percentage.", OURS))
        if policy.name == "bandit" and not (policy.amount or policy.slack):
            found.append((f"{name}'s bandit takes a slack above 0.", OURS))
    for what, most, number in (
        ("trials", _MOST_TRIALS, definition.trials),
        ("trials at once", can.most_at_once, definition.parallel),
        ("minutes", can.most_minutes, definition.max_minutes or 0),
    ):
        if number > most:
            found.append((f"{name} takes up to {most:,} {what}, not {number:,}.", OURS))
    return found


def arguments(definition: StudyDefinition, checkpoint_seconds: int) -> list[str]:
    """Return the words behind the launcher; each trial's values follow them, a name and a value each.

    Args:
        definition: The study.
        checkpoint_seconds: Between two uploads of a trial's checkpoint, at least.
    """
    whole = [each.name for each in definition.space if is_whole(each)]
    return [*launcher_arguments(definition.job, checkpoint_seconds), f"{SERVICE_VALUES}={','.join(whole)}"]


def read_values(space: Sequence[Parameter], given: object, keys: Mapping[str, str]) -> dict[str, Value] | None:
    """Return the values of a trial that the service has drawn, as ours are; None if they are not of this space.

    Args:
        space: The study's.
        given: What the service has noted.
        keys: The service's name of each parameter.
    """
    if not isinstance(given, dict):
        return None
    found: dict[str, Value] = {}
    for each in space:
        value = given.get(keys[each.name])
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None
        if isinstance(value, float) and not math.isfinite(value):
            return None
        listed = each.grid()
        if listed is not None:
            same = [one for one in listed if one == value or str(one) == str(value)]
            found[each.name] = same[0] if same else value
        else:
            found[each.name] = int(value) if is_whole(each) and not isinstance(value, str) else value
    return found


def decoded(text: object) -> object:
    """Return what a tag holds as JSON; None if it is none."""
    try:
        return msgspec.json.decode(text) if isinstance(text, str) else None
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return None


def is_whole(each: Parameter) -> bool:
    """Whether every value of a parameter is a whole number."""
    if each.kind == "choice":
        return all(isinstance(value, int) for value in each.values)
    return each.kind == "int" or (each.kind.startswith("q") and each.step.is_integer())


def bounds(each: Parameter) -> tuple[int | float, ...]:
    """Return the numbers of a parameter's expression, in the order in which both SDKs take them.

    For the logarithmic kinds they are the natural logarithms. A whole number is one by its type: SDK v1 takes it for
    one only then.
    """
    low, high = each.low, each.high
    if each.kind in ("log", "qlog"):
        low, high = math.log(low), math.log(high)
    return (number(low), number(high), *((number(each.step),) if each.kind.startswith("q") else ()))


def number(value: float) -> int | float:
    """Return a whole number as one by its type."""
    return int(value) if value.is_integer() else value


def kind(each: Parameter) -> str:
    """Return what both SDKs call a parameter's kind, in lower case, of those that are no list of values."""
    return {"log": "loguniform", "qlog": "qloguniform"}.get(each.kind, each.kind)
