"""A study as a sweep job of SDK v2, and a sweep job as plain HTTPS gives it back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.azure import search
from backends.azure.errors import explained, retry
from backends.azure.image import V2
from backends.azure.search import OURS, Abilities, Refusal
from backends.azure.sweeps import Child, SweepService
from backends.azure.v2 import run as runs
from backends.azure.v2.client import sdk
from backends.azure.v2.computes import RestComputes
from backends.azure.v2.connection import JOBS_VERSION, forget_connections, open_connection, segments
from backends.azure.v2.submit import command_job, command_line, prepare_job
from trainer.runtime.layout import LAUNCHER

if TYPE_CHECKING:
    from backends.azure.image import Environment
    from backends.azure.session import WorkspaceRef
    from backends.azure.v2.connection import Connection
    from trainer.tune.space import Parameter
    from trainer.tune.stopping import Policy
    from trainer.tune.study import StudyDefinition, StudyFolder

# How many at once: how-to-tune-hyperparameters; minutes: the default of a sweep job without a limit, 60 days
# (reference-yaml-job-sweep). A seed is ARM's int32.
ABILITIES = Abilities("A sweep job", most_at_once=1000, most_minutes=86_400, largest_seed=2**31 - 1, most_parents=0)
# What a value may hold that is put between apostrophes into a command line by somebody else.
_HARMLESS = re.compile(r"[^'\"`\\${}\x00-\x1f\x7f]*")
_VALUES_TAG = "hyperparameters"
_SWEEP_TAG = "_aml_system_"


class SweepJobs(SweepService):
    """The service of SDK v2; see :class:`backends.azure.sweeps.SweepService`."""

    node_side = V2
    loading = "the SDK"

    def check(self, definition: StudyDefinition) -> None:
        """See :meth:`trainer.tune.study_service.StudyService.check`."""
        search.check(definition, ABILITIES, list(_odds(definition.space)))

    def open(self, ref: WorkspaceRef) -> SweepJobClient:
        """See :meth:`backends.azure.sweeps.SweepService.open`."""
        return SweepJobClient(open_connection(ref))

    def forget(self) -> None:
        """See :meth:`backends.azure.sweeps.SweepService.forget`."""
        forget_connections()


class SweepJobClient:
    """See :class:`backends.azure.sweeps.SweepClient`.

    Args:
        connection: Where it works.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def computes(self) -> RestComputes:
        """See :meth:`backends.azure.sweeps.SweepClient.computes`."""
        return RestComputes(self._connection)

    def find(self, name: str, definition: StudyDefinition) -> SweepJob | None:
        """See :meth:`backends.azure.sweeps.SweepClient.find`."""
        with explained(f"look up study {name}"):
            found = retry(lambda: runs.find_run(self._connection, name))
        return None if found is None else SweepJob(self._connection, name, found, keys_of(definition.space))

    def prepare(
        self, study: StudyFolder, definition: StudyDefinition, image: Environment, compute: str, seconds: int
    ) -> Callable[[], bool]:
        """See :meth:`backends.azure.sweeps.SweepClient.prepare`."""

        def make(context: Path) -> Any:  # noqa: ANN401
            return make_sweep(study, definition, image, compute, context, seconds)

        return prepare_job(self._connection, study.study_id, make)


class SweepJob:
    """See :class:`backends.azure.sweeps.Sweep`.

    Args:
        connection: The workspace.
        name: The sweep's id.
        run: Its parent run.
        keys: The search space's name of each parameter.
    """

    def __init__(self, connection: Connection, name: str, run: runs.RestRun, keys: Mapping[str, str]) -> None:
        self._connection, self._name, self._run, self._keys = connection, name, run, keys

    def get_details(self) -> dict[str, Any]:
        """Return its status, times and error."""
        return self._run.get_details()

    def get_status(self) -> str:
        """Return its status."""
        return self._run.get_status()

    def cancel(self) -> None:
        """Ask for its end."""
        self._run.cancel()

    def children(self) -> Iterator[Child]:
        """See :meth:`backends.azure.sweeps.Sweep.children`."""
        of_sweep: Mapping[str, Any] | None = None
        for name, tags in retry(lambda: list(self._run.children())):
            noted = tags.get(_VALUES_TAG)
            if noted is None:
                # SDK v1 looks for them on the sweep, too.
                of_sweep = retry(self._tags) if of_sweep is None else of_sweep
                noted = of_sweep.get(_SWEEP_TAG + name) or of_sweep.get(name)
            given = search.decoded(noted)
            yield Child(name, given if isinstance(given, dict) else None, self._keys)

    def _tags(self) -> Mapping[str, Any]:
        properties = self._connection.arm("GET", segments("jobs", self._name), version=JOBS_VERSION).get("properties")
        tags = properties.get("tags") if isinstance(properties, dict) else None
        return tags if isinstance(tags, dict) else {}


