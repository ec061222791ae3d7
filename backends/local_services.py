"""Services on this machine: each is a process of its own (:mod:`backends.local_service`), found again by its folder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from backends import local_processes as processes
from backends import local_service_control as control
from backends.local_service import (
    KEY_FILE,
    LOG_FILE,
    OLD_LOG_FILE,
    PROCESS_LOCK,
    SERVICE_DIR_VARIABLE,
    Wanted,
    read_running,
    revision_folder,
    wanted_of,
)
from trainer.artifacts import fetch
from trainer.damage import Damage, moved
from trainer.deploy import records
from trainer.deploy.preparing import own_files, resolved
from trainer.deploy.service import (
    FAILED,
    HEALTHY,
    KEY_NAMES,
    TRANSITIONING,
    UNHEALTHY,
    Deployment,
    KeyName,
    ServiceInfo,
    ServicePlan,
    Services,
    Tell,
)
from trainer.deploy.trying import try_network
from trainer.errors import ConfigError, DamagedRecordError, NotFoundError, RefusedError, RunFailedError
from trainer.host import is_here, this_host
from trainer.locks import is_locked, locked
from trainer.runtime.atomic import make_directory
from trainer.trees import remove_tree

if TYPE_CHECKING:
    from trainer.artifacts import ArtifactStore, ModelVersion
    from trainer.home import Home

_NAME = "local"
_KIND = "process"
_TELL_SECONDS = 10.0
_TAIL = 20
_DIED = "Its process has died: it was killed, or this machine was restarted."


class LocalServices(Services):
    """The services that run as processes on this machine.

    Args:
        home: Where their folders are.
        store: Gives the registry.
    """

    def __init__(self, home: Home, store: Callable[[], ArtifactStore]) -> None:
        self._top = home.services / _NAME
        self._home = home
        self._store = store

    def plan(self, deployment: Deployment) -> ServicePlan:
        """See :meth:`trainer.deploy.service.Services.plan`."""
        deployment, version = resolved(deployment, self._store())
        name = str(deployment.name)
        details = {"address": "127.0.0.1, a free port", "folder": str(self._top / name)}
        warnings: tuple[str, ...] = ()
        if _has_files(deployment):
            snapshot = own_files(deployment)
            what = "network" if deployment.script is None else "score script"
            details["travels"] = f"{len(snapshot.files)} files, {snapshot.size:,} bytes, with the {what}"
            warnings = snapshot.notes
        if deployment.network.where is not None:
            details["network"] = deployment.network.where
        if records.read(self._top / name) is not None and not deployment.overwrite:
            warnings = (*warnings, f"There is a service {name} already; it would be replaced with --overwrite alone.")
        return ServicePlan(
            backend=_NAME,
            name=name,
            model=version.reference,
            script=_script(deployment),
            details=details,
            warnings=warnings,
        )

    def deploy(self, deployment: Deployment, tell: Tell) -> ServiceInfo:
        """See :meth:`trainer.deploy.service.Services.deploy`."""
        from trainer.serving.settings import check_installed

        check_installed("trainer deploy")
        store = self._store()
        deployment, version = resolved(deployment, store)
        name = str(deployment.name)
        with self._held(name) as folder:
            known = records.read(folder)
            if known is not None and not deployment.overwrite:
                now = self.refresh(known)
                raise RefusedError(
                    f"There is a service {name} already: {now.model}, {now.state}.",
                    "Replace it: --overwrite    Or give this one another name: --name NAME",
                )
            if known is not None:
                self._check_here(known)
            try_network(deployment, store, tell)
            service = self._stage(folder, known, deployment, version)
            log = folder / LOG_FILE
            begin = log.stat().st_size if log.exists() else 0
            if control.answers(folder):
                tell(f"Loading {version.reference} beside what {name} answers with now.")
            else:
                # What is left of one that was killed, or one that is loading its first model, perhaps for ever.
                processes.stop(processes.find_processes(folder, SERVICE_DIR_VARIABLE))
                tell(f"Starting {name} with {version.reference}.")
                control.start(folder)
        self._wait(folder, _wanted(service, folder), begin, tell)
        return self.refresh(service)

    def every(self) -> list[ServiceInfo]:
        """See :meth:`trainer.deploy.service.Services.every`."""
        return [self.refresh(service) for service in records.known(self._home, _NAME)[0]]

    def get(self, name: str) -> ServiceInfo:
        """See :meth:`trainer.deploy.service.Services.get`."""
        service = records.read(self._top / name)
        if service is None:
            raise NotFoundError(f"There is no service {name!r} here.", "See: trainer services, or name its --backend.")
        return self.refresh(service)

    def refresh(self, service: ServiceInfo) -> ServiceInfo:
        """See :meth:`trainer.deploy.service.Services.refresh`."""
        folder = self._top / service.name
        wanted = _wanted(service, folder)
        if not is_here(wanted.host):
            where = wanted.host.name if wanted.host else "another machine"
            return msgspec.structs.replace(service, error=f"It runs on {where}, and this is how it was deployed.")
        alive = is_locked(folder / PROCESS_LOCK)
        running = read_running(folder)  # after the lock: a process that has ended has said why before
        if not alive:
            why = running.ended if running is not None and running.ended else _DIED
            return msgspec.structs.replace(service, state=FAILED, url=None, error=why)
        if running is None or not running.revision:
            return msgspec.structs.replace(service, state=TRANSITIONING, url=None)
        answers = control.is_ready(running.port)
        error = "" if answers else "It does not answer."
        if answers and wanted.revision == running.refused:
            error = f"The last deployment, of {service.model}, was not taken: {running.why}"
        return msgspec.structs.replace(
            service,
            state=HEALTHY if answers else UNHEALTHY,
            url=f"http://127.0.0.1:{running.port}/score",
            model=running.model,
            script=running.script,
            network=running.network,
            error=error,
        )

    def keys(self, service: ServiceInfo) -> tuple[str, ...]:
        """See :meth:`trainer.deploy.service.Services.keys`."""
        from trainer.serving.keys import read_keys

        return read_keys(self._top / service.name / KEY_FILE)

    def renew_key(self, service: ServiceInfo, which: KeyName) -> None:
        """See :meth:`trainer.deploy.service.Services.renew_key`."""
        from trainer.serving.keys import make_key, read_keys, write_keys

        path = self._top / service.name / KEY_FILE
        keys = list(read_keys(path))
        keys[KEY_NAMES.index(which) : KEY_NAMES.index(which) + 1] = [make_key()]
        write_keys(path, keys)

    def logs(self, service: ServiceInfo, lines: int) -> str:
        """See :meth:`trainer.deploy.service.Services.logs`."""
        folder = self._top / service.name
        found = control.tail(folder / LOG_FILE, lines)
        if len(found) < lines:
            found = [*control.tail(folder / OLD_LOG_FILE, lines - len(found)), *found]
        return "".join(f"{line}\n" for line in found)

    def delete(self, service: ServiceInfo, tell: Tell) -> bool:
        """See :meth:`trainer.deploy.service.Services.delete`. Requests under way are answered first."""
        with self._held(service.name) as folder:
            known = records.read(folder)
            if known is None:
                remove_tree(folder)
                return False
            self._check_here(known)
            control.end(folder, tell)
            # Gone at once, whatever happens to us while its files are removed.
            doomed = folder.with_name(f".{folder.name}.{os.getpid()}.removed")
            folder.rename(doomed)
            remove_tree(doomed)
        return True

    def _stage(
        self, folder: Path, known: ServiceInfo | None, deployment: Deployment, version: ModelVersion
    ) -> ServiceInfo:
        """Write what the service is made of, and at last its record."""
        from trainer.serving.keys import ensure_keys

        if known is None:
            remove_tree(folder)  # of a deployment that was killed
        revision = 1 if known is None else _wanted(known, folder).revision + 1
        target = revision_folder(folder, revision)
        try:
            remove_tree(target)
            make_directory(target)
            fetch(self._store(), version.reference, target / "model")
            if _has_files(deployment):
                own_files(deployment).stage(target / "source")
            ensure_keys(folder / KEY_FILE, 2)
            wanted = Wanted(
                revision=revision,
                model_name=version.name,
                version=version.version,
                script=None if deployment.script is None else deployment.script.name,
                network=deployment.network.in_folder(Path()),
                host=this_host(),
            )
            now = time.time()
            service = ServiceInfo(
                name=str(deployment.name),
                backend=_NAME,
                kind=_KIND,
                state=TRANSITIONING,
                model=version.reference,
                script=wanted.script,
                network=deployment.network.name,
                created=now if known is None else known.created,
                updated=now,
                detail=msgspec.to_builtins(wanted),
            )
            records.write(folder, service)
        except BaseException:
            remove_tree(target if known is not None else folder)
            raise
        return service

    def _wait(self, folder: Path, wanted: Wanted, begin: int, tell: Tell) -> None:
        """Wait until the service answers with a revision.

        Args:
            folder: The service's.
            wanted: The revision.
            begin: Where in the log what belongs to this deployment begins.
            tell: Is told now and then that it goes on.
        """
        started = time.monotonic()
        told = started
        while True:
            alive = is_locked(folder / PROCESS_LOCK)
            running = read_running(folder)
            if alive and running is not None and running.revision >= wanted.revision:
                return
            if running is not None and running.refused == wanted.revision:
                raise self._failed(folder, begin, tell, f"{running.why} {running.model} stays.")
            if not alive:
                raise self._failed(folder, begin, tell, running.ended if running and running.ended else _DIED)
            now = time.monotonic()
            if now - told > _TELL_SECONDS:
                tell(f"Still loading, for {now - started:.0f} s now.")
                told = now
            time.sleep(control.LOOK_SECONDS)

    def _failed(self, folder: Path, begin: int, tell: Tell, why: str) -> RunFailedError:
        """Tell what the log ends with, and return the error."""
        lines = control.tail(folder / LOG_FILE, _TAIL, begin)
        if lines:
            tell("\n".join(["The log ends with:", *(f"  {line}" for line in lines)]))
        return RunFailedError(
            f"The service {folder.name} could not be brought up: {why}",
            f"Its log: trainer services {folder.name} --log 100    Deploy again: --overwrite    "
            f"Remove it: trainer undeploy {folder.name}",
        )

    def _check_here(self, service: ServiceInfo) -> None:
        host = _wanted(service, self._top / service.name).host
        if not is_here(host):
            raise RefusedError(
                f"The service {service.name} runs on {host.name if host else 'another machine'}, not on this one.",
                "Give the command there.",
            )

    @contextmanager
    def _held(self, name: str) -> Iterator[Path]:
        """The service's folder, while no other client changes it."""
        try:
            make_directory(self._top)
            with locked(self._top / f".{name}.lock"):
                yield self._top / name
        except PermissionError as error:
            raise ConfigError(f"Can't write {self._top}: {error.strerror}.", "Make it writable.") from error


def find_damage(home: Home) -> Iterator[Damage]:
    """Find services whose record can't be read. Where its folder is set aside, a service's process ends."""
    for folder in records.folders(home, _NAME):
        try:
            service = records.read(folder)
            if service is not None:
                _wanted(service, folder)
        except DamagedRecordError as error:
            yield Damage(folder.name, error.message, partial(moved, home, folder))


def _wanted(service: ServiceInfo, folder: Path) -> Wanted:
    return wanted_of(service.detail, folder)


def _has_files(deployment: Deployment) -> bool:
    """Whether files of the user's travel."""
    return deployment.script is not None or deployment.network.where is not None


def _script(deployment: Deployment) -> str:
    return (
        "ours: pixels or pictures in, class and probabilities out"
        if deployment.script is None
        else str(deployment.script)
    )
