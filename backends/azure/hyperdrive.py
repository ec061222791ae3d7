"""HyperDrive: a study as SDK v1 sends it, and a sweep as SDK v1 gives it back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from backends.azure import search, submit
from backends.azure.computes import SdkComputes
from backends.azure.errors import retry
from backends.azure.image import V1
from backends.azure.search import BAYESIAN, OURS, Abilities, Refusal
from backends.azure.session import forget_workspaces, open_workspace, sdk
from backends.azure.sweeps import Child, SweepService
from trainer.errors import RefusedError
from trainer.tune.study import find_study

if TYPE_CHECKING:
    from backends.azure.image import Environment
    from backends.azure.sdk import Workspace
    from backends.azure.session import WorkspaceRef
    from trainer.home import Home
    from trainer.tune.space import Parameter
    from trainer.tune.stopping import Policy
    from trainer.tune.study import StudyDefinition, StudyFolder

_MOST_MINUTES = 10_080
ABILITIES = Abilities("HyperDrive", most_at_once=100, most_minutes=_MOST_MINUTES, largest_seed=0, most_parents=5)
# Where the service notes a trial's values: on the trial, and on the sweep (SDK: HyperDriveRun.get_hyperparameters).
_VALUES_TAG = "hyperparameters"
_SWEEP_TAG = "_aml_system_"


class HyperDrive(SweepService):
    """The service of SDK v1; see :class:`backends.azure.sweeps.SweepService`."""

    node_side = V1
    loading = "the SDK's HyperDrive"

    def check(self, definition: StudyDefinition) -> None:
        """See :meth:`trainer.tune.study_service.StudyService.check`."""
        search.check(definition, ABILITIES, list(_odds(definition, self._options.compute)))
        for each in definition.warm_start:
            if find_study(self._home.studies, each).service() is None:
                raise RefusedError(
                    f"HyperDrive can't learn from study {each}, which it has not driven.",
                    "This program can: --driver client --sampler tpe",
                )

    def open(self, ref: WorkspaceRef) -> HyperDriveClient:
        """See :meth:`backends.azure.sweeps.SweepService.open`."""
        return HyperDriveClient(open_workspace(ref), self._home, self._notify)

    def forget(self) -> None:
        """See :meth:`backends.azure.sweeps.SweepService.forget`."""
        forget_workspaces()


class HyperDriveClient:
    """See :class:`backends.azure.sweeps.SweepClient`.

    Args:
        workspace: Where it works.
        home: Where studies are kept.
        notify: Called with what the SDK advises.
    """

    def __init__(self, workspace: Workspace, home: Home, notify: Callable[[str], None]) -> None:
        self._workspace, self._home, self._notify = workspace, home, notify

    def computes(self) -> SdkComputes:
        """See :meth:`backends.azure.sweeps.SweepClient.computes`."""
        return SdkComputes(self._workspace)

    def find(self, name: str, definition: StudyDefinition) -> HyperDriveSweep | None:
        """See :meth:`backends.azure.sweeps.SweepClient.find`."""
        # So that the SDK makes a HyperDriveRun of it, whose cancel is its own; after azureml.core, which it needs.
        sdk("azureml.train.hyperdrive")
        with quietly():
            found = submit.find_run(self._workspace, name)
        return None if found is None else HyperDriveSweep(found, definition)

    def prepare(
        self, study: StudyFolder, definition: StudyDefinition, image: Environment, compute: str, seconds: int
    ) -> Callable[[], bool]:
        """See :meth:`backends.azure.sweeps.SweepClient.prepare`."""
        words = search.arguments(definition, seconds)
        cap = definition.job.max_minutes
        script = submit.script_config(study.snapshot, words, image, compute, None if cap is None else cap * 60)
        earlier = [self._earlier(each) for each in definition.warm_start]
        config = make_config(definition, script, study.study_id, earlier, self._notify)

        def send() -> None:
            with quietly():
                sdk("azureml.core").Experiment(self._workspace, definition.job.experiment).submit(config)

        return lambda: submit.send_once(self._workspace, study.study_id, study.snapshot, send)

    def _earlier(self, reference: str) -> Any:  # noqa: ANN401  # HyperDriveRun
        study = find_study(self._home.studies, reference)
        record = study.service()
        with quietly():
            found = submit.find_run(self._workspace, record.run) if record else None
        if found is None:
            raise RefusedError(f"This workspace does not have study {reference}.", "Leave it out of --warm-start.")
        return found


class HyperDriveSweep:
    """See :class:`backends.azure.sweeps.Sweep`.

    Args:
        run: A ``HyperDriveRun``.
        definition: The study.
    """

    def __init__(self, run: Any, definition: StudyDefinition) -> None:  # noqa: ANN401
        self._run = run
        self._keys = {each.name: each.name for each in definition.space}

    def get_details(self) -> dict[str, Any]:
        """Return its status, times and error."""
        found: dict[str, Any] = self._run.get_details()
        return found

    def get_status(self) -> str:
        """Return its status."""
        return str(self._run.get_status())

    def cancel(self) -> None:
        """Ask for its end."""
        self._run.cancel()

    def children(self) -> Iterator[Child]:
        """See :meth:`backends.azure.sweeps.Sweep.children`."""
        tags: Mapping[str, str] = retry(self._run.get_tags)
        for child in retry(lambda: list(self._run.get_children(_rehydrate_runs=False))):
            noted = (child.tags or {}).get(_VALUES_TAG) or tags.get(_SWEEP_TAG + child.id) or tags.get(child.id)
            given = search.decoded(noted)
            named = {str(name).lstrip("-"): value for name, value in given.items()} if isinstance(given, dict) else None
            yield Child(child.id, named, self._keys)


def _odds(definition: StudyDefinition, compute: str) -> Iterator[Refusal]:
    """What only this SDK can't take."""
    if "-n" in definition.job.arguments:
        yield "The SDK takes an argument -n for a notebook's, and not for the script's.", OURS
    if compute == "amlcompute":
        yield "HyperDrive makes a cluster of its own where the name is amlcompute.", "Give --compute another name."


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
    if each.kind == "int" and sampler == "random" and each.low == 0 and each.step == 1:
        return expressions.randint(search.number(each.high) + 1)
    listed = each.grid()
    if listed is not None:
        return expressions.choice(list(listed))
    return getattr(expressions, search.kind(each))(*search.bounds(each))


def _policy(hyperdrive: Any, policy: Policy) -> Any:  # noqa: ANN401
    when = {"evaluation_interval": policy.interval, "delay_evaluation": policy.delay}
    if policy.name == "median":
        return hyperdrive.MedianStoppingPolicy(**when)
    if policy.name == "truncation":
        return hyperdrive.TruncationSelectionPolicy(truncation_percentage=int(policy.percent), **when)
    return hyperdrive.BanditPolicy(slack_factor=policy.slack, slack_amount=policy.amount, **when)
