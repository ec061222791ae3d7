"""A study as a HyperDrive configuration: what HyperDrive can do, and how it is said to the SDK.

:func:`check` asks nobody and imports no SDK; the bounds are those that the SDK and Azure's documentation state
(https://learn.microsoft.com/azure/machine-learning/v1/how-to-tune-hyperparameters-v1).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from backends.azure.session import sdk
from trainer.errors import RefusedError
from trainer.runtime.layout import SERVICE_VALUES
from trainer.tune.space import Parameter, Value

if TYPE_CHECKING:
    from trainer.tune.stopping import Policy
    from trainer.tune.study import StudyDefinition

BAYESIAN = "bayesian"
SAMPLERS = ("random", "grid", BAYESIAN)
POLICIES = ("bandit", "median", "truncation")
# Of BayesianParameterSampling: azureml.train.hyperdrive.sampling.
_BAYESIAN_KINDS = ("choice", "int", "uniform", "quniform")
_BAYESIAN_POINTS = 100_000
_MOST_TRIALS = 1000
_MOST_AT_ONCE = 100
_MOST_MINUTES = 10_080
_MOST_PARENTS = 5
# A choice's values travel in a tag of the run.
_MOST_VALUES = 1000
_OURS = "This program can: --driver client"


def check(definition: StudyDefinition, compute: str) -> None:
    """Refuse what HyperDrive can't do.

    Args:
        definition: The study.
        compute: The cluster's name.

    Raises:
        RefusedError: It can't; the message says why, the hint what can.
    """
    for problem, hint in (*_search(definition), *_course(definition, compute)):
        raise RefusedError(problem, hint)


def _search(definition: StudyDefinition) -> list[tuple[str, str]]:
    """What of the search HyperDrive can't do, with what can."""
    found: list[tuple[str, str]] = []
    if definition.job.ranks > 1:
        found.append((f"A trial of {definition.job.ranks} ranks is not sent to HyperDrive.", _OURS))
    if definition.sampler not in SAMPLERS:
        found.append((f"HyperDrive has no sampler {definition.sampler}; it has {', '.join(SAMPLERS)}.", _OURS))
    if definition.seed:
        found.append(("HyperDrive draws values itself and takes no seed.", f"Leave out --seed. {_OURS}"))
    if definition.tries:
        found.append(("HyperDrive tries no values of your own first (--try).", _OURS))
    if definition.warm_start and definition.sampler != BAYESIAN:
        found.append(
            (
                f"HyperDrive's {definition.sampler} sampling learns nothing from --warm-start.",
                f"Use --sampler {BAYESIAN}. This program's tpe and grid do: --driver client",
            )
        )
    if len(definition.warm_start) > _MOST_PARENTS:
        found.append((f"HyperDrive learns from up to {_MOST_PARENTS} earlier studies.", "Name fewer."))
    for each in definition.space:
        found += _parameter(each, definition.sampler)
    return found


def _parameter(each: Parameter, sampler: str) -> list[tuple[str, str]]:
    listed = each.grid() or ()
    if len(listed) > _MOST_VALUES:
        return [(f"{each.name} has {len(listed):,} values; with HyperDrive up to {_MOST_VALUES:,}.", _OURS)]
    if sampler != BAYESIAN:
        return []
    if each.kind not in _BAYESIAN_KINDS:
        return [(f"HyperDrive's Bayesian sampling takes {', '.join(_BAYESIAN_KINDS)}, not {each.kind}.", _OURS)]
    if each.kind == "choice" and len({isinstance(value, str) for value in listed}) > 1:
        return [(f"HyperDrive's Bayesian sampling takes texts or numbers in a choice, not both: {each.name}.", _OURS)]
    if each.kind == "quniform":
        whole = all(number.is_integer() for number in (each.low, each.high, each.step))
        if not whole or (each.high - each.low) / each.step > _BAYESIAN_POINTS:
            what = f"whole numbers in quniform, and up to {_BAYESIAN_POINTS:,} points"
            return [(f"HyperDrive's Bayesian sampling takes {what}: {each.name}.", _OURS)]
    return []


def _course(definition: StudyDefinition, compute: str) -> list[tuple[str, str]]:
    """What of how trials are run and stopped HyperDrive can't do, with what can."""
    found: list[tuple[str, str]] = []
    policy = definition.stop
    if policy is not None:
        if policy.name not in POLICIES:
            found.append((f"HyperDrive has no policy {policy.name}; it has {', '.join(POLICIES)}.", _OURS))
        if definition.sampler == BAYESIAN:
            found.append(("HyperDrive's Bayesian sampling takes no policy.", "Leave out --stop."))
        if policy.name == "truncation" and not policy.percent.is_integer():
            found.append(("HyperDrive truncates by a whole percentage.", _OURS))
        if policy.name == "bandit" and not (policy.amount or policy.slack):
            found.append(("HyperDrive's bandit takes a slack above 0.", _OURS))
    for what, most, number in (
        ("trials", _MOST_TRIALS, definition.trials),
        ("trials at once", _MOST_AT_ONCE, definition.parallel),
        ("minutes", _MOST_MINUTES, definition.max_minutes or 0),
    ):
        if number > most:
            found.append((f"HyperDrive takes up to {most:,} {what}, not {number:,}.", _OURS))
    if "-n" in definition.job.arguments:
        found.append(("The SDK takes an argument -n for a notebook's, and not for the script's.", _OURS))
    if compute == "amlcompute":
        found.append(
            ("HyperDrive makes a cluster of its own where the name is amlcompute.", "Give --compute another name.")
        )
    return found


