"""From what the command line and ``[tool.trainer.tune]`` say to a study that can be driven."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from trainer.config import Config, command_table
from trainer.errors import ConfigError, RefusedError, UsageError, must_be
from trainer.options import Option
from trainer.runtime.atomic import write_bytes
from trainer.runtime.flags import TRAINING, Flag
from trainer.runtime.layout import OBJECTIVE_FILE
from trainer.snapshot import DEFAULT_SCRIPT, check_limits, default_script, is_default_script
from trainer.submission import JobRequest, Prepared, prepare
from trainer.tune.proposals import check_warm_start
from trainer.tune.sampling import grid_size, qmc_point
from trainer.tune.space import Parameter, Space, Value, parameter, parse, plain, read_point, read_space
from trainer.tune.stopping import Policy, parse_policy
from trainer.tune.study import CLIENT, SERVICE, StudyDefinition, StudyFolder, create_study, find_study

if TYPE_CHECKING:
    from trainer.backend import Backend
    from trainer.data import ProgressDisplay
    from trainer.home import Home
    from trainer.tune.study_service import StudyService

_Count = Annotated[int, Meta(ge=1)]

# What a study is, beside its space and its job.
SETTINGS: tuple[Option, ...] = (
    Option("trials", Annotated[int, Meta(ge=1, le=100_000)], None, "How many trials.", "N", "a whole grid"),
    Option("parallel", Annotated[int, Meta(ge=1, le=1000)], 1, "How many trials at once.", "N"),
    Option("sampler", Literal["random", "grid", "qmc", "tpe", "bayesian"], "random", "What chooses values.", "NAME"),
    Option("stop", Annotated[str, Meta(min_length=1)], None, "Stop hopeless trials by this policy.", "POLICY", "none"),
    Option("metric", Annotated[str, Meta(min_length=1)], "Accuracy", "The metric that counts.", "NAME"),
    Option("goal", Literal["max", "min"], "max", "Whether more of it is better, or less."),
    Option("best", Literal["any", "last"], "any", "Which of its values counts: a trial's best, or its last."),
    Option("seed", Annotated[int, Meta(ge=0, lt=2**32)], 0, "Seed of the values.", "N"),
    Option("max_minutes", Annotated[float, Meta(gt=0)], None, "End the study after so long.", "M", "no cap"),
    Option(
        "driver",
        Literal["client", "service"],
        None,
        "Who drives: this program, or the backend's service, which needs none of ours.",
        default_text="service where the backend has one",
    ),
    Option("isolated", bool, False, "Start a fresh process per trial."),
)
# Of --resume: everything else is frozen.
RESUMABLE = ("trials", "parallel", "max_minutes")
_TABLES = ("space", "try")
# Flags of our script that have another place, or name what is shared by all trials.
_NOT_TUNED = ("dataset", "output_dir", "resume", "gpu_id")
# Where a distribution is asked whether the script takes its values.
_CORNERS = (1e-9, 0.25, 0.5, 0.75, 1 - 1e-9)


def settings(
    home: Home, flags: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return every setting: a flag's, else that of ``TRAINER_TUNE_NAME``, else the table's, else the default.

    Args:
        home: Its project's pyproject.toml is read.
        flags: What the command line gave, as text; None stands for not given.
        environment: The variables.

    Returns:
        The settings by name, and what the table has beside them: ``space`` and ``try``.

    Raises:
        UsageError: A flag has an unusable value.
        ConfigError: The table or a variable has.
    """
    table, where = command_table(home, "tune")
    table = {key.replace("-", "_"): value for key, value in table.items()}
    known = {option.name: option for option in SETTINGS}
    for key in table:
        if key not in known and key not in _TABLES:
            raise ConfigError(f"{where}: unknown key {key!r}.", f"Known keys: {', '.join((*known, *_TABLES))}.")
    tries = table.get("try", [])
    if not isinstance(tries, list) or not all(isinstance(each, str) for each in tries):
        raise ConfigError(f"{where}: try must be a list of texts.", 'Write: try = ["lr=0.1,batchsize=128"]')
    found: dict[str, Any] = {}
    for name, option in known.items():
        variable = f"TRAINER_TUNE_{name.upper()}"
        if flags.get(name) is not None:
            found[name] = _checked(option, flags[name], option.flag, UsageError, "Give another.")
        elif environment.get(variable):
            found[name] = _checked(option, environment[variable], variable, ConfigError, "Change it, or unset it.")
        elif name in table:
            value = float(table[name]) if name == "max_minutes" and type(table[name]) is int else table[name]
            try:
                found[name] = option.check(value)
            except ValueError:
                raise ConfigError(must_be(f"{where}: {name}", option.expected, value), "Edit it.") from None
        else:
            found[name] = option.default
    return found, {key: table[key] for key in _TABLES if key in table}


