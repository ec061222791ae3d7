"""The process of one service on this machine: detached, it serves what its folder says until it is told to stop.

::

    service.json     what is to be served, written by clients; looked at every two seconds
    running.json     what is being served, written by this process
    process          the lock that it holds for as long as it lives, which the kernel frees however it dies
    key              the keys, which only their owner can read
    log.txt          what it and the score script print; log.1.txt, what it printed before
    revisions/N/     model/model.npz and, with a score script or a network of the user's, source/
    work/            what the serving processes need

A new revision is served by new workers before the old ones leave (:mod:`trainer.serving.supervisor`). A process whose
folder has gone ends.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from backends.local_processes import detach
from trainer import recordfile
from trainer.deploy import records
from trainer.errors import DamagedRecordError, RefusedError, TrainerError
from trainer.locks import locked
from trainer.modeluse.building import NOTHING_SAID, NetworkChoice
from trainer.records import Host
from trainer.runtime.atomic import write_bytes
from trainer.runtime.layout import MODEL_FILE
from trainer.trees import remove_tree

if TYPE_CHECKING:
    from trainer.serving.settings import ServeSettings
    from trainer.serving.supervisor import Model, Supervisor

PROCESS_LOCK, KEY_FILE, LOG_FILE, OLD_LOG_FILE = "process", "key", "log.txt", "log.1.txt"
SERVICE_DIR_VARIABLE = "TRAINER_SERVICE_DIR"
"""The service's folder, in the environment of each of its processes."""
_RUNNING_FILE = "running.json"
_LOG_MAX = 16 << 20
# Below what Linux gives to connections by itself (net.ipv4.ip_local_port_range), and above what services are known by.
_PORTS = range(20_000, 30_000)
_TRIED = 20
_STOPPED = "It was stopped by a signal."


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be served; in the record's ``detail``.

    Attributes:
        revision: Rises with every deployment.
        model_name: The model's name.
        version: Its version.
        script: The score script's path in the revision's ``source/``, or None.
        network: How the network is built, of a file in there.
        host: The machine that it runs on.
    """

    revision: int
    model_name: str
    version: int
    script: str | None
    network: NetworkChoice = NOTHING_SAID
    host: Host | None


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What is being served.

    Attributes:
        pid: The supervisor's process id.
        port: The port of 127.0.0.1.
        revision: The revision that answers; 0 before the first one does.
        model: Its model, ``name:version``.
        script: Its score script, or None.
        network: Its network, where that is the user's own, or None.
        refused: The last revision that could not be served, or 0.
        why: Why not.
        ended: Why the process has ended, or an empty text.
    """

    pid: int
    port: int
    revision: int = 0
    model: str = ""
    script: str | None = None
    network: str | None = None
    refused: int = 0
    why: str = ""
    ended: str = ""


_RUNNING = msgspec.json.Decoder(Running)


def read_wanted(folder: Path) -> Wanted | None:
    """Return what is to be served; None if nothing is.

    Raises:
        DamagedRecordError: The record is damaged.
    """
    service = records.read(folder)
    return None if service is None else wanted_of(service.detail, folder)


def wanted_of(detail: dict[str, Any], folder: Path) -> Wanted:
    """Return what a record's detail says; errors as :func:`read_wanted`."""
    try:
        return msgspec.convert(detail, Wanted)
    except msgspec.ValidationError as error:
        raise DamagedRecordError(folder / records.RECORD_FILE, str(error)) from error


def read_running(folder: Path) -> Running | None:
    """Return what the process said last; None if it has said nothing that can be read."""
    try:
        return recordfile.read(folder / _RUNNING_FILE, _RUNNING)
    except (FileNotFoundError, DamagedRecordError):
        return None


def revision_folder(folder: Path, revision: int) -> Path:
    """Return where a revision's model and score script lie."""
    return folder / "revisions" / str(revision)


