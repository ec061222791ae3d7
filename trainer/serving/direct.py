"""The short way of a small request: scored where its last byte is read, and answered with one write.

uvicorn makes a task for each request, wakes it when the body is there, and writes head and body of the answer apart.
Where scoring takes microseconds and waits for nothing, the rounds of the event loop and the system calls that this
takes were a third of a request's processor time. So a ``POST /score`` with a short body is answered from within the
parser's callback. Anything else about a request (a pipeline, a client that reads too slowly, headers that need care, a
key that is not accepted) sends it the ordinary way, through :class:`trainer.serving.app.App` as an ASGI application.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from trainer.serving.app import App, media_type
from trainer.serving.protocol import CONNECTIONS_MAX, GuardedProtocol
from trainer.serving.scoring import Request


class _NoEvent:
    """Nobody waits for a part of the body."""

    def set(self) -> None:
        pass


class _Cycle:
    """A request on the short way, by the names that uvicorn's protocol asks for of a request under way."""

    message_event = _NoEvent()

    def __init__(self, headers: dict[bytes, bytes], *, keep_alive: bool) -> None:
        self.headers = headers
        self.begun = time.perf_counter()
        self.body = bytearray()
        self.more_body = True
        self.response_complete = False
        self.disconnected = False
        self.keep_alive = keep_alive


class DirectProtocol(GuardedProtocol):
    """A connection that answers short requests to ``/score`` at once."""

    direct_app: App
    body_max = 0
    body_seconds = 30.0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._body_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Take what came, and time a body that is not there yet."""
        super().data_received(data)
        cycle: Any = self.cycle
        if type(cycle) is _Cycle and not cycle.response_complete and self._body_timer is None:
            self._body_timer = self.loop.call_later(self.body_seconds, self._late)

    def take(self) -> bool:
        """Return whether a request whose head is whole goes the short way; then it is under way."""
        parser, cycle = self.parser, self.cycle
        if (
            self.url != b"/score"
            or parser.get_method() != b"POST"
            or parser.get_http_version() != "1.1"
            or parser.should_upgrade()
            or self.expect_100_continue
            or self.flow.write_paused
            or (cycle is not None and not cycle.response_complete)
            or self.transport.is_closing()
            or len(self.connections) >= CONNECTIONS_MAX
            or len(self.tasks) >= CONNECTIONS_MAX
        ):
            return False
        headers = dict(self.headers)
        length = headers.get(b"content-length", b"")
        # int() takes more than digits; the parser has refused what is no length, and two that differ.
        if not length.isdigit() or len(length) > 6 or int(length) > self.body_max:
            return False
        if not self.direct_app.takes(headers):
            return False
        made: Any = _Cycle(headers, keep_alive=parser.should_keep_alive())
        self.cycle = made
        return True

    def on_message_complete(self) -> None:
        """Answer, where the body was all that was waited for."""
        super().on_message_complete()
        cycle: Any = self.cycle
        if type(cycle) is _Cycle and not cycle.response_complete:
            request = Request("POST", "", bytes(cycle.body), media_type(cycle.headers), self.headers)
            self._reply(cycle, request)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of a client that has gone."""
        self._stop_body_timer()
        cycle: Any = self.cycle
        if type(cycle) is _Cycle and not cycle.response_complete:
            self.direct_app.gone(cycle.begun)
        super().connection_lost(exc)

    def _late(self) -> None:
        self._body_timer = None
        cycle: Any = self.cycle
        if type(cycle) is _Cycle and not cycle.response_complete:
            self._reply(cycle, None)

    def _reply(self, cycle: _Cycle, request: Request | None) -> None:
        self._stop_body_timer()
        status, headers, body = self.direct_app.reply(request, cycle.begun)
        parts = [STATUS_LINE[status]]
        keep_alive = cycle.keep_alive
        for name, value in (*self.server_state.default_headers, *headers):
            parts += (name, b": ", value, b"\r\n")
            if name == b"connection":  # it can only be told to close
                keep_alive = False
        if not cycle.keep_alive and (b"connection", b"close") not in headers:
            parts.append(b"connection: close\r\n")
        parts += (b"\r\n", body)
        cycle.response_complete = True
        self.transport.write(b"".join(parts))
        if not keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _stop_body_timer(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None


def direct_protocol(app: App, body_max: int, body_seconds: float) -> type[DirectProtocol]:
    """Return the protocol of a server.

    Args:
        app: Answers.
        body_max: Bytes of a request's body; longer ones than uvicorn reads at once go the ordinary way.
        body_seconds: Time for a client to send its head, and again its body.
    """
    members = {
        "direct_app": app,
        "body_max": min(body_max, HIGH_WATER_LIMIT),
        "head_seconds": body_seconds,
        "body_seconds": body_seconds,
    }
    return type("_Protocol", (DirectProtocol,), members)
