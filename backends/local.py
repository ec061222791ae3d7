"""The local backend: a job is a process on this machine, supervised by a process of its own.

    trainer run ──submit──> supervisor (detached, holds the run's lock) ──starts──> python launch.py SCRIPT
         │                       │ writes                                              │ writes
         └──reads── status.json <┘            metrics.jsonl, logs/, outputs/ <─────────┘

Nothing but the run's folder connects the two sides, so a client that reads it later sees the same.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from trainer.backend import Backend, Plan
from trainer.errors import ConfigError, DamagedRecordError
from trainer.host import elsewhere
from trainer.kernels import torch_for
from trainer.records import RunFailure, RunInfo, RunStatus
from trainer.runtime.layout import DECODED_DIR_VARIABLE
from trainer.runtime.versions import installed_versions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from backends.local_services import LocalServices
    from backends.local_store import LocalStore
    from trainer.damage import Damage
    from trainer.job import TrainingJob
    from trainer.runfolder import RunFolder
    from trainer.runtime.devices import Selected
    from trainer.snapshot import Snapshot

_START_SECONDS = 60.0
_MENDING_SECONDS = 5.0
_LOOK_SECONDS = 0.1
_PINNED = ("numpy", "chainer", "cupy-cuda12x")
_PINNED_RANKS = ("mpi4py", "mpich")


class LocalBackend(Backend):
    """The backend for jobs on this machine. It has no options."""

    name = "local"
    # The study whose trials a warm worker forks.
    _warm: Path | None = None

    def plan(self, job: TrainingJob, snapshot: Snapshot) -> Plan:
        """See :meth:`trainer.backend.Backend.plan`."""
        from platform import python_version

        from backends.local_ranks import advice, describe

        device, warnings = _device(job)
        ranks = describe(job) if job.ranks > 1 else {}
        pins = installed_versions((*_PINNED, *(_PINNED_RANKS if ranks else ())))
        return Plan(
            backend=self.name,
            command=tuple(job.command(sys.executable)),
            files=len(snapshot.files),
            size=snapshot.size,
            digest=snapshot.digest,
            dataset=job.dataset,
            details={**ranks, "device": device, "python": python_version(), **pins, "runs": str(self.home.runs)},
            warnings=(*snapshot.notes, *warnings, *advice(job.nodes)),
        )

    def check(self, job: TrainingJob) -> None:
        """See :meth:`trainer.backend.Backend.check`.

        Raises:
            ConfigError: The device or the kernels that the job names can't be used.
        """
        from trainer.runtime.faults import RuntimeFault

        # "auto" always finds something, and asking costs: only a device that was named can be wrong, for one process.
        if "--device" in job.arguments or job.ranks > 1:
            try:
                _select(job)
            except RuntimeFault as fault:
                raise ConfigError(fault.message, fault.hint) from fault
        torch_for(job.kernels)

    def check_ranks(self, job: TrainingJob) -> tuple[str, ...]:
        """See :meth:`trainer.backend.Backend.check_ranks`. Nodes are simulated: all ranks are on this machine.

        Raises:
            ConfigError: mpi4py or mpiexec is missing.
        """
        from backends.local_ranks import advice, find_mpiexec

        find_mpiexec()
        return advice(job.nodes)

    def submit(self, folder: RunFolder) -> None:
        """See :meth:`trainer.backend.Backend.submit`.

        Raises:
            ConfigError: The supervisor could not be started.
        """
        is_trial = self._warm is not None and folder.snapshot.resolve().parent == self._warm
        if is_trial and folder.job().ranks == 1 and self._submit_warm(folder):
            return
        self._start_supervisor(folder)

    def _start_supervisor(self, folder: RunFolder) -> None:
        from backends.local_processes import start_or_explain
        from backends.local_supervisor import SUPERVISOR_LOG

        start_or_explain(
            "The run's supervisor",
            "backends.local_supervisor",
            str(folder.path),
            str(self.home.models),
            directory=folder.path,
            environment=_environment(),
            log=folder.logs / SUPERVISOR_LOG,
            seconds=_START_SECONDS,
            anew=True,
        )

    def warm_up(self, study: Path) -> str:
        """See :meth:`trainer.backend.Backend.warm_up`. One process that has imported Chainer forks every trial."""
        import subprocess

        from backends import local_pool
        from backends.local_processes import start_detached

        if sys.platform != "linux":
            return "forking an interpreter that has imported Chainer is tried on Linux alone"
        log = study / local_pool.POOL_LOG
        try:
            last = start_detached(
                "backends.local_pool",
                str(study.resolve()),
                str(self.home.models),
                directory=study,
                environment=_environment(),
                log=log,
                seconds=_START_SECONDS * 2,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"the warm worker could not be started: {error}"
        if last is not None:
            return last or "the warm worker ended at once"
        self._warm = study.resolve()
        return ""

    def _submit_warm(self, folder: RunFolder) -> bool:
        """Hand a trial to its study's pool, which is started again if it has died; return whether it took it."""
        from backends import local_pool

        study = self._warm
        for _ in range(2):
            if study is None:
                return False
            if local_pool.send(study, folder.run_id) and local_pool.wait_until_taken(study, folder, _START_SECONDS):
                return True
            self._warm = None
            self.warm_up(study)
            study = self._warm
        return folder.info().status is not RunStatus.NOT_STARTED

    def refresh(self, folder: RunFolder) -> RunInfo:
        """See :meth:`trainer.backend.Backend.refresh`. A run whose supervisor has died is ended here, or started again.

        One on another machine is only read: neither its locks nor its processes can be seen from here.
        """
        from backends.local_supervisor import SUPERVISOR_LOCK, goes_on, take_over

        info = _record(folder)
        if info.status.terminal or elsewhere(info) or folder.is_locked(SUPERVISOR_LOCK) or folder.being_submitted():
            return info
        try:
            with folder.locked(SUPERVISOR_LOCK, blocking=False):
                if not goes_on(folder):
                    return take_over(folder, self.store())
            self._start_supervisor(folder)
            return folder.info()
        except BlockingIOError:
            return folder.info()  # another is ending it
        except OSError as error:
            # The disk is full, or the folder another user's: the record can't be written, but it can be returned.
            failure = RunFailure(message=f"Its supervisor died, and its folder can't be written: {error.strerror}.")
            return msgspec.structs.replace(info, status=RunStatus.FAILED, failure=failure)

    def cancel(self, folder: RunFolder) -> None:
        """See :meth:`trainer.backend.Backend.cancel`. The supervisor, on whatever machine, ends the job within seconds.

        Raises:
            ConfigError: The run's folder can't be written.
        """
        from backends.local_supervisor import cancel_flag

        if self.refresh(folder).status.terminal:
            return
        try:
            cancel_flag(folder).touch()
        except OSError as error:
            raise ConfigError(
                f"Can't ask run {folder.run_id} to stop: {error.strerror}.", f"Make {folder.path} writable."
            ) from error

    def damage(self) -> Iterable[Damage]:
        """See :meth:`trainer.backend.Backend.damage`: versions of models, and services."""
        from backends import local_services, local_store

        yield from local_store.find_damage(self.home)
        yield from local_services.find_damage(self.home)

    def store(self) -> LocalStore:
        """Return the registry in the home's ``models/``."""
        from backends.local_store import LocalStore

        return LocalStore(self.home.models)

    def services(self) -> LocalServices:
        """Return the services that run as processes on this machine."""
        from backends.local_services import LocalServices

        return LocalServices(self.home, self.store)


