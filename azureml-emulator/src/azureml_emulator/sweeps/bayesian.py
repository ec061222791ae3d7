"""Bayesian sampling: Optuna's tree-structured Parzen estimator (Bergstra et al. 2011).

HyperDrive does not say which algorithm it uses. What is the same: a sample depends on the values that earlier runs have
reached, and on those of the sweeps that are resumed; runs that are still going on are known to be there and avoided
(Optuna's constant liar). Nothing is kept between two samples, so a restart changes none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from azureml_emulator.errors import ServiceError
from azureml_emulator.sweeps.sampling import Sample, Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Observation:
    """A run and what it has reached.

    Attributes:
        sample: Its parameters.
        value: Its best value of the primary metric, if it has ended and has one.
        ended: Whether it has ended. One that ended without a value says nothing.
    """

    sample: Sample
    value: float | None
    ended: bool


def require_optuna() -> None:
    """See that Optuna is installed.

    Raises:
        ServiceError: 400, it is not.
    """
    try:
        import optuna  # noqa: F401
    except ImportError:
        message = (
            "Bayesian sampling needs Optuna here, which is not installed: pip install 'azureml-emulator[bayesian]'"
        )
        raise ServiceError(400, "OptunaNotInstalled", message) from None


def bayesian_sample(space: Space, seed: str, number: int, seen: Iterable[Observation], goal: str) -> Sample:
    """Propose the parameters of the next run.

    Args:
        space: Expressions of ``choice``, ``uniform`` and ``quniform``, checked.
        seed: The sweep's.
        number: The run's.
        seen: The earlier runs.
        goal: ``maximize`` or ``minimize``.
    """
    import optuna
    from optuna.study import StudyDirection

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    sampler = optuna.samplers.TPESampler(seed=int.from_bytes(digest[:4], "big"), constant_liar=True, multivariate=False)
    study = optuna.create_study(direction=StudyDirection[goal.upper()], sampler=sampler)
    distributions = {name: _distribution(*expression) for name, expression in space.items()}
    for each in seen:
        if each.ended and each.value is None:
            continue
        state = optuna.trial.TrialState.COMPLETE if each.ended else optuna.trial.TrialState.RUNNING
        params = {name: _position(space[name], each.sample, name) for name in space}
        study.add_trial(
            optuna.trial.create_trial(
                state=state, value=each.value if each.ended else None, params=params, distributions=distributions
            )
        )
    proposed = study.ask(distributions).params
    return {name: _value(space[name], proposed, name) for name in space}


# A parameter is modelled as a position: of a choice the index, of a quantised one the multiple of q, else the value.


def _distribution(kind: str, arguments: list[Any]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if kind == "choice":
        return CategoricalDistribution(range(len(arguments[0])))
    if kind == "uniform":
        return FloatDistribution(*arguments)
    low, high, quantum = arguments
    return IntDistribution(round(low / quantum), round(high / quantum))


def _position(expression: list[Any], sample: Sample, name: str) -> int | float:
    kind, arguments = expression
    if kind == "choice":
        return int(arguments[0].index(sample[name]))
    return float(sample[name]) if kind == "uniform" else round(sample[name] / arguments[2])


def _value(expression: list[Any], proposed: dict[str, Any], name: str) -> object:
    kind, arguments = expression
    if kind == "choice":
        return arguments[0][proposed[name]]
    return proposed[name] if kind == "uniform" else proposed[name] * arguments[2]
