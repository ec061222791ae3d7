"""Short requests are answered where they are read, others through the application; on the wire both are alike."""

import json
import socket
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.cli.conftest import Project
from tests.serving.conftest import Served, register

SHORT = json.dumps({"data": [[0.5] * 784]}).encode()
LONG = json.dumps({"data": [[0.5] * 784] * 40}).encode()
assert len(SHORT) < 1 << 16 < len(LONG)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    top = tmp_path_factory.mktemp("direct")
    project = Project(top / "project", top, top)
    register(project)
    running = Served(project, "digits", "--no-key")
    assert running.url
    yield running
    running.close()


def message(body: bytes, *headers: str, path: str = "/score") -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode() + body


class Wire:
    """A connection of bytes."""

    def __init__(self, served: Served) -> None:
        address = urlsplit(served.url)
        self._socket = socket.create_connection((address.hostname, address.port), 60)
        self._stream = self._socket.makefile("rb")

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self._socket.sendall(part)

    def answer(self) -> tuple[int, dict[str, str], Any]:
        status = int(self._stream.readline().split()[1])
        headers: dict[str, str] = {}
        while line := self._stream.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers, json.loads(self._stream.read(int(headers["content-length"])))

    @property
    def ended(self) -> bool:
        return self._stream.read(1) == b""

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


@pytest.fixture
def wire(served: Served) -> Iterator[Wire]:
    found = Wire(served)
    yield found
    found.close()


def test_both_ways_answer_alike(wire: Wire) -> None:
    wire.send(message(SHORT))
    short = wire.answer()
    wire.send(message(SHORT, "x-ms-client-request-id: me"))
    ordinary = wire.answer()
    assert short[0] == ordinary[0] == 200
    assert short[2] == ordinary[2]
    assert ordinary[1].pop("x-ms-client-request-id") == "me"
    assert short[1].keys() == ordinary[1].keys()
    for name in ("content-type", "content-length", "x-ms-run-function-failed"):
        assert short[1][name] == ordinary[1][name]


def test_a_pipeline_is_answered_in_order(wire: Wire) -> None:
    bodies = (SHORT, LONG, SHORT, b"{}", LONG, b"[1, 2]", SHORT)
    stream = b"".join(map(message, bodies))
    sender = threading.Thread(target=wire.send, args=[stream])
    sender.start()
    found = [wire.answer() for _ in bodies]
    sender.join()
    assert [status for status, _, _ in found] == [200, 200, 200, 400, 200, 400, 200]
    assert [len(body.get("predictions", ())) for _, _, body in found] == [1, 40, 1, 0, 40, 0, 1]


def test_a_request_in_pieces(wire: Wire) -> None:
    whole = message(SHORT)
    cuts = [0, 1, 30, whole.index(b"\r\n\r\n") + 2, whole.index(b"\r\n\r\n") + 4, len(whole) - 1, len(whole)]
    wire.send(*(whole[start:end] for start, end in pairwise(cuts)))
    assert wire.answer()[0] == 200
    wire.send(message(SHORT, "Connection: close"))
    status, headers, _ = wire.answer()
    assert (status, headers["connection"], wire.ended) == (200, "close", True)


def test_a_client_that_goes_is_counted(served: Served) -> None:
    wire = Wire(served)
    wire.send(message(SHORT)[:-10])
    wire.close()
    served.wait_for(r"POST /score gone")
    metrics = served.ask("GET", "/metrics").body.decode()
    assert 'trainer_serve_requests_total{code="other"} 1' in metrics
    assert "trainer_serve_requests_in_flight 0" in metrics


@pytest.mark.parametrize("host", ["[::1", "evil.example", "127.0.0.1.evil.example"])
def test_a_host_that_is_not_this_machine_is_refused(served: Served, host: str) -> None:
    wire = Wire(served)
    wire.send(message(SHORT).replace(b"127.0.0.1", host.encode(), 1))
    status, _, body = wire.answer()
    assert status == 403, body
    assert wire.ended
    wire.close()
