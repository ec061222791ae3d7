"""What stands before a scoring server, as in Azure: the port, the keys, the probe. One process per started service.

``python -I front.py SPEC``, started by the supervisor of the service's processes, so it outlives the emulator. It
starts the scoring server, which listens on a Unix socket in a private directory, waits until that is ready, and only
then listens on 127.0.0.1 and writes down on which port. Keys are read again whenever their file changes, so an old one
is dead at once.

It ends by itself when nobody has asked anything for a while, when it is told to retire (a file appears: what is under
way is finished first), and when the directory of its service is gone.

Imports nothing of the package: it is started by its path.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hmac
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import h11
import uvicorn

HOST = "127.0.0.1"
FAILED = 3
"""Exit code of a server that has never been ready."""
DIED = 1
PROBE_INTERVAL = 0.1
WATCH_INTERVAL = 0.1
DRAIN_SECONDS = 30
MAX_DISCARDED = 16 << 20
"""Bytes of a refused request's body that are read, so that its client sees the answer."""
PR_SET_PDEATHSIG = 1
_OWN_SITES = (b"none", b"same-origin")
# These are between two neighbours, and not to be passed on (RFC 9110, 7.6.1).
_HOP = (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade", b"expect")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Refused(Exception):  # noqa: N818 - an answer, not a failure
    """A request that the scoring server does not get to see."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Door:
    """Who may ask.

    The file says ``{"needed": bool, "accepted": [[value, end], ...]}``; an end is POSIX time, or null for none.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._needed = True
        self._accepted: list[tuple[bytes, float | None]] = []

    def check(self, authorization: bytes) -> None:
        """See that a request carries a key or a token that is good now.

        Raises:
            Refused: 401.
        """
        self._read()
        if not self._needed:
            return
        scheme, _, given = authorization.partition(b" ")
        found = given.strip()
        now = time.time()
        good = [hmac.compare_digest(found, value) and (end is None or end > now) for value, end in self._accepted]
        if scheme.lower() != b"bearer" or not any(good):
            raise Refused(401, "A valid key or token is needed: Authorization: Bearer KEY")

    def _read(self) -> None:
        try:
            found = self._path.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
            if seen == self._seen:
                return
            content = json.loads(self._path.read_bytes())
            self._needed = bool(content["needed"])
            self._accepted = [(str(value).encode(), end) for value, end in content["accepted"]]
            self._seen = seen
        except (OSError, ValueError, KeyError, TypeError):
            # A file that can't be read lets nobody in.
            self._needed, self._accepted, self._seen = True, [], None


class _Server(uvicorn.Server):
    """Takes its status back when it accepts no more connections: then its successor has all that come."""

    def __init__(self, config: uvicorn.Config, status: Path) -> None:
        super().__init__(config)
        self._status = status

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, say so, and finish what is under way."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        self._status.unlink(missing_ok=True)
        await super().shutdown(sockets)


class Front:
    """The front of one scoring server.

    Args:
        spec: ``command`` and ``socket`` of the scoring server, ``auth``, ``retire`` and ``asked`` (files to watch:
            who may ask; appears when the end has come; touched when somebody is about to ask), ``status`` (a file to
            write), ``port`` (the wanted one, or 0), ``takes_over`` (whether that port's holder is this
            service's predecessor), ``idle`` (seconds, or null), ``delay`` (seconds before the start), ``never``
            (whether it is never to be ready).
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._door = Door(Path(spec["auth"]))
        self._port = 0
        self._active = 0
        self._last = time.monotonic()
        self._code = 0

    async def run(self) -> int:
        """Serve until the end; gives the exit code."""
        if self._spec["delay"]:
            await asyncio.sleep(self._spec["delay"])
        server = await asyncio.create_subprocess_exec(
            *self._spec["command"], stdin=asyncio.subprocess.DEVNULL, preexec_fn=_end_with_parent
        )
        end = asyncio.create_task(server.wait())
        while self._spec["never"] or not await self._is_ready():
            if end.done():
                _say(f"The scoring server ended with exit code {end.result()} before it was ready.")
                return FAILED
            if not self._is_wanted():
                return 0
            await asyncio.sleep(PROBE_INTERVAL)
        listener = _listen(int(self._spec["port"]), takes_over=bool(self._spec["takes_over"]))
        self._port = listener.getsockname()[1]
        self._last = time.monotonic()
        config = uvicorn.Config(
            self._serve,
            log_config=None,
            access_log=False,
            proxy_headers=False,
            http="h11",
            ws="none",
            lifespan="off",
            interface="asgi3",
            server_header=False,
            date_header=False,
            h11_max_incomplete_event_size=64 << 10,
            limit_concurrency=1000,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        front = _Server(config, Path(self._spec["status"]))
        watch = asyncio.create_task(self._watch(end, front))
        self._write_status()
        await front.serve(sockets=[listener])
        watch.cancel()
        return self._code

    def _is_wanted(self) -> bool:
        return Path(self._spec["auth"]).exists() and not Path(self._spec["retire"]).exists()

    async def _watch(self, end: asyncio.Task[int], front: uvicorn.Server) -> None:
        while not front.should_exit:
            await asyncio.sleep(WATCH_INTERVAL)
            if end.done():
                _say(f"The scoring server has ended with exit code {end.result()}.")
                self._code = DIED
                front.should_exit = True
            elif not self._is_wanted():
                front.should_exit = True
            elif self._is_idle():
                # Whoever is about to ask says so first, and then looks for the status: one of the two sees the other.
                Path(self._spec["status"]).unlink(missing_ok=True)
                if self._is_idle():
                    _say(f"Nobody has asked anything for {self._spec['idle']:g} seconds.")
                    front.should_exit = True
                else:
                    self._write_status()

    def _is_idle(self) -> bool:
        idle = self._spec["idle"]
        if idle is None or self._active or time.monotonic() - self._last < idle:
            return False
        try:
            return bool(time.time() - Path(self._spec["asked"]).stat().st_mtime >= idle)
        except FileNotFoundError:
            return True

    def _write_status(self) -> None:
        _write(Path(self._spec["status"]), {"port": self._port, "pid": os.getpid()})

    async def _is_ready(self) -> bool:
        """Ask the scoring server: at /ready, or, where it has no such thing, at /, as Azure's probe does."""
        try:
            async with asyncio.timeout(5):
                status = await self._probe(b"/ready")
                return status == 200 or (status == 404 and await self._probe(b"/") == 200)
        except (OSError, TimeoutError, h11.ProtocolError):
            return False

    async def _probe(self, target: bytes) -> int:
        async with self._connected() as (reader, writer):
            connection = h11.Connection(h11.CLIENT)
            headers = [(b"host", HOST.encode()), (b"connection", b"close")]
            writer.write(connection.send(h11.Request(method=b"GET", target=target, headers=headers)) or b"")
            writer.write(connection.send(h11.EndOfMessage()) or b"")
            while True:
                event = await _next_event(connection, reader)
                if isinstance(event, h11.Response):
                    return int(event.status_code)
                if isinstance(event, h11.ConnectionClosed):
                    return 0

    @contextlib.asynccontextmanager
    async def _connected(self) -> Any:  # noqa: ANN401 - an iterator of a pair of streams
        reader, writer = await asyncio.open_unix_connection(self._spec["socket"])
        try:
            yield reader, writer
        finally:
            writer.close()

    # Requests

    async def _serve(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request: the ASGI application."""
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        is_probe = scope["path"] == "/" and scope["method"] in ("GET", "HEAD")
        try:
            self._check_sender(scope)
            if not is_probe:
                self._door.check(headers.get(b"authorization", b""))
                self._last = time.monotonic()
        except Refused as refused:
            await _discard(receive)
            await _answer(send, refused.status, refused.message)
            return
        self._active += 1
        try:
            await self._forward(scope, receive, send)
        finally:
            self._active -= 1
            if not is_probe:
                self._last = time.monotonic()

    def _check_sender(self, scope: Message) -> None:
        """Refuse another site's page that uses the browser of someone who may connect.

        Raises:
            Refused: 403.
        """
        hosts = {f"{name}:{self._port}".encode() for name in (HOST, "localhost")}
        origins = {b"http://" + host for host in hosts}
        for name, value in scope["headers"]:
            given = value.lower()
            if (
                (name == b"host" and given not in hosts)
                or (name == b"origin" and given not in origins)
                or (name == b"sec-fetch-site" and given not in _OWN_SITES)
            ):
                raise Refused(403, "The service is for programs of this machine.")

    async def _forward(self, scope: Message, receive: Receive, send: Send) -> None:
        started = False
        sending: asyncio.Task[bool] | None = None
        try:
            async with self._connected() as (reader, writer):
                connection = h11.Connection(h11.CLIENT)
                # At the same time, for a server may answer, and close, before it has read everything.
                sending = asyncio.create_task(_send_request(connection, writer, scope, receive))
                while True:
                    event = await _next_event(connection, reader)
                    if isinstance(event, h11.Response):
                        kept = [(name, value) for name, value in event.headers if name not in _HOP]
                        await send({"type": "http.response.start", "status": event.status_code, "headers": kept})
                        started = True
                    elif isinstance(event, h11.Data):
                        await send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
                    elif isinstance(event, h11.EndOfMessage):
                        await send({"type": "http.response.body", "body": b""})
                        return
                    elif isinstance(event, h11.ConnectionClosed):
                        raise ConnectionResetError("it closed the connection")
        except (OSError, h11.ProtocolError) as error:
            if sending is not None and sending.done() and sending.result() is False:
                return
            _say(f"The scoring server gave no whole answer: {error}")
            if started:
                raise
            await _answer(send, 502, "The scoring server gave no answer.")
        finally:
            if sending is not None:
                sending.cancel()


async def _send_request(
    connection: h11.Connection, writer: asyncio.StreamWriter, scope: Message, receive: Receive
) -> bool:
    """Pass a request on; false, and the connection closed, if its client goes away before it is whole."""
    headers = [(name, value) for name, value in scope["headers"] if name not in _HOP]
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    request = h11.Request(method=scope["method"].encode(), target=target, headers=[*headers, (b"connection", b"close")])
    # Where the server does not read on, its answer is what counts.
    with contextlib.suppress(ConnectionError, h11.LocalProtocolError):
        writer.write(connection.send(request) or b"")
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                writer.close()
                return False
            if message.get("body"):
                writer.write(connection.send(h11.Data(data=message["body"])) or b"")
                await writer.drain()
            more = bool(message.get("more_body"))
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        await writer.drain()
    return True


async def _next_event(connection: h11.Connection, reader: asyncio.StreamReader) -> Any:  # noqa: ANN401 - of h11
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(64 << 10))
        elif event is h11.PAUSED:
            return h11.ConnectionClosed()
        elif not isinstance(event, h11.InformationalResponse):
            return event


async def _discard(receive: Receive) -> None:
    size, more = 0, True
    while more and size <= MAX_DISCARDED:
        message = await receive()
        size += len(message.get("body", b""))
        more = bool(message.get("more_body"))


async def _answer(send: Send, status: int, message: str) -> None:
    body = json.dumps({"message": message}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _listen(port: int, *, takes_over: bool) -> socket.socket:
    """Return the listening socket: on the wanted port if nobody but a predecessor has it, else on any.

    A service keeps its address from one start to the next, and while it is replaced both listen there: the kernel
    deals connections out to all that have asked to share the port (SO_REUSEPORT), which must belong to one user. A
    port that another service has got meanwhile is not shared with that.
    """
    wanted = port if port and (takes_over or _is_free(port)) else 0
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((HOST, wanted))
    except OSError:
        listener.bind((HOST, 0))
    listener.listen(256)
    return listener


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _write(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content))
    partial.replace(path)


def _end_with_parent() -> None:
    """Have this process end when its parent has: a supervisor that was killed leaves nobody to stop it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    _end_with_parent()
    sys.exit(asyncio.run(Front(json.loads(Path(sys.argv[1]).read_text())).run()))
