"""The HTTP side: routes, keys, limits, the answers' headers, the request log.

======================  ==========================================================================
``GET /``               ``Healthy`` while the process lives; to a browser the page
``GET /ready``          200 when the model answers, 503 before
``POST /score``         scores; ``GET`` hands the query to a score script
``GET /swagger.json``   the API, in version 2; ``?version=3`` and ``3.1`` for newer ones
``GET /openapi.json``   the API, in version 3.1
``GET /metrics``        Prometheus
======================  ==========================================================================

Status codes, error bodies and ``x-`` headers are those of azureml-inference-server-http 1.5. Plain ASGI: with six exact
paths a framework's routing would only cost time, a quarter of what a request takes.
"""

from __future__ import annotations

import asyncio
import functools
import json
import sys
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from trainer.serving import metrics, openapi
from trainer.serving.inputs import InputError
from trainer.serving.keys import Keys
from trainer.serving.scoring import Answer, Request, Scorer
from trainer.serving.settings import ServeSettings, is_loopback

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PAGE = Path(__file__).with_name("page.html")
_ID_MAX = 100
_JSON = b"application/json"
_TEXT = b"text/html; charset=utf-8"  # as Azure's server calls it
_NOT_FOUND = (
    "The requested URL was not found on the server. If you entered the URL manually please check your spelling "
    "and try again."
)
_NOT_ALLOWED = "The method is not allowed for the requested URL."
# The page loads nothing from elsewhere and is shown in nobody's frame.
_PAGE_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
        b"img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]