def arguments(definition: StudyDefinition) -> list[str]:
    """Return the words behind the launcher; HyperDrive appends each trial's values to them."""
    whole = [each.name for each in definition.space if _is_whole(each)]
    return [definition.job.script, *definition.job.arguments, f"{SERVICE_VALUES}={','.join(whole)}"]


def make_config(
    definition: StudyDefinition,
    run_config: Any,  # noqa: ANN401
    run_id: str,
    resume_from: Sequence[Any],
    notify: Callable[[str], None],
) -> Any:  # noqa: ANN401
    """Make the HyperDrive configuration of a study.

    Args:
        definition: The study.
        run_config: An ``azureml.core.ScriptRunConfig`` with :func:`arguments`.
        run_id: The id that the sweep is to have.
        resume_from: Earlier sweeps, ``HyperDriveRun`` each.
        notify: Called with what the SDK advises.

    Returns:
        An ``azureml.train.hyperdrive.HyperDriveConfig``.
    """
    hyperdrive = sdk("azureml.train.hyperdrive")
    kinds = {
        "random": hyperdrive.RandomParameterSampling,
        "grid": hyperdrive.GridParameterSampling,
        BAYESIAN: hyperdrive.BayesianParameterSampling,
    }
    goals = hyperdrive.PrimaryMetricGoal
    with quietly() as advice:
        config = hyperdrive.HyperDriveConfig(
            run_config=run_config,
            hyperparameter_sampling=kinds[definition.sampler](
                {f"--{each.name}": expression(each, definition.sampler) for each in definition.space}
            ),
            policy=None if definition.stop is None else _policy(hyperdrive, definition.stop),
            primary_metric_name=definition.metric,
            primary_metric_goal=goals.MAXIMIZE if definition.goal == "max" else goals.MINIMIZE,
            max_total_runs=definition.trials,
            max_concurrent_runs=definition.parallel,
            max_duration_minutes=definition.max_minutes or _MOST_MINUTES,
            resume_from=list(resume_from) or None,
            custom_run_id=run_id,
        )
    for each in advice:
        if each.category is UserWarning:
            notify(f"Azure ML SDK: {' '.join(str(each.message).split())}")
    return config


@contextmanager
def quietly() -> Iterator[list[warnings.WarningMessage]]:
    """Keep the SDK's advice, which it gives whenever it reads a sweep, from the terminal; gather it instead."""
    shown = warnings.formatwarning  # the SDK puts one of its own in the place of the process's
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always", UserWarning)
            yield found
    finally:
        warnings.formatwarning = shown


def expression(each: Parameter, sampler: str) -> Any:  # noqa: ANN401
    """Return HyperDrive's expression for a parameter; docs/tuning.md has the table."""
    expressions = sdk("azureml.train.hyperdrive.parameter_expressions")
    low, high, step = _number(each.low), _number(each.high), _number(each.step)
    if each.kind == "int" and sampler == "random" and low == 0 and step == 1:
        return expressions.randint(high + 1)
    listed = each.grid()
    if listed is not None:
        return expressions.choice(list(listed))
    if each.kind in ("log", "qlog"):
        low, high = math.log(each.low), math.log(each.high)
    theirs = {"log": "loguniform", "qlog": "qloguniform"}.get(each.kind, each.kind)
    make = getattr(expressions, theirs)
    return make(low, high, step) if theirs.startswith("q") else make(low, high)


def read_values(space: Sequence[Parameter], given: object) -> dict[str, Value] | None:
    """Return the values of a trial that HyperDrive has drawn, as ours are; None if they are not of this space."""
    if not isinstance(given, dict):
        return None
    named = {str(name).lstrip("-"): value for name, value in given.items()}
    found: dict[str, Value] = {}
    for each in space:
        value = named.get(each.name)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None
        if isinstance(value, float) and not math.isfinite(value):
            return None
        listed = each.grid()
        if listed is not None:
            same = [one for one in listed if one == value or str(one) == str(value)]
            found[each.name] = same[0] if same else value
        else:
            found[each.name] = int(value) if _is_whole(each) and not isinstance(value, str) else value
    return found


def _policy(hyperdrive: Any, policy: Policy) -> Any:  # noqa: ANN401
    when = {"evaluation_interval": policy.interval, "delay_evaluation": policy.delay}
    if policy.name == "median":
        return hyperdrive.MedianStoppingPolicy(**when)
    if policy.name == "truncation":
        return hyperdrive.TruncationSelectionPolicy(truncation_percentage=int(policy.percent), **when)
    return hyperdrive.BanditPolicy(slack_factor=policy.slack, slack_amount=policy.amount, **when)


def _is_whole(each: Parameter) -> bool:
    """Whether every value is a whole number."""
    if each.kind == "choice":
        return all(isinstance(value, int) for value in each.values)
    return each.kind == "int" or (each.kind.startswith("q") and each.step.is_integer())


def _number(value: float) -> int | float:
    """The SDK takes a whole number for one only if its type says so."""
    return int(value) if value.is_integer() else value
