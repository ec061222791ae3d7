"""What is Optuna's: the TPE sampler, ASHA, and their journal, a plain file in the study's folder.

The study's own ``trials.jsonl`` is the truth; Optuna's journal is made again from it whenever a driver starts, so a
driver that was killed between the two leaves no trial that one of them doesn't know. The sampler gets a new seed for
each trial, from the study's seed and the trial's number: a study that is resumed would draw the same values again.
Trials of earlier studies, whose numbers are negative, are counted along: TPE draws at random until it knows ten, and
would else begin with the very values that it was told of.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

from trainer.errors import MissingExtraError
from trainer.records import Stopped
from trainer.tune.sampling import seed_of
from trainer.tune.space import Parameter, Space, Value
from trainer.tune.study import StudyDefinition, Trial, TrialState


class OptunaStudy:
    """An Optuna study that follows ours.

    Args:
        definition: Our study.
        journal: Optuna's file; replaced.
        earlier: Finished trials that are known already, with what each logged, in order.

    Raises:
        MissingExtraError: Optuna is not installed.
    """

    def __init__(
        self,
        definition: StudyDefinition,
        journal: Path,
        earlier: Iterable[tuple[Trial, Sequence[float | None]]] = (),
    ) -> None:
        self._optuna = import_optuna("The tpe sampler" if definition.sampler == "tpe" else "The asha policy")
        self._definition = definition
        self._distributions = {each.name: _distribution(self._optuna, each) for each in definition.space}
        self._trials: dict[int, Any] = {}
        self._learned = 0
        for old in (journal, *journal.parent.glob(f"{journal.name}.*")):
            old.unlink(missing_ok=True)
        backend = self._optuna.storages.journal.JournalFileBackend(str(journal))
        self._study = self._optuna.create_study(
            study_name=definition.study,
            storage=self._optuna.storages.JournalStorage(backend),
            direction="maximize" if definition.goal == "max" else "minimize",
            sampler=self._optuna.samplers.RandomSampler(seed=0),
            pruner=self._pruner(),
        )
        for trial, curve in earlier:
            self._learned += trial.number < 0
            self.ask(trial.number, trial.values)
            for step, value in enumerate(curve, 1):
                self.report(trial.number, step, value)
            self.tell(trial)

    def ask(self, number: int, values: Mapping[str, Value] | None = None) -> dict[str, Value]:
        """Begin a trial.

        Args:
            number: Ours.
            values: What it is given; None lets TPE choose.

        Returns:
            What it is given.
        """
        space = self._definition.space
        if values is not None:
            self._study.enqueue_trial({each.name: _position(each, values[each.name]) for each in space})
        else:
            self._study.sampler = self._optuna.samplers.TPESampler(
                seed=seed_of("tpe", self._definition.seed, self._learned + number),
                constant_liar=self._definition.parallel > 1,
            )
        if number in self._trials:  # it was lost, and runs again
            self._study.tell(self._trials[number], state=self._optuna.trial.TrialState.FAIL)
        self._trials[number] = trial = self._study.ask(self._distributions)
        return dict(values) if values is not None else _values(space, trial.params)

    def report(self, number: int, step: int, value: float | None) -> Stopped | None:
        """Tell a value of a trial's metric, and return what ASHA makes of it.

        Args:
            number: Ours.
            step: The how manieth value it is, counted from 1.
            value: None for NaN.
        """
        trial = self._trials[number]
        trial.report(math.nan if value is None else value, step)
        policy = self._definition.stop
        if policy is None or policy.name != "asha" or not trial.should_prune():
            return None
        return Stopped(by="asha", step=step, value=value, bound=self._bound(trial))

    def tell(self, trial: Trial) -> None:
        """End a trial."""
        states = self._optuna.trial.TrialState
        known = self._trials.pop(trial.number)
        if trial.state is TrialState.COMPLETED and trial.value is not None:
            self._study.tell(known, trial.value)
        elif trial.state is TrialState.STOPPED:
            self._study.tell(known, state=states.PRUNED)
        else:
            self._study.tell(known, state=states.FAIL)

    def _pruner(self) -> Any:  # noqa: ANN401  # Optuna is optional
        policy = self._definition.stop
        if policy is None or policy.name != "asha":
            return self._optuna.pruners.NopPruner()
        return self._optuna.pruners.SuccessiveHalvingPruner(
            min_resource=policy.min, reduction_factor=policy.factor, min_early_stopping_rate=0
        )

    def _bound(self, trial: Any) -> float | None:  # noqa: ANN401
        """The least value that the rung lets through: the best of one in ``factor``."""
        attributes = self._study._storage.get_trial_system_attrs(trial._trial_id)
        rungs = [key for key in attributes if key.startswith("completed_rung_")]
        if not rungs:
            return None
        rung = max(rungs, key=lambda key: int(key.rpartition("_")[2]))
        values = [t.system_attrs[rung] for t in self._study.get_trials(deepcopy=False) if rung in t.system_attrs]
        policy = self._definition.stop
        count = max(1, len(values) // (policy.factor if policy else 1))
        return float(sorted(values, reverse=self._definition.goal == "max")[count - 1])


def import_optuna(what: str) -> Any:  # noqa: ANN401
    """Import Optuna, quiet.

    Args:
        what: Names what needs it.

    Raises:
        MissingExtraError: It is not installed.
    """
    import warnings

    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError(what, "tune") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    return optuna


def importances(definition: StudyDefinition, trials: Iterable[Trial]) -> dict[str, float]:
    """Return how much each parameter matters for the metric, the sum being 1; empty where it can't be said.

    Optuna's PED-ANOVA (Watanabe, Bansal, Hutter, 2023, arXiv:2304.10255), which needs no other package.

    Raises:
        MissingExtraError: Optuna is not installed.
    """
    optuna = import_optuna("The importance of parameters")
    study = optuna.create_study(direction="maximize" if definition.goal == "max" else "minimize")
    distributions = {each.name: _distribution(optuna, each) for each in definition.space}
    for trial in trials:
        if trial.state is TrialState.COMPLETED and trial.value is not None:
            params = {each.name: _position(each, trial.values[each.name]) for each in definition.space}
            study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=trial.value))
    try:
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found: dict[str, float] = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (RuntimeError, ValueError):  # too few trials, or all alike
        return {}
    return found


def _distribution(optuna: Any, each: Parameter) -> Any:  # noqa: ANN401
    kinds = optuna.distributions
    if each.kind == "choice":
        return kinds.CategoricalDistribution(each.values)
    if each.kind == "int":
        listed = each.grid() or (0,)
        return kinds.IntDistribution(int(each.low), int(listed[-1]), step=int(each.step))
    if each.kind in ("uniform", "log"):
        return kinds.FloatDistribution(each.low, each.high, log=each.kind == "log")
    # Optuna has no such kinds: its quantised ones give every multiple the same weight, and none is normal.
    return kinds.FloatDistribution(0.0, 1.0)


def _values(space: Space, params: Mapping[str, Any]) -> dict[str, Value]:
    direct = ("choice", "int", "uniform", "log")
    return {
        each.name: params[each.name] if each.kind in direct else each.at(min(max(params[each.name], 1e-12), 1 - 1e-12))
        for each in space
    }


def _position(each: Parameter, value: Value) -> Value:
    """What Optuna is told of a value: for kinds that it lacks, the value of the distribution function."""
    if each.kind in ("choice", "int", "uniform", "log") or isinstance(value, str):
        return value
    if each.kind in ("quniform", "qlog"):
        place = math.log if each.kind == "qlog" else float
        low, high = place(each.low), place(each.high)
        u = (place(min(max(value, each.low), each.high)) - low) / (high - low)
    else:
        normal = NormalDist(each.low, each.high)
        log = each.kind in ("lognormal", "qlognormal")
        u = 0.0 if log and value <= 0 else normal.cdf(math.log(value) if log else value)
    return min(max(u, 0.0), 1.0)
