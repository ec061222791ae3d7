"""uvicorn, with bounds on what a client may do before its request reaches the application, and a way to retire.

uvicorn with httptools bounds neither the size of a request's head nor the time that a client takes for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from trainer.serving.settings import ServeSettings

HEAD_MAX = 64 << 10
CONNECTIONS_MAX = 1000
_KEEP_ALIVE_SECONDS = 5
_ACCEPTED_SECONDS = 0.2
# A retiring worker waits so long for connections that are idle: longer than any is kept.
_RETIRE_SECONDS = _KEEP_ALIVE_SECONDS + 5.0


class GuardedProtocol(HttpToolsProtocol):
    """A connection whose client must send its head whole within a time and a size."""

    head_seconds = 30.0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._in_head = True
        self._begun = False
        self._head_size = 0
        self._ends = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock: a client that sends nothing must not keep a connection."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(self.head_seconds, self._end)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count and time what comes before a request's body."""
        ends = self._ends
        super().data_received(data)
        # Unless a head or a body ended in these bytes: then only the few that follow it belong to a head.
        if not self._in_head:
            return
        if self._head_timer is None and (self._ends == ends or self._begun):
            self._head_timer = self.loop.call_later(self.head_seconds, self._end)
        if self._ends == ends:
            self._head_size += len(data)
            if self._head_size > HEAD_MAX and not self.transport.is_closing():
                self.transport.write(
                    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                )
                self.transport.close()

    def on_message_begin(self) -> None:
        """A head has begun."""
        self._begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = self._begun = False
        self._head_size = 0
        self._ends += 1
        self._stop_timer()
        if not self.take():
            super().on_headers_complete()

    def take(self) -> bool:
        """Return whether a request whose head is whole is dealt with here, and not by uvicorn."""
        return False

    def on_message_complete(self) -> None:
        """What comes next is another head."""
        super().on_message_complete()
        self._in_head = True
        self._ends += 1

    def _end(self) -> None:
        self._head_timer = None
        if self._in_head and not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class Server(uvicorn.Server):
    """uvicorn's server without its signal handlers, which the worker has its own of."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    async def retire(self, drained: Callable[[], None]) -> None:
        """Accept no more connections, answer what comes on those that are open, and end when they are closed.

        A client that holds a connection open learns from ``Connection: close`` on its next answer that it must
        make a new one, which another worker accepts; so none of its requests is lost.

        Args:
            drained: Called first; from then on answers say ``Connection: close``.
        """
        drained()
        loop = asyncio.get_running_loop()
        for server in self.servers:
            for listener in server.sockets:
                loop.remove_reader(listener.fileno())
        # What was accepted in this round of the loop becomes a connection of the server's in the next ones; closed
        # before, the server would drop it.
        await asyncio.sleep(_ACCEPTED_SECONDS)
        for server in self.servers:
            server.close()
        end = time.monotonic() + _RETIRE_SECONDS
        while self.server_state.connections and time.monotonic() < end:
            await asyncio.sleep(0.05)
        self.should_exit = True


def make_server(app: Any, settings: ServeSettings, protocol: type[GuardedProtocol]) -> Server:  # noqa: ANN401
    """Return a server for an ASGI application, to be run on a listening socket.

    Args:
        app: The application.
        settings: Limits.
        protocol: Of its connections.
    """
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS_MAX,
        backlog=1024,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(settings.drain_seconds),
    )
    return Server(config)