class Refused(Exception):  # noqa: N818  # an answer, not a failure of ours
    """A request that is answered with an error.

    Args:
        status: HTTP status.
        message: For the client.
        headers: More headers.
        close: End the connection, because what it still sends is not wanted.
    """

    def __init__(
        self, status: int, message: str, headers: tuple[tuple[bytes, bytes], ...] = (), *, close: bool = False
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.headers, self.close = status, message, headers, close


class App:
    """The ASGI application of one worker.

    Args:
        settings: How it is served.
        keys: Who may use it.
        shared: What all workers count.
        row: What this one counts.
    """

    def __init__(self, settings: ServeSettings, keys: Keys, shared: metrics.SharedMetrics, row: metrics.Row) -> None:
        self._settings = settings
        self._keys = keys
        self._shared = shared
        self._row = row
        self._scorer: Scorer | None = None
        self._score: Callable[[Request], Awaitable[Answer]] | None = None
        self._at_once: Callable[[Request], Answer] | None = None
        self._labels: dict[str, str] = {}
        self._log = settings.log_requests
        self.draining = False

    def open(self, scorer: Scorer, score: Callable[[Request], Awaitable[Answer]], labels: dict[str, str]) -> None:
        """Begin to answer ``/score``.

        Args:
            scorer: The loaded scorer.
            score: Has a request scored, in whatever thread that must happen in.
            labels: Name and version of the model.
        """
        self._scorer, self._labels, self._score = scorer, labels, score
        self._at_once = None if scorer.in_main_thread else scorer.score

    def takes(self, headers: dict[bytes, bytes]) -> bool:
        """Return whether a request to ``/score`` with such headers can be given to :meth:`reply`; if so it is counted.

        False is no refusal: the request is then to be given to the application as any other.
        """
        if self._at_once is None or not _PLAIN.isdisjoint(headers):
            return False
        try:
            self._check_sender(headers)
            self._check_key(headers)
        except Refused:
            return False
        self._row.begin()
        return True

    def reply(self, request: Request | None, begun: float) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Score a request that :meth:`takes` has let in, without waiting for anything.

        Args:
            request: With its whole body; None where that did not come in time.
            begun: When the request began, of ``time.perf_counter()``.

        Returns:
            Status, headers and body of the answer.
        """
        out = _request_ids({})
        status, body, inputs, received = 500, b"", 0, 0
        try:
            try:
                if request is None:
                    raise _too_late()
                assert self._at_once is not None
                received = len(request.body)
                status, body, inputs = _told(self._at_once(request), out)
            except (Refused, InputError) as error:
                status, body = _refusal(error, out)
            except Exception:  # a bug of ours
                status, body = _unexpected()
            self._close(out, body, _JSON)
        finally:
            self._count("POST", "/score", status, received, inputs, time.perf_counter() - begun)
        return status, out, body

    def gone(self, begun: float) -> None:
        """Count a request that :meth:`takes` has let in, and whose client has gone before its body was whole."""
        self._count("POST", "/score", 0, 0, 0, time.perf_counter() - begun)

    def _count(self, method: str, path: str, status: int, received: int, inputs: int, seconds: float) -> None:
        if path == "/score":
            self._row.end(status, seconds, inputs, received)
        # Behind a socket somebody asks several times a second until the answer is yes.
        if self._log and not (path == "/ready" and self._settings.socket is not None):
            self._write_log(method, path, status, received, inputs, seconds)

    def _close(self, out: list[tuple[bytes, bytes]], body: bytes, kind: bytes) -> None:
        """Add the headers that every answer has."""
        if self.draining:
            out.append((b"connection", b"close"))
        out.append((b"content-type", kind))
        out.append((b"content-length", b"%d" % len(body)))

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        begun = time.perf_counter()
        path, method = scope["path"], scope["method"]
        headers = dict(scope["headers"])
        if path == "/score":
            self._row.begin()
        out: list[tuple[bytes, bytes]] = []
        status, body, kind, received, inputs = 500, b"", _JSON, 0, 0
        try:
            try:
                self._check_sender(headers)
                if path == "/score":
                    if method not in ("GET", "POST", "OPTIONS"):
                        raise Refused(405, _NOT_ALLOWED, ((b"allow", b"GET, OPTIONS, POST"),))
                    out += _request_ids(headers)
                    request = await self._request(scope, headers, method, receive)
                    received = len(request.body)
                    if method == "OPTIONS":
                        out.append((b"x-ms-run-function-failed", b"False"))
                        status, kind = 200, _TEXT
                    else:
                        assert self._score is not None
                        status, body, inputs = _told(await self._score(request), out)
                else:
                    status, body, kind = self._other(path, method, scope, headers, out)
            except (Refused, InputError) as error:
                status, body = _refusal(error, out)
            except ClientGoneError:
                status = 0
                return
            except Exception:  # a bug of ours
                status, body = _unexpected()
            self._close(out, body, kind)
            await send({"type": "http.response.start", "status": status, "headers": out})
            await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})
        finally:
            self._count(method, path, status, received, inputs, time.perf_counter() - begun)

    def _other(
        self, path: str, method: str, scope: Message, headers: dict[bytes, bytes], out: list[tuple[bytes, bytes]]
    ) -> tuple[int, bytes, bytes]:
        """Every route but ``/score``."""
        if path not in _ROUTES:
            raise Refused(404, _NOT_FOUND)
        if method not in ("GET", "HEAD"):
            raise Refused(405, _NOT_ALLOWED, ((b"allow", b"GET, HEAD"),))
        out += _request_ids(headers)
        if path == "/":
            if b"text/html" in headers.get(b"accept", b""):
                out += _PAGE_HEADERS
                return 200, PAGE.read_bytes(), _TEXT
            return 200, b"Healthy", _TEXT
        if path == "/ready":
            if self._scorer is None or self.draining:
                raise Refused(503, "Not ready yet.", ((b"retry-after", b"1"),))
            return 200, b'{"ready": true, "model": %s}' % json.dumps(self._labels["label"]).encode(), _JSON
        self._check_key(headers)
        if path == "/metrics":
            self._row.sample()
            labels = {name: value for name, value in self._labels.items() if name != "label"}
            return 200, self._shared.text(labels).encode(), metrics.CONTENT_TYPE.encode()
        if self._scorer is None:
            raise Refused(503, "Not ready yet.", ((b"retry-after", b"1"),))
        version = "3.1" if path == "/openapi.json" else _version(scope["query_string"])
        name = self._labels.get("version") or "1"
        found = openapi.describe(version, self._settings.name, name, self._scorer.schema, key=self._keys.needed)
        if found is None:
            raise Refused(404, f"Swagger version [{version}] is not valid. Supported versions: [2, 3, 3.1].")
        out.append((b"x-ms-run-function-failed", b"False"))
        return 200, json.dumps(found).encode(), _JSON

    async def _request(self, scope: Message, headers: dict[bytes, bytes], method: str, receive: Receive) -> Request:
        """Return a request to ``/score`` that may be answered, with its body.

        Raises:
            Refused: It may not.
        """
        self._check_key(headers)
        if self._score is None and method != "OPTIONS":
            raise Refused(503, "The model is still being loaded.", ((b"retry-after", b"1"),))
        body = await self._body(headers, receive) if method == "POST" else b""
        query = scope["query_string"].decode("latin-1")
        return Request(method, query, body, media_type(headers), scope["headers"])

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        limit = self._settings.body_max
        length = headers.get(b"content-length")
        if length is not None and (len(length) > 18 or int(length) > limit):
            raise _too_large(limit)
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                return await _collect(receive, limit)
        except TimeoutError:
            raise _too_late() from None

    def _check_key(self, headers: dict[bytes, bytes]) -> None:
        if not self._keys.accepts(headers.get(b"authorization")):
            raise Refused(
                401, "A key is needed: Authorization: Bearer KEY.", ((b"www-authenticate", b"Bearer"),), close=True
            )

    def _check_sender(self, headers: dict[bytes, bytes]) -> None:
        """Refuse another site's page that uses the browser of someone who may connect, where no key is asked for.

        Such a page sends its own Origin, or, after rebinding its name to 127.0.0.1, its own Host.
        """
        if self._keys.needed:
            return
        host, origin = headers.get(b"host", b""), headers.get(b"origin")
        if self._settings.is_loopback and not _names_this_machine(host):
            raise Refused(403, "This service answers to names of this machine only.", close=True)
        if origin is not None and _network_location(origin, "?") != _network_location(b"//" + host, ""):
            raise Refused(403, "This service does not answer other sites' pages.", close=True)

    def _write_log(self, method: str, path: str, status: int, received: int, inputs: int, seconds: float) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        shown = path if path in _ROUTES or path == "/score" else ascii(path[:60])
        what = f" {received}B {inputs} in" if received else ""
        sys.stderr.write(f"{stamp}Z {method} {shown} {status or 'gone'}{what} {seconds * 1000:.2f}ms\n")


_ROUTES = ("/", "/ready", "/metrics", "/swagger.json", "/openapi.json")
# Handed back to the client, after checks that only the ordinary way has.
_PLAIN = frozenset((b"x-request-id", b"x-ms-request-id", b"x-ms-client-request-id", b"traceid"))


class ClientGoneError(Exception):
    """The client has closed the connection before its request was whole."""


async def _collect(receive: Receive, limit: int) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body") and len(body) <= limit:
        return body
    parts, size = [body], len(body)
    while message["type"] == "http.request" and message.get("more_body") and size <= limit:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
    if message["type"] != "http.request":
        raise ClientGoneError
    if size > limit:
        raise _too_large(limit)
    return b"".join(parts)


@functools.lru_cache(maxsize=64)  # clients name few
def _names_this_machine(host: bytes) -> bool:
    try:
        return is_loopback(urlsplit(f"//{host.decode('latin-1')}").hostname or "localhost")
    except ValueError:  # such as "[::1"
        return False


def _network_location(address: bytes, otherwise: str) -> str:
    try:
        return urlsplit(address.decode("latin-1")).netloc
    except ValueError:
        return otherwise


def media_type(headers: dict[bytes, bytes]) -> str:
    """Return the value of ``Content-Type`` without parameters, in lower case."""
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")


def _told(answer: Answer, out: list[tuple[bytes, bytes]]) -> tuple[int, bytes, int]:
    """Status, body and number of inputs of a scorer's answer; its headers are added to ``out``."""
    out.append((b"x-ms-run-function-failed", b"True" if answer.failed else b"False"))
    if answer.milliseconds is not None:
        out.append((b"x-ms-run-fn-exec-ms", b"%.3f" % answer.milliseconds))
    return answer.status, answer.body, answer.inputs


def _refusal(error: Refused | InputError, out: list[tuple[bytes, bytes]]) -> tuple[int, bytes]:
    """Status and body; headers are added to ``out``."""
    if isinstance(error, Refused):
        out += error.headers
    out.append((b"x-ms-run-function-failed", b"False"))
    if isinstance(error, Refused) and error.close:
        out.append((b"connection", b"close"))
    return error.status, _message(error.message)


def _unexpected() -> tuple[int, bytes]:
    """Status and body for an error that is told in the log, not to the client."""
    traceback.print_exc()
    return 500, _message("An unexpected internal error occurred. Check the logs for more info.")


def _too_late() -> Refused:
    return Refused(408, "The body did not arrive in time.", close=True)


def _too_large(limit: int) -> Refused:
    return Refused(413, f"The body is larger than {limit:,} bytes.", close=True)


def _request_ids(headers: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """The answer's ids, made or handed back; ``x-ms-request-id`` is the older name of the client's id."""
    given = headers.get(b"x-request-id")
    request_id = given if given is not None else str(uuid.uuid4()).encode()
    if len(request_id) > _ID_MAX:
        raise Refused(431, f"x-request-id must not exceed {_ID_MAX} characters")
    old, client = headers.get(b"x-ms-request-id", b""), headers.get(b"x-ms-client-request-id", b"")
    found = []
    if request_id:
        found.append((b"x-request-id", request_id))
    client = client or old
    old = old or client or request_id
    if len(old) > _ID_MAX or len(client) > _ID_MAX:
        message = f"x-ms-request-id and x-ms-client-request-id must not exceed {_ID_MAX} characters"
        raise Refused(431, message, tuple(found))
    if old:
        found.append((b"x-ms-request-id", old))
    if client:
        found.append((b"x-ms-client-request-id", client))
    if b"traceid" in headers:
        found.append((b"traceid", headers[b"traceid"]))
    return found


def _version(query: bytes) -> str:
    return parse_qs(query.decode("latin-1"), keep_blank_values=True).get("version", ["2"])[0][:20]


def _message(text: str) -> bytes:
    return json.dumps({"message": text}).encode()
