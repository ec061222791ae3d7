"""Passing a request on to the scoring server, by h11."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import h11

MAX_DISCARDED = 16 << 20
"""Bytes of a refused request's body that are read, so that its client sees the answer."""
# These are between two neighbours, and not to be passed on (RFC 9110, 7.6.1).
HOP = (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade", b"expect")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def send_request(
    connection: h11.Connection, writer: asyncio.StreamWriter, scope: Message, receive: Receive
) -> bool:
    """Pass a request on; false, and the connection closed, if its client goes away before it is whole."""
    headers = [(name, value) for name, value in scope["headers"] if name not in HOP]
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


async def next_event(connection: h11.Connection, reader: asyncio.StreamReader) -> Any:  # noqa: ANN401 - of h11
    """Return what comes next from the scoring server."""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(64 << 10))
        elif event is h11.PAUSED:
            return h11.ConnectionClosed()
        elif not isinstance(event, h11.InformationalResponse):
            return event


async def discard(receive: Receive) -> None:
    """Read a body that nobody wants, as far as it is not too long."""
    size, more = 0, True
    while more and size <= MAX_DISCARDED:
        message = await receive()
        size += len(message.get("body", b""))
        more = bool(message.get("more_body"))


async def answer(send: Send, status: int, message: str) -> None:
    """Answer in the scoring server's place."""
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
