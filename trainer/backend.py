"""Where a job can run: the base class of backends, and the registry that imports one when it is used."""

from __future__ import annotations

import functools
import importlib
import pkgutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from trainer.errors import ConfigError, RefusedError, TrainerError, UsageError
from trainer.options import Option, Options, declared, read_options

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from trainer.artifacts import ArtifactStore
    from trainer.damage import Damage
    from trainer.deploy.service import Services
    from trainer.home import Home
    from trainer.job import TrainingJob
    from trainer.records import RunInfo
    from trainer.runfolder import RunFolder
    from trainer.snapshot import Limits, Snapshot
    from trainer.tune.study_service import StudyService

ENTRY_POINTS = "trainer.backends"
BUNDLED = "backends"
DEFAULT_BACKEND = "local"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a submission would do, found without starting anything or touching a network.

    Attributes:
        backend: The backend's name.
        command: The job's command line.
        files: Number of files that would travel.
        size: Their total size in bytes.
        digest: The snapshot's digest.
        dataset: The data set that would travel, or None.
        details: The backend's own lines, label to value: device, image, VM size, pins, caps.
        warnings: What the user should know before starting.
    """

    backend: str
    command: tuple[str, ...]
    files: int
    size: int
    digest: str
    dataset: str | None = None
    details: dict[str, Any] = {}
    warnings: tuple[str, ...] = ()


class Backend(ABC):
    """Somewhere to run jobs: the base class of every backend.

    A subclass implements :meth:`submit`, :meth:`refresh` and :meth:`cancel`; everything else has a default.
    Making one must be cheap and touch no network. Whatever happens to a run is brought into its folder, which is
    what everyone reads.

    What a backend can do beyond running jobs is asked of it by one method each, and the default says that it can't:
    :meth:`store`, its model registry, :meth:`services`, where models are deployed, :meth:`warm_up`,
    :meth:`study_service`, and :meth:`check_ranks`, for jobs of several processes.

    Attributes:
        name: The name under which it is registered.
        remote: Whether its runs go on without this machine. Ctrl-C then detaches from a run and doesn't cancel it,
            and lists show a run as it was last seen.
        limits: The largest snapshot it takes, checked before anything is written; None for any.
        options_type: What a user may set; see :mod:`trainer.options`.
        home: Where runs and models are kept.
        options: What the user has set, an ``options_type``.

    Args:
        home: Where runs and models are kept.
        options: Values of the options, by name.

    Raises:
        UsageError: An option is unknown or unusable.
    """

    name: ClassVar[str]
    remote: ClassVar[bool] = False
    limits: ClassVar[Limits | None] = None
    options_type: ClassVar[type[Options]] = Options
    options: Options

    def __init__(self, home: Home, options: Mapping[str, Any] | None = None) -> None:
        self.home = home
        self.options = read_options(self.options_type, options or {}, self.name)

    def plan(self, job: TrainingJob, snapshot: Snapshot) -> Plan:
        """Say what ``submit`` would do. By default: the command, the files and the options.

        Raises:
            RefusedError: The job breaks a limit of the backend.
        """
        return Plan(
            backend=self.name,
            command=tuple(job.command("python")),
            files=len(snapshot.files),
            size=snapshot.size,
            digest=snapshot.digest,
            dataset=job.dataset,
            details={name: value for name, value in msgspec.structs.asdict(self.options).items() if value is not None},
            warnings=snapshot.notes,
        )

    def check(self, job: TrainingJob) -> None:  # noqa: B027  # a default, not an omission
        """Refuse what can be known not to work, before data is looked for and a run's folder is made.

        A backend with a service signs in and asks it. Called more than once: the first time the job's data set is not
        known yet. By default refuses nothing.

        Raises:
            RefusedError: The backend would not take the job.
            SignInError: The backend does not accept who we are.
            ConfigError: Something that it needs is missing.
        """

    @abstractmethod
    def submit(self, folder: RunFolder) -> None:
        """Start the run whose job and staged snapshot lie in ``folder``; return once it is under way.

        Raises:
            RefusedError: The backend will not take it.
            SignInError: The backend does not accept who we are.
            ConfigError: Something it needs is missing.
        """

    @abstractmethod
    def refresh(self, folder: RunFolder) -> RunInfo:
        """Bring the folder (record, metrics, log, outputs) up to date with the run, and return the record.

        When the record says Completed, ``outputs/`` holds the run's outputs and, if the job has a model name
        and the script wrote ``outputs/model.npz``, the model is registered, exactly once;
        :func:`trainer.finish.finish` does that. A run that has died without a word is Failed, never Running for ever.
        """

    @abstractmethod
    def cancel(self, folder: RunFolder) -> None:
        """Ask for the run to stop. Idempotent; does nothing to a run that has ended."""

    def check_ranks(self, job: TrainingJob) -> tuple[str, ...]:
        """Refuse a job of several processes that can't be started as such. Asks no network.

        Called for such jobs alone, before :meth:`plan` and :meth:`check`.

        Returns:
            What the user should know before it is submitted, a sentence each.

        Raises:
            RefusedError: The backend runs one process per job, which is the default.
            ConfigError: Something that it needs is missing.
        """
        raise RefusedError(
            f"The {self.name} backend runs one process per job, and this one asks for {job.ranks}.",
            "Leave out --nodes and --processes-per-node, or use --backend local",
        )

    def watch_ranks(self, folder: RunFolder, ranks: Sequence[int]) -> None:  # noqa: B027  # a default, not an omission
        """Have :meth:`refresh` bring the logs of those ranks, too, up to date while the run goes on.

        By default does nothing: a backend of this machine has them written where they are read.
        """

    def warm_up(self, study: Path) -> str:  # noqa: ARG002  # a default
        """Get ready to run a study's trials without starting an interpreter for each; ``submit`` then does so.

        Args:
            study: The study's folder, with its staged snapshot.

        Returns:
            An empty text, or why each trial is a fresh process, which is the default.
        """
        return f"the {self.name} backend starts a fresh process per trial"

    def study_service(self) -> StudyService:
        """Return the backend's own service that drives studies: it draws values, starts trials and stops them.

        Cheap, and without a network.

        Raises:
            RefusedError: It has none, which is the default.
        """
        raise RefusedError(
            f"The {self.name} backend has no service that drives studies.", "Let this program do it: --driver client"
        )

    def damage(self) -> Iterable[Damage]:
        """Find what is damaged in the backend's own files on this machine; by default nothing."""
        return ()

    def store(self) -> ArtifactStore:
        """Return the backend's model registry.

        Raises:
            RefusedError: It has none, which is the default.
        """
        raise RefusedError(
            f"The {self.name} backend has no model registry.",
            "Use another --backend; a run's own files lie in its folder: trainer show RUN",
        )

    def services(self) -> Services:
        """Return where the backend deploys models.

        Raises:
            RefusedError: It deploys none, which is the default.
        """
        raise RefusedError(
            f"The {self.name} backend deploys no models.",
            "Use another --backend, or serve the model here: trainer serve MODEL",
        )