def space_of(words: Sequence[str], table: object) -> Space:
    """Return the space: the table's, and what ``--space`` replaces in it or adds.

    Raises:
        UsageError: It is empty, or a parameter of it is unusable.
    """
    given = [parse(word) for word in words]
    read_space(given) if given else None
    if table is not None and not isinstance(table, dict):
        raise ConfigError(
            "[tool.trainer.tune.space] is not a table.", "Write NAME = [VALUES], or NAME = {KIND = [LOW, HIGH]}."
        )
    listed = {each.name: each for each in (parameter(name, value) for name, value in (table or {}).items())}
    listed.update({each.name: each for each in given})
    return read_space(listed.values())


def plan(
    request: JobRequest,
    values: Mapping[str, Any],
    space: Space,
    tries: Sequence[str],
    warm_start: Sequence[str],
    *,
    config: Config,
    backend: Backend,
    home: Home,
    progress: ProgressDisplay | None = None,
    register: bool = True,
    offline: bool = False,
) -> tuple[StudyDefinition, Prepared]:
    """Check everything that can be, and freeze the study and its files. Nothing is written.

    Args:
        request: What each trial runs.
        values: The settings.
        space: The search space.
        tries: What ``--try`` says.
        warm_start: Names of earlier studies.
        config: The configuration in force.
        backend: Where the trials are to run.
        home: Where studies are kept.
        progress: Shows a download.
        register: Register the best trial's model.
        offline: Ask no mirror for data.

    Raises:
        UsageError: Something can't be tuned like this.
        RefusedError: The service that is to drive can't do it.
        TrainerError: As :func:`trainer.submission.prepare` does.
    """
    script = request.script or default_script()
    request = request.named(script)
    if is_default_script(script):
        _check_flags(space)
    _check_tags(space, request.tags)
    _check_arguments(space, request.script_args)
    service = _service(values["driver"], backend)
    trials = _number_of_trials(values, space, len(tries))
    stop: Policy | None = None if values["stop"] in (None, "none") else parse_policy(values["stop"])
    if values["sampler"] == "qmc":
        qmc_point(space, 0, 0)
    definition = StudyDefinition(
        study=StudyFolder.new_id(),
        created=time.time(),
        backend=backend.name,
        options=_kept_options(config),
        driver=CLIENT if service is None else SERVICE,
        job=_job(request),
        model_name=request.model_name if register else None,
        space=space,
        sampler=values["sampler"],
        seed=values["seed"],
        trials=trials,
        parallel=values["parallel"],
        metric=values["metric"],
        goal=values["goal"],
        best=values["best"],
        stop=stop,
        tries=tuple(_tried(text, space) for text in tries),
        warm_start=tuple(find_study(home.studies, each).study_id for each in warm_start),
        isolated=values["isolated"],
        max_minutes=None if service is None else _whole_minutes(values["max_minutes"]),
        snapshot="",
    )
    if service is None:
        _check_client(definition)
    else:
        service.check(definition)
    for each in definition.warm_start:
        check_warm_start(definition, StudyFolder(home.studies / each).definition())
    prepared = prepare(
        request,
        home,
        progress,
        backend=None if offline else backend,
        offline=offline,
        batchsize=_largest_batch(space) if is_default_script(script) else None,
    )
    if backend.limits is not None:
        check_limits(prepared.snapshot, backend.limits)
    return msgspec.structs.replace(definition, job=prepared.job, snapshot=prepared.snapshot.digest), prepared


def create(definition: StudyDefinition, prepared: Prepared, home: Home) -> StudyFolder:
    """Write a planned study: its snapshot is staged once, for all of its trials.

    Raises:
        TrainerError: It can't be written, or a file changed meanwhile.
    """
    folder = StudyFolder(home.studies / definition.study)
    try:
        return _create(folder, definition, prepared, home)
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise


def _create(folder: StudyFolder, definition: StudyDefinition, prepared: Prepared, home: Home) -> StudyFolder:
    try:
        folder.path.mkdir(parents=True)
        snapshot = prepared.snapshot
        if definition.best == "any":
            objective = folder.path / OBJECTIVE_FILE
            write_bytes(objective, msgspec.json.encode({"metric": definition.metric, "goal": definition.goal}))
            snapshot = snapshot.with_objective(objective)
    except OSError as error:
        raise ConfigError(
            f"Can't create a study in {home.studies}: {error.strerror}.",
            "Make it writable with space to spare, or set TRAINER_HOME to a directory that is.",
        ) from error
    snapshot.stage(folder.snapshot)
    return create_study(home.studies, msgspec.structs.replace(definition, snapshot=snapshot.digest))


