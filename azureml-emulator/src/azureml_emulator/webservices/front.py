"""What stands before a scoring server, as in Azure: the port, the keys, the probe. One process per started service.

``python -I -m azureml_emulator.webservices.front SPEC``, started by the supervisor of the service's processes, so it
outlives the emulator. It starts the scoring server, which listens on a Unix socket in a private directory, waits until
that is ready, and only then listens on 127.0.0.1 and writes down on which port. Keys are read again whenever their file
changes, so an old one is dead at once.

It ends by itself when nobody has asked anything for a while, when it is told to retire (a file appears: what is under
way is finished first), and when the directory of its service is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import h11
import uvicorn

from azureml_emulator.webservices.door import Door, Refused
from azureml_emulator.webservices.relay import HOP, Message, Receive, Send, answer, discard, next_event, send_request

HOST = "127.0.0.1"
FAILED = 3
"""Exit code of a server that has never been ready."""
DIED = 1
HANDOVER_SECONDS = 5.0
PROBE_INTERVAL = 0.1
WATCH_INTERVAL = 0.1
DRAIN_SECONDS = 30
KEEP_ALIVE_SECONDS = 5
LOG_MAX = 16 << 20
"""Bytes of a container's log, of which the later half is kept when there are more."""
PR_SET_PDEATHSIG = 1
_OWN_SITES = (b"none", b"same-origin")


