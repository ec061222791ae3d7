"""Where a job can run: the Backend protocol, and a registry that imports a backend when it is used."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import msgspec

from trainer.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from trainer.artifacts import ArtifactStore
    from trainer.home import Home
    from trainer.job import TrainingJob
    from trainer.records import RunInfo
    from trainer.runfolder import RunFolder
    from trainer.snapshot import Limits, Snapshot

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


@runtime_checkable
class Backend(Protocol):
    """Somewhere to run jobs.

    A backend is made from a :class:`~trainer.home.Home` and its options; making one must be cheap and touch no
    network. Whatever happens to a run is brought into its folder, which is what everyone reads.

    Attributes:
        name: The name under which it is registered.
        on_interrupt: What Ctrl-C does to a run that a command is following.
        limits: The largest snapshot it takes, checked before anything is written; None for any.
        option_names: The options it knows.
    """

    name: str
    option_names: frozenset[str]
    limits: Limits | None
    on_interrupt: Literal["cancel", "detach"]

    def __init__(self, home: Home, options: Mapping[str, Any]) -> None: ...

    def plan(self, job: TrainingJob, snapshot: Snapshot) -> Plan:
        """Say what ``submit`` would do.

        Raises:
            RefusedError: The job breaks a limit of the backend.
        """
        ...

    def check(self, job: TrainingJob) -> None:
        """Refuse what is already known not to work, before anything is written. Touches no network.

        Asked more than once: the first time the job's data set is not known yet.

        Raises:
            RefusedError: The backend would not take the job.
            ConfigError: Something that it needs is missing.
        """
        ...

    def submit(self, folder: RunFolder) -> None:
        """Start the run whose job and staged snapshot lie in ``folder``; return once it is under way.

        Raises:
            RefusedError: The backend will not take it.
            SignInError: The backend does not accept who we are.
            ConfigError: Something it needs is missing.
        """
        ...

    def refresh(self, folder: RunFolder) -> RunInfo:
        """Bring the folder (record, metrics, log, outputs) up to date with the run, and return the record.

        When the record says Completed, ``outputs/`` holds the run's outputs and, if the job has a model name
        and the script wrote ``outputs/model.npz``, the model is registered, exactly once.
        A run that has died without a word is Failed, never Running for ever.
        """
        ...

    def cancel(self, folder: RunFolder) -> None:
        """Ask for the run to stop. Idempotent; does nothing to a run that has ended."""
        ...

    def store(self) -> ArtifactStore:
        """The backend's model registry."""
        ...


def backend_names() -> list[str]:
    """Names of the backends that are installed."""
    from importlib.metadata import entry_points

    return sorted(_bundled().keys() | {point.name for point in entry_points(group=ENTRY_POINTS)})


def load_backend(
    name: str, home: Home, options: Mapping[str, Any] | None = None, defaults: Mapping[str, Any] | None = None
) -> Backend:
    """Import a backend and make it.

    Args:
        name: Its name: one that comes with trainer, or an entry point in the group ``trainer.backends``.
        home: Where runs and models are kept.
        options: The backend's own options; unknown ones are the backend's to refuse.
        defaults: The same from configuration, which is for every backend: unknown ones are left out.

    Raises:
        UsageError: No such backend.
        ConfigError: The backend can't be imported.
    """
    where = _bundled().get(name) or _entry_point(name).value
    try:
        kind = pkgutil.resolve_name(where)
    except ImportError as error:
        raise ConfigError(
            f"The backend {name!r} can't be imported: {error}.", f"Reinstall the package that brings {where}."
        ) from error
    known = {key: value for key, value in (defaults or {}).items() if key in kind.option_names}
    backend: Backend = kind(home, {**known, **(options or {})})
    return backend


def _bundled() -> dict[str, str]:
    # Not through entry points: importlib.metadata takes longer to import than ``trainer models`` takes to list.
    import importlib

    table: dict[str, str] = importlib.import_module(BUNDLED).BACKENDS
    return table


def _entry_point(name: str) -> EntryPoint:
    from importlib.metadata import entry_points

    found = list(entry_points(group=ENTRY_POINTS, name=name))
    if not found:
        raise UsageError(f"There is no backend {name!r}.", f"Choose one of: {', '.join(backend_names())}.")
    return found[0]