def backend_names() -> list[str]:
    """Names of the backends that are installed."""
    from importlib.metadata import entry_points

    return sorted({*bundled_names(), *(point.name for point in entry_points(group=ENTRY_POINTS))})


def bundled_names() -> list[str]:
    """Names of the backends that come with trainer, found without looking for others."""
    return list(_bundled())


@functools.cache
def backend_type(name: str) -> type[Backend]:
    """Import a backend's class.

    Args:
        name: One that comes with trainer, or an entry point in the group ``trainer.backends``.

    Raises:
        UsageError: No such backend.
        ConfigError: The backend can't be imported, or is none.
    """
    where = _bundled().get(name) or _entry_point(name).value
    try:
        kind = pkgutil.resolve_name(where)
    except TrainerError:
        raise
    except Exception as error:  # a stranger's module may raise anything
        raise ConfigError(
            f"The backend {name!r} can't be imported: {type(error).__name__}: {error}.",
            f"Install the package that brings {where} again, or report it to its author.",
        ) from error
    problem = _problem(kind, name)
    if problem:
        raise ConfigError(f"The backend {name!r} can't be used: {problem}.", f"Report it to the author of {where}.")
    found: type[Backend] = kind
    return found


def backend_options(name: str) -> tuple[Option, ...]:
    """The options that a backend declares.

    Raises:
        UsageError, ConfigError: As :func:`backend_type` does.
    """
    return declared(backend_type(name).options_type)


def load_backend(name: str, home: Home, options: Mapping[str, Any] | None = None) -> Backend:
    """Import a backend and make it.

    Args:
        name: As :func:`backend_type` takes it.
        home: Where runs and models are kept.
        options: The backend's own options.

    Raises:
        UsageError: No such backend, or an option is unknown or unusable.
        ConfigError: The backend can't be imported, or is none.
    """
    return backend_type(name)(home, options)


def _problem(kind: object, name: str) -> str:
    """What keeps an object from being the backend ``name``, or an empty text."""
    if not (isinstance(kind, type) and issubclass(kind, Backend)):
        return f"{getattr(kind, '__name__', kind)} is not a subclass of trainer.backend.Backend"
    missing: frozenset[str] = getattr(kind, "__abstractmethods__", frozenset())
    if missing:
        return f"{kind.__name__} has no {', '.join(sorted(missing))}"
    if getattr(kind, "name", None) != name:
        return f"its name is {getattr(kind, 'name', None)!r}, and its entry point's is {name!r}"
    try:
        declared(kind.options_type)
    except Exception as error:  # TypeError by declared; anything from a struct of a stranger's
        return str(error)
    return ""


@functools.cache
def _bundled() -> dict[str, str]:
    # Not through entry points: importlib.metadata takes longer to import than ``trainer models`` takes to list.
    # And from beside this package: a user's own ``backends`` on PYTHONPATH is another package.
    beside = Path(__file__).resolve().parents[1]
    present = sys.modules.get(BUNDLED)
    if present is None:
        spec = PathFinder.find_spec(BUNDLED, [str(beside)])
        if spec is None or spec.loader is None:
            raise ConfigError(f"The package {BUNDLED} is missing in {beside}.", "Install trainer again.")
        present = module_from_spec(spec)
        sys.modules[BUNDLED] = present
        spec.loader.exec_module(present)
    elif Path(str(present.__file__)).resolve().parents[1] != beside:
        raise ConfigError(
            f"This process has imported another package named {BUNDLED}: {present.__file__}.",
            "Rename that package, or use the trainer command.",
        )
    table: dict[str, str] = importlib.import_module(BUNDLED).BACKENDS
    return table


def _entry_point(name: str) -> EntryPoint:
    from importlib.metadata import entry_points

    found = list(entry_points(group=ENTRY_POINTS, name=name))
    if not found:
        raise UsageError(f"There is no backend {name!r}.", f"Choose one of: {', '.join(backend_names())}.")
    return found[0]
