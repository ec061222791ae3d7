"""The process behind ``trainer serve``: it holds the listening socket, keeps the workers, follows the registry.

A new version is taken by starting new workers beside the old ones. When all of them are ready the old ones stop
accepting connections and answer what they have (:meth:`trainer.serving.protocol.Server.retire`). As every worker
accepts on the same socket, no connection is ever refused. If the new version can't be served, the old one stays.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

import msgspec

from trainer.errors import ConfigError, RefusedError, TrainerError
from trainer.serving.metrics import SharedMetrics
from trainer.serving.scoring import ModelFiles
from trainer.serving.settings import ServeSettings
from trainer.serving.worker import RETIRE, STOP, Report, Worker

_REPORT_MAX = 1 << 16
_POLL_SECONDS = 2.0
# Before the next start of a worker; the first is at once.
_RESTART_SECONDS = (1.0, 2.0, 5.0, 15.0, 30.0)


class Model(msgspec.Struct, frozen=True):
    """A version that can be served.

    Attributes:
        label: ``name:version``, or a file's path.
        open: Brings it into a folder and says where it is; called in the workers.
        revision: Tells it from another with the same label that is served in another way.
        settings: How it is served, where that is not as the supervisor was told; address, keys, number of workers and
            limits are the supervisor's all the same.
    """

    label: str
    open: Callable[[Path], ModelFiles]
    revision: int = 0
    settings: ServeSettings | None = None

    def is_same(self, other: Model | None) -> bool:
        """Whether serving the other one would change nothing."""
        return other is not None and (self.label, self.revision) == (other.label, other.revision)


class _Process:
    """A worker as its supervisor sees it."""

    def __init__(self, model: Model, pid: int, control: socket.socket, row: int, folder: Path) -> None:
        self.model, self.pid, self.control, self.row, self.folder = model, pid, control, row, folder
        self.report: Report | None = None
        self.leaving = False
        self._heard = b""

    @property
    def ready(self) -> bool:
        return self.report is not None and not self.report.error and not self.leaving

    def listen(self) -> bool:
        """Take what it says; false when it has ended."""
        try:
            said = self.control.recv(_REPORT_MAX)
        except BlockingIOError:
            return True
        except ConnectionError:
            said = b""
        self._heard += said
        if b"\n" in self._heard and self.report is None:
            self.report = msgspec.json.decode(self._heard.partition(b"\n")[0], type=Report)
        return bool(said)

    def tell(self, word: bytes) -> None:
        self.leaving = True
        with suppress(OSError):
            self.control.send(word)


class Supervisor:
    """Serves a model until it is told to stop.

    Args:
        settings: How.
        model: What to begin with.
        newest: Gives the version to be served now; None where the version is fixed.
        scratch: A folder of its own, for the workers' files.
        say: Is told what happens, a line at a time.
        switched: Is told of a version that was to take over, and why it did not; empty if it did.
    """

    def __init__(
        self,
        settings: ServeSettings,
        model: Model,
        newest: Callable[[], Model] | None,
        scratch: Path,
        say: Callable[[str], None],
        switched: Callable[[Model, str], None] = lambda _model, _why: None,
    ) -> None:
        self._settings = settings
        self._model = model
        self._newest = newest
        self._scratch = scratch
        self._say = say
        self._switched = switched
        self._shared = SharedMetrics(2 * settings.workers + 2)
        self._processes: list[_Process] = []
        self._selector = selectors.DefaultSelector()
        self._stop_at = 0.0
        self._failures = 0
        self._restart_at = 0.0
        self._refused: Model | None = None
        self._unknown = ""
        self._coming: Model | None = None
        self._generation = 0
        self._listener = _listen(settings)

    @property
    def url(self) -> str:
        """Where the service is."""
        if self._settings.socket is not None:
            return f"unix:{self._settings.socket}"
        host, port = self._listener.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def run(self, ready: Callable[[str], None]) -> None:
        """Serve.

        Args:
            ready: Is told, once, the line about the model when it can be used.

        Raises:
            TrainerError: The model can't be served.
        """
        waker, wake = socket.socketpair()
        for end in (waker, wake):
            end.setblocking(False)
        self._selector.register(wake, selectors.EVENT_READ)
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        wakeup = signal.set_wakeup_fd(waker.fileno())
        try:
            self._start(self._model)
            self._until_ready(ready, wake)
            self._keep(wake)
        finally:
            self._end(wake)
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            for end in (waker, wake, self._listener):
                end.close()
            self._selector.close()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop_at = self._stop_at or time.monotonic()

    def _until_ready(self, ready: Callable[[str], None], wake: socket.socket) -> None:
        while not self._stop_at:
            self._wait(wake, None)
            for process in self._processes:
                if process.report is not None and process.report.error:
                    raise ConfigError(process.report.error, process.report.hint)
            if len(self._processes) < self._settings.workers:
                raise ConfigError("A worker ended before it was ready.", "What it printed is above.")
            if all(process.ready for process in self._processes):
                assert self._processes[0].report is not None
                ready(self._processes[0].report.about)
                return

    def _keep(self, wake: socket.socket) -> None:
        look_at = time.monotonic() + _POLL_SECONDS
        while not self._stop_at:
            now = time.monotonic()
            if self._newest is not None and now >= look_at:
                self._follow()
                look_at = now + _POLL_SECONDS
            self._switch()
            self._replace_dead()
            self._wait(wake, 0.2 if self._coming or self._restart_at > now else _POLL_SECONDS)

    def _follow(self) -> None:
        """Look for a newer version, and start workers for it."""
        assert self._newest is not None
        if self._coming is not None:
            return
        try:
            newest = self._newest()
        except TrainerError as error:
            # Deleted, or being written: what is served goes on.
            if self._unknown != error.message:
                self._say(f"{error.message} {self._model.label} stays.")
                self._unknown = error.message
            return
        if not (newest.is_same(self._model) or newest.is_same(self._refused)):
            self._say(f"{newest.label} is there; loading it beside {self._model.label}.")
            self._coming = newest
            self._start(newest)

    def _switch(self) -> None:
        """Let a new version take over when it is ready, or give it up."""
        coming = self._coming
        if coming is None:
            return
        new = [process for process in self._processes if process.model is coming]
        failed = [process for process in new if process.report is not None and process.report.error]
        if failed or len(new) < self._settings.workers:
            why = f" {failed[0].report.error}" if failed and failed[0].report else ""
            self._say(f"{coming.label} can't be served.{why} {self._model.label} stays.")
            for process in new:
                process.tell(STOP)
            self._coming, self._refused = None, coming
            self._switched(coming, why.strip() or "A worker ended before it was ready.")
        elif all(process.ready for process in new):
            for process in self._processes:
                if process.model is not coming and not process.leaving:
                    process.tell(RETIRE)
            self._model, self._coming = coming, None
            self._say(f"Serving {coming.label}.")
            self._switched(coming, "")

    def _replace_dead(self) -> None:
        """Start a worker for each that has died; later and later while they go on dying."""
        now = time.monotonic()
        serving = [process for process in self._processes if process.model is self._model and not process.leaving]
        missing = self._settings.workers - len(serving)
        if missing and now >= self._restart_at:
            self._restart_at = now + _RESTART_SECONDS[min(self._failures, len(_RESTART_SECONDS) - 1)]
            self._failures += 1
            self._start(self._model, missing)
        elif not missing and now > self._restart_at + _RESTART_SECONDS[-1]:
            self._failures = 0

    def _start(self, model: Model, count: int | None = None) -> None:
        # With nobody else to accept, a worker says itself that it is not ready.
        early = not any(process.ready for process in self._processes)
        self._generation += 1
        folder = self._scratch / f"app-{self._generation}"
        folder.mkdir()
        for _ in range(self._settings.workers if count is None else count):
            self._fork(model, folder, early=early)

    def _fork(self, model: Model, folder: Path, *, early: bool) -> None:
        ours, theirs = socket.socketpair()
        taken = {process.row for process in self._processes}
        row = next(number for number in range(self._shared.rows) if number not in taken)
        worker = Worker(
            model.settings or self._settings,
            lambda: model.open(folder),
            folder,
            self._listener,
            theirs,
            self._shared,
            row,
            early=early,
        )
        pid = os.fork()
        if pid == 0:
            ours.close()
            for process in self._processes:
                process.control.close()
            self._selector.close()
            worker.run()
        theirs.close()
        ours.setblocking(False)
        process = _Process(model, pid, ours, row, folder)
        self._processes.append(process)
        self._selector.register(ours, selectors.EVENT_READ, process)

    def _wait(self, wake: socket.socket, seconds: float | None) -> None:
        """Wait for something to happen, and take note of it."""
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                with suppress(BlockingIOError):
                    wake.recv(4096)
                continue
            process: _Process = key.data
            if not process.listen():
                self._reap(process)

    def _reap(self, process: _Process) -> None:
        """Take leave of a worker that has closed its end."""
        self._selector.unregister(process.control)
        process.control.close()
        _, status = os.waitpid(process.pid, 0)
        self._processes.remove(process)
        self._shared.release(process.row)
        if not any(other.folder == process.folder for other in self._processes):
            shutil.rmtree(process.folder, ignore_errors=True)
        if process.leaving or self._stop_at or process.model is not self._model:
            return
        if process.report is not None and process.report.error:
            self._say(f"A worker of {process.model.label} did not start: {process.report.error}")
        else:
            code = os.waitstatus_to_exitcode(status)
            end = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            self._say(f"A worker of {process.model.label} ended {end}.")

    def _end(self, wake: socket.socket) -> None:
        """Have all workers finish what they have, and kill those that don't."""
        for process in self._processes:
            process.tell(STOP)
        deadline = time.monotonic() + self._settings.drain_seconds + 2
        while self._processes and time.monotonic() < deadline:
            self._wait(wake, 0.5)
        for process in list(self._processes):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            self._reap(process)


def _listen(settings: ServeSettings) -> socket.socket:
    """Return the listening socket.

    Raises:
        ConfigError: The address is unusable.
        RefusedError: The port is taken.
    """
    if settings.socket is not None:
        return _listen_here(settings.socket)
    listener: socket.socket | None = None
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, number)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
        listener.setblocking(False)
    except OSError as error:
        if listener is not None:
            listener.close()
        if isinstance(error, PermissionError) or "in use" in str(error):
            raise RefusedError(
                f"Port {settings.port} of {settings.host} can't be had: {error.strerror}.",
                "Take another: --port N; 0 takes a free one.",
            ) from error
        raise ConfigError(
            f"Can't listen on {settings.host}:{settings.port}: {error.strerror}.",
            "Give an address of this machine: --host",
        ) from error
    return listener


def _listen_here(path: Path) -> socket.socket:
    """Return a socket that listens at a path, where one that has ended may have left its name."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(1024)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigError(f"Can't listen at {path}: {error.strerror or error}.", "Give a short path.") from error
    return listener
