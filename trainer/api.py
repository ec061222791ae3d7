"""trainer in Python: the functions and classes that ``import trainer`` offers.

Nothing here is shown or asked; what the commands print is returned, and what ends them is raised, as a
:class:`trainer.errors.TrainerError`. The project is the one that the working directory lies in; configuration files
and ``TRAINER_*`` variables hold as on the command line. docs/python.md has examples, which a test runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from trainer.api_models import LoadedModel, Model, load, models
from trainer.backend import Backend, load_backend
from trainer.config import Config, load_config
from trainer.errors import NotFoundError, RunFailedError, TrainerError, UsageError
from trainer.home import Home, find_home
from trainer.listing import list_infos, open_run
from trainer.records import Metric, RunInfo, RunStatus
from trainer.request import JobRequest
from trainer.snapshot import is_default_script
from trainer.submission import Prepared, prepare, resume, submit

if TYPE_CHECKING:
    from trainer import handle

__all__ = ["LoadedModel", "Model", "Run", "TrainerError", "Training", "load", "models", "run", "runs"]


class Training(TypedDict, total=False):
    """The training flags, by name; the bundled script's default where one isn't given."""

    epochs: int
    batchsize: int
    units: int
    lr: float
    momentum: float
    seed: int
    device: str
    threads: int


def run(
    script: str | Path | None = None,
    *,
    args: Sequence[str] = (),
    backend: str | None = None,
    source: str | Path | None = None,
    dataset: str | Path | None = None,
    network: str | None = None,
    experiment: str | None = None,
    model_name: str | None = None,
    register: bool = True,
    tags: Mapping[str, str] | None = None,
    max_minutes: int | None = None,
    collect: str | None = None,
    max_restarts: int | None = None,
    checkpoints: str | None = None,
    kernels: str | None = None,
    nodes: int | None = None,
    processes_per_node: int | None = None,
    options: Mapping[str, Any] | None = None,
    **training: Unpack[Training],
) -> Run:
    """Submit a job, as ``trainer run --detach`` does. It goes on in a process of its own; see :meth:`Run.wait`.

    Args:
        script: The training script; None for the one that is included.
        args: Arguments for the script.
        backend: Where it runs; by default as configured, else ``local``.
        source: The directory that travels with the script; by default the script's own.
        dataset: A data set's name, a directory or a file, ``auto`` or ``none``.
        network: ``FILE.py:NAME`` of a function that makes another network, for the included script.
        experiment: Groups runs.
        model_name: The name to register the model under.
        register: Whether the model is registered.
        tags: Recorded on the run and its model version.
        max_minutes: Stop the run after so many minutes.
        collect: How much of what the script writes outside ``outputs`` is kept: ``off``, ``all``, or a size such as
            ``500MB``.
        max_restarts: How many times a run that loses its node or is killed is started again.
        checkpoints: Pattern of the outputs that it then goes on from, for a script of your own.
        kernels: ``torch`` for PyTorch's CPU kernels, ``off`` for Chainer's own.
        nodes: How many nodes it runs on.
        processes_per_node: How many processes, ranks of MPI, each node has.
        options: The backend's own options by name, such as ``{"vm_size": "STANDARD_D2_V2"}``.
        training: Flags of the included script. A script of your own gets them as arguments, ``--epochs 5``.

    Returns:
        The run, which is under way.

    Raises:
        UsageError: Something that was asked is unusable; nothing has been started.
        ConfigError: The configuration is wrong, or something that the backend needs is missing.
        RefusedError: The backend would not take the job.
        TrainerError: The data can't be had, or the job could not be started.
    """
    if isinstance(args, str):
        raise UsageError(f"args is one text: {args!r}.", f"Give its words: args={args.split()!r}")
    home = find_home()
    own = script is not None and not is_default_script(Path(script))
    given = {
        "backend": backend,
        "script": _path(script),
        "source": _path(source),
        "dataset": None if dataset is None else str(dataset),
        "network": network,
        "experiment": experiment,
        "model_name": model_name,
        "max_minutes": max_minutes,
        "collect": collect,
        "max_restarts": max_restarts,
        "checkpoints": checkpoints,
        "kernels": kernels,
        "nodes": nodes,
        "processes_per_node": processes_per_node,
        **({} if own else training),
        **(options or {}),
    }
    config = load_config(home, given)
    words = [word for name, value in training.items() for word in (f"--{name}", str(value))] if own else []
    request = JobRequest.from_config(
        config,
        script_args=(*words, *map(str, args)),
        tags={str(name): str(value) for name, value in (tags or {}).items()},
        register=register,
    )
    chosen = _backend(home, config)
    return _start(prepare(request, home, backend=chosen), chosen, home)


def runs(limit: int | None = None) -> list[Run]:
    """Return the runs of this project, newest first, as ``trainer runs`` lists them.

    Args:
        limit: Only so many of the newest; None for all.
    """
    home = find_home()
    return [Run(home, info.run_id) for info in list_infos(home, refresh=False, limit=limit).infos]


class Run:
    """A run, whichever backend it is on. :func:`run` and :func:`runs` make it.

    Args:
        home: Where runs are kept.
        reference: A run id, an unambiguous beginning or ending of one, or ``latest``.
    """

    def __init__(self, home: Home | None = None, reference: str = "latest") -> None:
        self._home = home or find_home()
        self._reference = reference
        self._opened: handle.Run | None = None

    @property
    def _handle(self) -> handle.Run:
        if self._opened is None:
            self._opened = open_run(self._home, self._reference)
        return self._opened

    @property
    def id(self) -> str:
        """The run's id."""
        return self._handle.run_id

    @property
    def info(self) -> RunInfo:
        """The run's record, brought up to date."""
        return self._handle.info()

    @property
    def status(self) -> RunStatus:
        """Where the run stands now, in Azure ML's words: ``"Running"``, ``"Completed"``."""
        return self.info.status

    @property
    def metrics(self) -> dict[str, float | None]:
        """The last value of each metric; None stands for one that is not finite."""
        self._handle.info()
        return self._handle.latest_metrics()

    @property
    def history(self) -> list[Metric]:
        """Every value that was logged, in order, each with ``name``, ``value``, ``step`` and ``time``."""
        self._handle.info()
        return self._handle.metrics()

    @property
    def outputs(self) -> Path:
        """The folder of what the script left. It fills when the run ends."""
        return self._handle.folder.outputs

    @property
    def model(self) -> Model:
        """The model version that was registered from the run.

        Raises:
            NotFoundError: There is none, or not yet.
        """
        info = self.info
        if info.model is None:
            raise NotFoundError(
                f"No model is registered from run {info.run_id}, which is {info.status}.",
                "Wait for it: run.wait()" if not info.status.terminal else f"See: trainer show {info.run_id}",
            )
        store = self._handle.backend.store()
        return Model(store.get(info.model.name, info.model.version), store)

    def wait(self, timeout: float | None = None, *, check: bool = True) -> Run:
        """Block until the run has ended.

        Args:
            timeout: Seconds to wait at most; None waits for ever.
            check: Whether a run that failed or was canceled is an error.

        Returns:
            This run.

        Raises:
            TimeoutError: It goes on after ``timeout``.
            RunFailedError: It failed or was canceled, and ``check`` is true.
        """
        info = self._handle.wait(timeout)
        if not info.status.terminal:
            raise TimeoutError(f"Run {info.run_id} is {info.status} after {timeout:g} seconds.")
        if check and info.status is not RunStatus.COMPLETED:
            reason = f": {info.failure.message}" if info.failure else "."
            raise RunFailedError(f"Run {info.run_id}: {info.status}{reason}", f"Its output: trainer logs {info.run_id}")
        return self

    def logs(self, *, follow: bool = False, rank: int = 0) -> Iterator[str]:
        """Iterate over the lines of the script's output.

        Args:
            follow: Go on until the run ends.
            rank: Whose output, of a job of several processes.

        Raises:
            UsageError: The job has no such rank.
        """
        return self._handle.logs(follow=follow, rank=rank)

    def cancel(self) -> None:
        """Ask for the run to stop. Does nothing to a run that has ended."""
        self._handle.cancel()

    def resume(self, args: Sequence[str] = (), *, backend: str | None = None) -> Run:
        """Continue the run from its last checkpoint, as a new run.

        Args:
            args: Arguments added to the run's own.
            backend: Where it continues; by default where it was.

        Raises:
            UsageError: It goes on, or is complete with nothing added.
            NotFoundError: It left nothing to continue from.
        """
        prepared = resume(self._handle, tuple(map(str, args)))
        config = load_config(self._home, {"backend": backend or self._handle.folder.info().backend})
        return _start(prepared, _backend(self._home, config), self._home)

    def __repr__(self) -> str:
        """The run's id, status and backend, as last seen."""
        info = self._handle.folder.info()
        return f"<Run {info.run_id} {info.status} ({info.backend})>"


def _start(prepared: Prepared, backend: Backend, home: Home) -> Run:
    if prepared.job.dataset_note:
        warnings.warn(prepared.job.dataset_note, stacklevel=3)
    started = submit(prepared, backend, home)
    made = Run(home, started.run_id)
    made._opened = started
    return made


def _backend(home: Home, config: Config) -> Backend:
    return load_backend(config["backend"], home, config.options())


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)