def keys_of(space: Sequence[Parameter]) -> dict[str, str]:
    """Return the name that each parameter has in a search space, where one is letters, digits and underscores."""
    found: dict[str, str] = {}
    for each in space:
        key = re.sub(r"[^A-Za-z0-9_]", "_", each.name)
        while key in found.values():
            key += "_"
        found[each.name] = key
    return found


def make_sweep(
    study: StudyFolder,
    definition: StudyDefinition,
    image: Environment,
    compute: str,
    context: Path,
    checkpoint_seconds: int,
) -> Any:  # noqa: ANN401
    """Make the sweep job of a study.

    Args:
        study: Its folder, with the staged snapshot.
        definition: What it is.
        image: What its trials run in.
        compute: The cluster's name.
        context: An empty directory for the image's build context, to be kept until the job is sent.
        checkpoint_seconds: Between two uploads of a trial's checkpoint, at least.

    Returns:
        What ``MLClient.jobs.create_or_update`` takes. Sent again it is the same sweep.
    """
    sweep, keys, job = sdk("azure.ai.ml.sweep"), keys_of(definition.space), definition.job
    line = command_line(["python", LAUNCHER, *search.arguments(definition, checkpoint_seconds)])
    # The service puts the values in; between apostrophes the shell takes each for one word.
    line += "".join(f" --{name} '${{{{search_space.{key}}}}}'" for name, key in keys.items())
    staged = (study.snapshot, definition.snapshot)
    trial = command_job(study.study_id, job, line, staged, image, compute, context)
    sampling = {
        "random": lambda: sweep.RandomSamplingAlgorithm(seed=definition.seed or None),
        "grid": sweep.GridSamplingAlgorithm,
        search.BAYESIAN: sweep.BayesianSamplingAlgorithm,
    }
    minutes, cap = definition.max_minutes, job.max_minutes
    return trial.sweep(
        primary_metric=definition.metric,
        goal="maximize" if definition.goal == "max" else "minimize",
        sampling_algorithm=sampling[definition.sampler](),
        compute=compute,
        max_total_trials=definition.trials,
        max_concurrent_trials=definition.parallel,
        timeout=None if minutes is None else minutes * 60,
        trial_timeout=None if cap is None else cap * 60,
        early_termination_policy=None if definition.stop is None else _policy(sweep, definition.stop),
        search_space={keys[each.name]: expression(each, definition.sampler) for each in definition.space},
    )


def expression(each: Parameter, sampler: str) -> Any:  # noqa: ANN401
    """Return the SDK's expression for a parameter; docs/tuning.md has the table."""
    sweep = sdk("azure.ai.ml.sweep")
    if each.kind == "int" and sampler == "random" and each.low == 0 and each.step == 1:
        return sweep.Randint(upper=search.number(each.high) + 1)
    listed = each.grid()
    if listed is not None:
        return sweep.Choice(values=list(listed))
    theirs = {
        "uniform": sweep.Uniform,
        "loguniform": sweep.LogUniform,
        "quniform": sweep.QUniform,
        "qloguniform": sweep.QLogUniform,
        "normal": sweep.Normal,
        "lognormal": sweep.LogNormal,
        "qnormal": sweep.QNormal,
        "qlognormal": sweep.QLogNormal,
    }
    return theirs[search.kind(each)](*search.bounds(each))


def _policy(sweep: Any, policy: Policy) -> Any:  # noqa: ANN401
    when = {"evaluation_interval": policy.interval, "delay_evaluation": policy.delay}
    if policy.name == "median":
        return sweep.MedianStoppingPolicy(**when)
    if policy.name == "truncation":
        return sweep.TruncationSelectionPolicy(truncation_percentage=int(policy.percent), **when)
    return sweep.BanditPolicy(slack_factor=policy.slack or 0, slack_amount=policy.amount or 0, **when)


def _odds(space: Sequence[Parameter]) -> Iterator[Refusal]:
    """What only this SDK can't take."""
    for each in space:
        for value in each.values if each.kind == "choice" else ():
            if isinstance(value, str) and not _HARMLESS.fullmatch(value):
                yield (
                    f"A sweep job writes values into the node's command line, which {value[:40]!r} of {each.name} "
                    "does not survive.",
                    f"Leave out quotes, $, braces, backslashes and control characters. {OURS}",
                )
