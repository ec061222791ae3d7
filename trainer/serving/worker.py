"""One serving process: forked by the supervisor, it loads the model and answers on the inherited socket.

The event loop runs in the main thread, unless the scorer wants that for itself; then in another.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, NoReturn

import msgspec

from trainer.errors import TrainerError
from trainer.runtime.layout import BLAS_VARIABLES
from trainer.serving.keys import Keys
from trainer.serving.metrics import SharedMetrics
from trainer.serving.scoring import Answer, ModelFiles, Request, Scorer
from trainer.serving.settings import ServeSettings

if TYPE_CHECKING:
    from trainer.serving.app import App
    from trainer.serving.protocol import Server

STOP, RETIRE = b"s", b"r"
_SAMPLE_SECONDS = 5.0


class Report(msgspec.Struct, omit_defaults=True):
    """What a worker tells the supervisor, once: that it is ready, or why it will never be.

    Attributes:
        about: One line about the model, when ready.
        error: What went wrong.
        hint: What to do about it.
    """

    about: str = ""
    error: str = ""
    hint: str = ""


class MainThread:
    """Functions that run in the process's main thread, one after another, for a loop in another thread."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Future[Answer], Callable[[], Answer]] | None] = SimpleQueue()

    def submit(self, function: Callable[[], Answer]) -> Future[Answer]:
        """Have a function run."""
        future: Future[Answer] = Future()
        self._queue.put((future, function))
        return future

    def stop(self) -> None:
        """Let :meth:`run` return when what was submitted before has been run."""
        self._queue.put(None)

    def run(self) -> None:
        """Run what is submitted, until :meth:`stop`."""
        while (item := self._queue.get()) is not None:
            future, function = item
            if not future.set_running_or_notify_cancel():
                continue  # its client has gone
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)


class Worker:
    """What a worker process is made of.

    Args:
        settings: How the model is served.
        open_model: Brings the model onto this machine.
        app_folder: The folder that a score script finds itself in.
        listener: The listening socket.
        control: The supervisor's end is told :class:`Report`, and sends ``STOP`` or ``RETIRE``.
        shared: What all workers count.
        row: Which row is this one's.
        early: Accept connections before the model is loaded, and say that it is not.
    """

    def __init__(
        self,
        settings: ServeSettings,
        open_model: Callable[[], ModelFiles],
        app_folder: Path,
        listener: socket.socket,
        control: socket.socket,
        shared: SharedMetrics,
        row: int,
        *,
        early: bool,
    ) -> None:
        self._settings = settings
        self._open_model = open_model
        self._app_folder = app_folder
        self._listener = listener
        self._control = control
        self._shared = shared
        self._row = shared.row(row)
        self._early = early
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main = MainThread()
        self._server: Server | None = None
        self._stopping = threading.Event()

    def run(self) -> NoReturn:
        """Serve, then end the process; never returns to the code that it was forked from."""
        code = 1
        try:
            _own_signals(self._stop)
            _limit_threads()
            code = self._serve()
        except BaseException:
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            # Not exit(): what the supervisor has registered to be done at its exit is not this process's to do.
            os._exit(code)

    def _serve(self) -> int:
        # Before the HTTP server is imported: what can be wrong is mostly the model, and is said sooner.
        from trainer.serving.app import App

        app = App(self._settings, Keys(self._settings.key_file), self._shared, self._row)
        early = threading.Thread(target=self._run_loop, args=[app], name="http")
        if self._early:
            early.start()
        try:
            files = self._open_model()
            scorer = _make_scorer(files, self._settings, self._app_folder)
            scorer.load()
        except TrainerError as error:
            return self._fail(early, error)
        except Exception as error:
            traceback.print_exc()
            return self._fail(early, TrainerError(f"The model can't be served: {type(error).__name__}: {error}."))
        self._open(app, scorer, files)
        if scorer.in_main_thread:
            if not self._early:
                early.start()
            self._main.run()
            early.join()
        elif self._early:
            early.join()
        else:
            self._run_loop(app)
        return 0

    def _open(self, app: App, scorer: Scorer, files: ModelFiles) -> None:
        labels = {"name": files.name, "version": str(files.version or ""), "label": files.label}
        app.open(scorer, self._in_main_thread(scorer) if scorer.in_main_thread else _at_once(scorer), labels)
        self._tell(Report(about=scorer.about))

    def _in_main_thread(self, scorer: Scorer) -> Callable[[Request], Awaitable[Answer]]:
        async def score(request: Request) -> Answer:
            return await asyncio.wrap_future(self._main.submit(lambda: scorer.score(request)))

        return score

    def _fail(self, early: threading.Thread, error: TrainerError) -> int:
        self._tell(Report(error=error.message, hint=error.hint))
        self._stop()
        if early.is_alive():
            early.join()
        return 3

    def _tell(self, report: Report) -> None:
        self._control.sendall(msgspec.json.encode(report) + b"\n")

    def _stop(self) -> None:
        """End gracefully, from any thread and from a signal handler."""
        self._stopping.set()
        if self._server is not None:
            self._server.should_exit = True

    def _run_loop(self, app: App) -> None:
        from trainer.serving.direct import direct_protocol
        from trainer.serving.protocol import make_server

        # Its complaints about clients' requests are answers with status 400, and no news to the log.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        protocol = direct_protocol(app, self._settings.body_max, self._settings.body_seconds)
        self._server = make_server(app, self._settings, protocol)
        if self._stopping.is_set():
            self._server.should_exit = True
        try:
            asyncio.run(self._served(app, self._server))
        finally:
            self._main.stop()

    async def _served(self, app: App, server: Server) -> None:
        loop = asyncio.get_running_loop()
        self._control.setblocking(False)
        retiring: set[asyncio.Task[None]] = set()

        def drained() -> None:
            app.draining = True

        def told() -> None:
            try:
                word = self._control.recv(1)
            except BlockingIOError:
                return
            if word == RETIRE:
                retiring.add(loop.create_task(server.retire(drained)))
                return
            loop.remove_reader(self._control)  # at its end a socket is readable for ever
            server.should_exit = True  # STOP, or the supervisor has died

        def sample() -> None:
            self._row.sample()
            loop.call_later(_SAMPLE_SECONDS, sample)

        loop.add_reader(self._control, told)
        sample()
        await server.serve(sockets=[self._listener])


def _at_once(scorer: Scorer) -> Callable[[Request], Awaitable[Answer]]:
    async def score(request: Request) -> Answer:
        return scorer.score(request)

    return score


def _make_scorer(files: ModelFiles, settings: ServeSettings, app_folder: Path) -> Scorer:
    if settings.script is not None:
        from trainer.serving.script import ScriptScorer

        return ScriptScorer(files, settings.script, settings.app_root or app_folder, settings.name)
    from trainer.serving.network import network_scorer

    return network_scorer(files, settings.choice)


def _own_signals(stop: Callable[[], None]) -> None:
    signal.set_wakeup_fd(-1)
    # A terminal's Ctrl-C reaches every process; the supervisor alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop())


def _limit_threads() -> None:
    """Give NumPy's products one thread, before it is imported, unless the user has set a number.

    The network's own are too small for a second one to pay, and on a machine that does other work as well threads that
    wait for each other made a score script five times slower. Workers are what uses more cores.
    """
    if not any(name in os.environ for name in BLAS_VARIABLES):
        os.environ.update(dict.fromkeys(BLAS_VARIABLES, "1"))