class _Service:
    """What the process does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        before = read_running(folder)
        self._said = Running(pid=os.getpid(), port=0 if before is None else before.port)
        self._tell()

    def serve(self) -> None:
        """Serve until a signal ends it.

        Raises:
            TrainerError: What is wanted can't be served.
        """
        wanted = read_wanted(self._folder)
        if wanted is None:
            return
        scratch = self._folder / "work"
        remove_tree(scratch)
        scratch.mkdir()
        supervisor = self._supervisor(self._model(wanted), scratch)
        port = int(supervisor.url.rpartition(":")[2])
        self._say(f"Loading {wanted.model_name}:{wanted.version} for {supervisor.url}.")
        self._tell(port=port)
        supervisor.run(lambda about: self._ready(wanted, about))

    def end(self, why: str) -> None:
        """Say why the process ends."""
        self._say(why)
        with suppress(OSError):  # its folder may be gone
            self._tell(ended=why)

    def _supervisor(self, model: Model, scratch: Path) -> Supervisor:
        from trainer.serving.supervisor import Supervisor

        assert model.settings is not None
        for port in _ports(self._said.port):
            settings = msgspec.structs.replace(model.settings, port=port)
            try:
                return Supervisor(settings, model, self._newest, scratch, self._say, self._switched)
            except RefusedError:  # another has it
                continue
        raise RefusedError("No port of 127.0.0.1 is free.", "End what is not needed.")

    def _model(self, wanted: Wanted) -> Model:
        from trainer.serving.models import model_of_copy

        folder = revision_folder(self._folder, wanted.revision)
        source = folder / "source"
        settings = self._settings(
            None if wanted.script is None else source / wanted.script, wanted.network.in_folder(source)
        )
        file = folder / "model" / MODEL_FILE
        return model_of_copy(file, wanted.model_name, wanted.version, wanted.revision, settings)

    def _settings(self, script: Path | None, choice: NetworkChoice) -> ServeSettings:
        from trainer.serving.settings import ServeSettings

        return ServeSettings(
            port=self._said.port,
            script=script,
            network=choice.network,
            model_file=choice.model_file,
            input_shape=choice.input_shape,
            key_file=self._folder / KEY_FILE,
            name=self._folder.name,
        )

    def _newest(self) -> Model:
        self._turn_log()
        wanted = read_wanted(self._folder)
        if wanted is None:
            os.kill(os.getpid(), signal.SIGTERM)
            raise RefusedError("The service's folder is gone.", "")
        return self._model(wanted)

    def _ready(self, wanted: Wanted, about: str) -> None:
        label = f"{wanted.model_name}:{wanted.version}"
        self._say(f"Serving {label} ({about}).")
        self._tell(revision=wanted.revision, model=label, script=wanted.script, network=wanted.network.name)

    def _switched(self, model: Model, why: str) -> None:
        if why:
            self._tell(refused=model.revision, why=why)
            return
        assert model.settings is not None
        script = None if model.settings.script is None else model.settings.script.name
        network = model.settings.choice.name
        self._tell(revision=model.revision, model=model.label, script=script, network=network)
        # The workers that leave may still read their own.
        for old in (self._folder / "revisions").iterdir():
            if old.name.isdecimal() and int(old.name) < model.revision - 1:
                remove_tree(old)

    def _tell(self, **changes: Any) -> None:
        self._said = msgspec.structs.replace(self._said, **changes)
        write_bytes(self._folder / _RUNNING_FILE, msgspec.json.encode(self._said) + b"\n", durable=False)

    def _say(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        sys.stderr.write(f"{stamp}Z {text}\n")
        sys.stderr.flush()

    def _turn_log(self) -> None:
        """Begin the log anew when it has become long. All of the processes append to it, so it can be cut."""
        log = self._folder / LOG_FILE
        with suppress(OSError):
            if log.stat().st_size > _LOG_MAX:
                shutil.copyfile(log, self._folder / OLD_LOG_FILE)
                os.truncate(log, 0)


def _ports(before: int) -> list[int]:
    """The ports to be tried: the one that the service had, and some that no outgoing connection is given.

    One of those that are could be taken by any connection while the service is down.
    """
    some = random.sample(_PORTS, _TRIED)  # no secret
    return [*([before] if before else []), *some, 0]


def main(path: str) -> int:
    """Detach, serve, and return when the service has ended.

    The process that was started ends as soon as the detached one holds the service's lock.

    Returns:
        The exit code.
    """
    announce = detach()
    folder = Path(path)
    with locked(folder / PROCESS_LOCK, blocking=False):
        service = _Service(folder)
        announce()
        try:
            service.serve()
        except TrainerError as error:
            service.end(error.message)
            return error.exit_code
        except Exception as error:  # told, like every end
            service.end(f"{type(error).__name__}: {error}")
            raise
        service.end(_STOPPED)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
