"""A small data set, and a real HTTP server on 127.0.0.1 that can be a bad mirror of it."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from trainer.data.cache import Cache
from trainer.data.catalogue import CatalogueEntry, CatalogueFile
from trainer.runtime.datasets import FILES


def idx_bytes(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def write_set(directory: Path, contents: dict[str, bytes], *, compressed: bool = False) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        (directory / (name + ".gz" if compressed else name)).write_bytes(gzip.compress(data) if compressed else data)
    return directory


@pytest.fixture
def write() -> Callable[..., Path]:
    return write_set


@pytest.fixture
def encode() -> Callable[[np.ndarray], bytes]:
    return idx_bytes


@pytest.fixture(scope="session")
def contents() -> dict[str, bytes]:
    """400 training and 100 test images of 28x28 noise, which does not compress away."""
    random = np.random.default_rng(7)
    found = []
    for count in (400, 100):
        found.append(idx_bytes(random.integers(0, 256, (count, 28, 28), np.uint8)))
        found.append(idx_bytes((np.arange(count) % 10).astype(np.uint8)))
    return dict(zip(FILES, found, strict=True))


def make_entry(contents: dict[str, bytes], name: str = "mnist") -> CatalogueEntry:
    files = tuple(CatalogueFile(file, hashlib.sha256(data).hexdigest(), len(data)) for file, data in contents.items())
    return CatalogueEntry(name, "A test set", "none", 400, 100, ("http://127.0.0.1:9/",), files)


@pytest.fixture
def entry(contents: dict[str, bytes]) -> CatalogueEntry:
    return make_entry(contents)


@pytest.fixture(autouse=True)
def _own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    monkeypatch.setenv("TRAINER_DATA_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in (
        "TRAINER_DATA_MIRRORS",
        "TRAINER_DECODED_DIR",
        "http_proxy",
        "https_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cache() -> Cache:
    return Cache.from_environment()


class Told:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bars: list[tuple[str, int | None]] = []
        self.sizes: list[int] = []

    def say(self, message: str) -> None:
        self.lines.append(message)

    def start(self, what: str, total: int | None) -> None:
        self.bars.append((what, total))
        self.sizes.append(0)

    def advance(self, size: int) -> None:
        self.sizes[-1] += size

    def finish(self) -> None:
        pass


@pytest.fixture
def told() -> Told:
    return Told()


@dataclass
class Mirror:
    """One mirror, served from memory, with switches for what can go wrong.

    Attributes:
        files: What it serves, by name.
        cut: Break the connection after so many bytes of a body, for the files named.
        cuts: How many bodies to cut; then it serves well.
        hold: Keep the connection open after a cut instead of breaking it; for the files named.
        ranges: Whether it honours Range.
        etag: The validator of every file.
        redirect: Send requests for this prefix to the same path without it.
        location: Send every request to this address.
        silent: Accept connections and never answer; for the files named.
        status: Answer with this status, by file.
        headers: More headers of every answer.
        trickle: Seconds to wait after every 64 bytes of a body.
        requests: What was asked: the path and the Range header.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    cuts: int = 10**9
    hold: set[str] = field(default_factory=set)
    ranges: bool = True
    etag: str = '"1"'
    redirect: str = ""
    location: str = ""
    silent: set[str] = field(default_factory=set)
    status: dict[str, int] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    trickle: float = 0.0
    requests: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""
    stop: threading.Event = field(default_factory=threading.Event)

    def asked(self, name: str) -> list[str]:
        """The Range headers of the requests for a file."""
        return [wanted for path, wanted in self.requests if path.endswith(name)]


def _handler(mirror: Mirror) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            mirror.requests.append((self.path, self.headers.get("Range", "")))
            if mirror.location or (mirror.redirect and self.path.startswith(mirror.redirect)):
                self.send_response(302)
                self.send_header("Location", mirror.location or self.path.removeprefix(mirror.redirect))
                self.end_headers()
                return
            name = self.path.rpartition("/")[2]
            if name in mirror.silent:
                mirror.stop.wait(60)
                self.close_connection = True
                return
            if name not in mirror.files or name in mirror.status:
                self.send_error(mirror.status.get(name, 404))
                return
            self._serve(name, mirror.files[name])

        def _serve(self, name: str, body: bytes) -> None:
            start = 0
            wanted = self.headers.get("Range", "")
            if mirror.ranges and wanted and self.headers.get("If-Range", mirror.etag) == mirror.etag:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                if start >= len(body):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            else:
                self.send_response(200)
            if mirror.etag:
                self.send_header("ETag", mirror.etag)
            for header, value in mirror.headers.items():
                self.send_header(header, value)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            body, held = body[start:], False
            if name in mirror.cut and mirror.cuts > 0:
                mirror.cuts -= 1
                body = body[: mirror.cut[name]]
                held = name in mirror.hold
            try:
                if not mirror.trickle:
                    self.wfile.write(body)
                for position in range(0, len(body) if mirror.trickle else 0, 64):
                    self.wfile.write(body[position : position + 64])
                    if mirror.stop.wait(mirror.trickle):
                        break
                if held:
                    self.wfile.flush()
                    mirror.stop.wait(60)
            except OSError:
                pass  # the client has hung up, as it should on some of these
            self.close_connection = True

    return Handler


@pytest.fixture
def mirrors(contents: dict[str, bytes]) -> Iterator[Callable[..., Mirror]]:
    """Starts a mirror that has the set, gzipped."""
    servers: list[tuple[http.server.ThreadingHTTPServer, Mirror]] = []

    def start(**switches: object) -> Mirror:
        mirror = Mirror(files={f"{name}.gz": gzip.compress(data) for name, data in contents.items()})
        for name, value in switches.items():
            setattr(mirror, name, value)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(mirror))
        server.daemon_threads = True
        mirror.url = f"http://127.0.0.1:{server.server_address[1]}/"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append((server, mirror))
        return mirror

    yield start
    for server, mirror in servers:
        mirror.stop.set()
        server.shutdown()
        server.server_close()