def _environment() -> dict[str, str]:
    """The environment of a process that supervises runs."""
    from trainer.data import decoded_dir

    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRAINER_RUN_")}
    environment.setdefault(DECODED_DIR_VARIABLE, decoded_dir())
    return environment


def _record(folder: RunFolder) -> RunInfo:
    """Read the record. One that was damaged since we read it is mended by the supervisor, which looks all the time.

    Raises:
        DamagedRecordError: It is not.
    """
    deadline = time.monotonic() + _MENDING_SECONDS
    while True:
        try:
            return folder.info()
        except DamagedRecordError:
            if folder.last_read is None or time.monotonic() > deadline:
                raise
            time.sleep(_LOOK_SECONDS)


def _device(job: TrainingJob) -> tuple[str, tuple[str, ...]]:
    """Describe what the job will run on, with warnings."""
    from trainer.runtime.faults import RuntimeFault

    try:
        selected = _select(job)
    except RuntimeFault as fault:
        return "none", (f"{fault.message}; {fault.hint}",)
    if selected is None:
        return f"as {job.script} decides", ()
    if job.ranks > 1 and selected.kind == "cuda":
        return f"cuda:0 to cuda:{job.ranks - 1}, one for each rank", ()
    return selected.description + (f": {selected.reason}" if selected.reason else ""), ()


def _select(job: TrainingJob) -> Selected | None:
    """Select the device that our own script's ``--device`` means here; None for another script."""
    from trainer.runtime._cuda import ask_driver
    from trainer.runtime.devices import check_ranks, select
    from trainer.snapshot import DEFAULT_SCRIPT

    if job.script != DEFAULT_SCRIPT:
        return None
    words = dict(zip(job.arguments, job.arguments[1:], strict=False))
    spec = words.get("--device", "auto")
    if job.ranks > 1:
        check_ranks(spec, len(ask_driver().gpus), job.ranks)
    return select(spec)