class _Server(uvicorn.Server):
    """Takes its status back when it accepts no more connections: then its successor has all that come."""

    def __init__(self, config: uvicorn.Config, status: Path) -> None:
        super().__init__(config)
        self._status = status

    async def leave(self) -> None:
        """Accept no more connections, say so, and wait until those that are open have been closed by their clients.

        A client that keeps one open learns from ``Connection: close`` on its next answer that it must make a new one.
        """
        loop = asyncio.get_running_loop()
        for server in self.servers:
            for listener in server.sockets:
                loop.remove_reader(listener.fileno())
        # What was accepted in this round of the loop becomes a connection in the next ones.
        await asyncio.sleep(PROBE_INTERVAL)
        for server in self.servers:
            server.close()
        self._status.unlink(missing_ok=True)
        end = time.monotonic() + KEEP_ALIVE_SECONDS + 2
        while self.server_state.connections and time.monotonic() < end:
            await asyncio.sleep(PROBE_INTERVAL)

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
        spec: ``command`` and ``socket`` of the scoring server; ``auth``, ``retire`` and ``asked``, files to watch: who
            may ask, which appears when the end has come, which is touched when somebody is about to ask; ``status``, a
            file to write; ``port``, the wanted one, or 0; ``handover``, a Unix socket on which a successor asks for the
            listening socket; ``predecessor``, that of the one to be replaced, or null; ``listen``, a Unix socket to
            listen on in place of a port, or null; ``log``, what the server and this write to; ``idle``, seconds, or
            null; ``delay``, seconds before the start; ``never``, whether it is never to be ready.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._door = Door(Path(spec["auth"]))
        self._port = 0
        self._active = 0
        self._leaving = False
        self._last = time.monotonic()
        self._code = 0

    async def run(self) -> int:
        """Serve until the end; gives the exit code."""
        if self._spec["delay"]:
            await asyncio.sleep(self._spec["delay"])
        end = await self._start()
        while self._spec["never"] or not await self._is_ready():
            if end.done():
                _say(f"The scoring server ended with exit code {end.result()} before it was ready.")
                return FAILED
            if not self._is_wanted():
                return 0
            cut_log(Path(self._spec["log"]))
            await asyncio.sleep(PROBE_INTERVAL)
        if self._spec["listen"] is not None:
            listener = _listen_at(self._spec["listen"])
        else:
            listener = _inherit(self._spec["predecessor"]) or _listen(int(self._spec["port"]))
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
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        handover = self._spec["handover"]
        front = _Server(config, Path(self._spec["status"]))
        watch = asyncio.create_task(self._watch(end, front))
        async with await asyncio.start_unix_server(lambda _, writer: _hand_over(writer, listener), handover):
            # Whoever has read it may ask for the handover at once.
            self._write_status()
            await front.serve(sockets=[listener])
        watch.cancel()
        return self._code

    async def _start(self) -> asyncio.Task[int]:
        """Start what answers; returns what ends when that does, with its exit code."""
        server = await asyncio.create_subprocess_exec(
            *self._spec["command"], stdin=asyncio.subprocess.DEVNULL, preexec_fn=_end_with_parent
        )
        return asyncio.create_task(server.wait())

    def _is_wanted(self) -> bool:
        return Path(self._spec["auth"]).exists() and not Path(self._spec["retire"]).exists()

    async def _watch(self, end: asyncio.Task[int], front: _Server) -> None:
        while not front.should_exit:
            await asyncio.sleep(WATCH_INTERVAL)
            cut_log(Path(self._spec["log"]))
            if end.done():
                _say(f"The scoring server has ended with exit code {end.result()}.")
                self._code = DIED
                front.should_exit = True
            elif not Path(self._spec["auth"]).exists():
                front.should_exit = True
            elif Path(self._spec["retire"]).exists():
                self._leaving = True
                await front.leave()
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
        async with self._connected(self._spec["socket"]) as (reader, writer):
            connection = h11.Connection(h11.CLIENT)
            headers = [(b"host", HOST.encode()), (b"connection", b"close")]
            writer.write(connection.send(h11.Request(method=b"GET", target=target, headers=headers)) or b"")
            writer.write(connection.send(h11.EndOfMessage()) or b"")
            while True:
                event = await next_event(connection, reader)
                if isinstance(event, h11.Response):
                    return int(event.status_code)
                if isinstance(event, h11.ConnectionClosed):
                    return 0

    @contextlib.asynccontextmanager
    async def _connected(self, path: str) -> Any:  # noqa: ANN401 - an iterator of a pair of streams
        reader, writer = await asyncio.open_unix_connection(path)
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
            await discard(receive)
            await answer(send, refused.status, refused.message)
            return
        self._active += 1
        try:
            await self._relay(scope, receive, send)
        finally:
            self._active -= 1
            if not is_probe:
                self._last = time.monotonic()

    def _check_sender(self, scope: Message) -> None:
        """Refuse another site's page that uses the browser of someone who may connect.

        Raises:
            Refused: 403.
        """
        if self._spec["listen"] is not None:
            return  # only this user's processes get to a socket in a private directory
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

    async def _relay(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request that has been let in."""
        await self._forward(self._spec["socket"], scope, receive, send)

    async def _forward(self, path: str, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on to what listens on a Unix socket."""
        started = False
        sending: asyncio.Task[bool] | None = None
        try:
            async with self._connected(path) as (reader, writer):
                connection = h11.Connection(h11.CLIENT)
                # At the same time, for a server may answer, and close, before it has read everything.
                sending = asyncio.create_task(send_request(connection, writer, scope, receive))
                while True:
                    event = await next_event(connection, reader)
                    if isinstance(event, h11.Response):
                        kept = [(name, value) for name, value in event.headers if name not in HOP]
                        kept += [(b"connection", b"close")] if self._leaving else []
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
            await answer(send, 502, "The scoring server gave no answer.")
        finally:
            if sending is not None:
                sending.cancel()


def cut_log(path: Path, most: int = LOG_MAX) -> None:
    """Keep the later half of a log that has grown too long, from a line's beginning on.

    Whoever writes to it appends, so what is written next stands behind what was kept. What is written in the very
    moment of the cut gets lost.
    """
    with contextlib.suppress(OSError):
        size = path.stat().st_size
        if size <= most:
            return
        with path.open("rb") as stream:
            stream.seek(size - most // 2)
            kept = stream.read(most).partition(b"\n")[2]
        os.truncate(path, 0)
        with path.open("ab") as stream:
            stream.write(kept)


async def _hand_over(writer: asyncio.StreamWriter, listener: socket.socket) -> None:
    """Give the listening socket to a successor; both accept from it until this one leaves."""
    with (
        contextlib.suppress(OSError),
        socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as raw,
    ):
        socket.send_fds(raw, [b"+"], [listener.fileno()])
    writer.close()


def _listen(port: int) -> socket.socket:
    """Return a new listening socket, on the wanted port if nobody has got it meanwhile, else on any."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError:
        listener.bind((HOST, 0))
    listener.listen(256)
    return listener


def _listen_at(path: str) -> socket.socket:
    """Return a socket that listens at a path, in the place of what did before: that accepts what has come to it."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    partial = f"{path}.{os.getpid()}"
    listener.bind(partial)
    listener.listen(256)
    Path(partial).replace(path)
    return listener


def _inherit(path: str | None) -> socket.socket | None:
    """Take over the listening socket of a predecessor, if there is one: no connection in its queue is lost."""
    if path is None:
        return None
    with contextlib.suppress(OSError, IndexError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(HANDOVER_SECONDS)
        asking.connect(path)
        return socket.socket(fileno=socket.recv_fds(asking, 1, 1)[1][0])
    return None


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


def main(kind: type[Front]) -> None:
    """Run a front, as the command line's specification has it."""
    _end_with_parent()
    sys.exit(asyncio.run(kind(json.loads(Path(sys.argv[1]).read_text())).run()))


if __name__ == "__main__":
    main(Front)