def _checked(option: Option, text: Any, what: str, error: type[UsageError | ConfigError], hint: str) -> Any:  # noqa: ANN401
    try:
        return option.parse(text) if isinstance(text, str) else option.check(text)
    except ValueError:
        raise error(must_be(what, option.expected, text), hint) from None


def _service(driver: str | None, backend: Backend) -> StudyService | None:
    """The service that is to drive; None for this program."""
    if driver == CLIENT:
        return None
    try:
        return backend.study_service()
    except RefusedError:
        if driver == SERVICE:
            raise
        return None


def _check_client(definition: StudyDefinition) -> None:
    if definition.sampler == "bayesian":
        raise UsageError(
            "The bayesian sampler is Azure ML's own: it comes with --backend azureml-v2 or azureml.",
            "Use --sampler tpe, which learns from the trials too.",
        )
    uses_tpe, stop = definition.sampler == "tpe", definition.stop
    if uses_tpe or (stop is not None and stop.name == "asha"):
        from trainer.tune.optuna_study import import_optuna

        import_optuna("The tpe sampler" if uses_tpe else "The asha policy")


def _whole_minutes(minutes: float | None) -> int | None:
    if minutes is not None and not minutes.is_integer():
        raise RefusedError(
            f"The service counts whole minutes, not {minutes:g}.", "Round --max-minutes, or use --driver client."
        )
    return None if minutes is None else int(minutes)


def _number_of_trials(values: Mapping[str, Any], space: Space, tries: int) -> int:
    size = grid_size(space) if values["sampler"] == "grid" else None
    if values["trials"] is not None:
        return int(values["trials"])
    if size is None:
        raise UsageError("How many trials? Only a grid knows by itself.", "Give --trials N, for example --trials 12.")
    if size > 100_000:
        raise UsageError(f"The grid has {size:,} points.", "Give --trials N, or larger steps.")
    return size + tries


def _check_flags(space: Space) -> None:
    """Refuse a parameter that our own script has no flag for, or values that the flag doesn't take."""
    known = {flag.name: flag for flag in TRAINING}
    for each in space:
        if each.name in _NOT_TUNED:
            raise UsageError(
                f"--{each.name} can't be tuned: all trials of a study share it.", "Leave it out of --space."
            )
        if each.name not in known:
            raise UsageError(f"{DEFAULT_SCRIPT} has no flag --{each.name}.", f"It has: {', '.join(known)}.")
        _check_values(each, known[each.name])


def _check_values(each: Parameter, flag: Flag) -> None:
    drawn: Sequence[Value] = each.values if each.kind == "choice" else [each.at(u) for u in _CORNERS]
    for value in drawn:
        try:
            flag.parse(plain(value) if isinstance(value, str | int) else repr(value))
        except ValueError:
            hint = (
                f"Write {each.name}=int:LOW..HIGH:STEP."
                if flag.type is int and isinstance(value, float)
                else "Change it."
            )
            raise UsageError(must_be(f"--{each.name}", flag.expected, value), hint) from None


def _largest_batch(space: Space) -> int | None:
    """The largest minibatch of a study that varies it; None for one that doesn't."""
    for each in space:
        if each.name == "batchsize":
            drawn = each.grid() or [each.at(u) for u in _CORNERS]
            return max(int(value) for value in drawn)
    return None


def _check_arguments(space: Space, arguments: Sequence[str]) -> None:
    for each in space:
        if any(word.partition("=")[0] == f"--{each.name}" for word in arguments):
            raise UsageError(
                f"--{each.name} is in the space, and among the script's arguments.", "Leave it out of one of the two."
            )


def _check_tags(space: Space, tags: Mapping[str, str]) -> None:
    for name in ("study", "trial"):
        if name in tags or any(each.name == name for each in space):
            raise UsageError(f"{name!r} is a tag that every trial gets.", "Use another name.")


def _tried(text: str, space: Space) -> dict[str, Value]:
    return read_point(text, space)


def _job(request: JobRequest) -> Any:  # noqa: ANN401  # until the job is prepared
    from trainer.job import TrainingJob

    return TrainingJob(
        script=Path(request.script or DEFAULT_SCRIPT).name,
        arguments=request.script_args,
        nodes=request.nodes,
        processes_per_node=request.processes_per_node,
    )


def _kept_options(config: Config) -> dict[str, Any]:
    """The options with which a later command reaches the backend again; they are no secrets."""
    given = config.options()
    kept = {option.name for option in config.backend_options if option.for_registry}
    return {name: str(value) if isinstance(value, Path) else value for name, value in given.items() if name in kept}
