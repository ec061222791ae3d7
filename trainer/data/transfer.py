"""Fetch the files of a data set from mirrors, none of which is trusted.

A transfer that breaks keeps what has come, beside the name of the mirror it came from, and goes on from there
(RFC 9110: Range, If-Range), in this start or the next. A file counts when its decompressed content has the
expected SHA-256, and takes its name by a rename only then.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from trainer.data.cache import content_digest, unwritable
from trainer.data.catalogue import CatalogueFile
from trainer.data.mirrors import Patience, file_url, without_secrets
from trainer.runtime.atomic import sync_directory
from trainer.runtime.faults import RuntimeFault

if TYPE_CHECKING:
    import requests

_CHUNK = 64 << 10


class MirrorError(Exception):
    """A mirror did not give a file; the text says why."""


class _BrokenError(Exception):
    """A transfer ended early."""


class ProgressDisplay(Protocol):
    """Shows a download: its messages and its progress bar. The console implements it; nothing here draws."""

    def say(self, message: str) -> None:
        """Show one line."""

    def start(self, what: str, total: int | None) -> None:
        """Begin a bar of ``total`` bytes (None: unknown); the last one, if any, has ended."""

    def advance(self, size: int) -> None:
        """Move the bar on by ``size`` bytes."""

    def finish(self) -> None:
        """End the bar, whether or not all has come."""


class Silent:
    """Shows nothing."""

    def say(self, message: str) -> None:
        """Show nothing."""

    def start(self, what: str, total: int | None) -> None:
        """Show nothing."""

    def advance(self, size: int) -> None:
        """Show nothing."""

    def finish(self) -> None:
        """Show nothing."""


def fetch(
    file: CatalogueFile, folder: Path, mirrors: Sequence[str], *, patience: Patience, progress: ProgressDisplay
) -> Path:
    """Fetch one file into a folder, from the first mirror that gives it rightly.

    Raises:
        MirrorError: None does; the text has each one's reason.
        ConfigError: The folder can't be written.
    """
    import requests

    reasons = []
    with requests.Session() as session:
        for mirror in mirrors:
            url = file_url(mirror, file)
            try:
                return _from_mirror(session, url, file, folder, patience, progress)
            except MirrorError as error:
                reasons.append(f"{urlsplit(url).hostname}: {error}")
                progress.say(f"{file.name}.gz from {without_secrets(url)}: {error}")
    raise MirrorError("; ".join(reasons) or "no mirror answers")


class _Part:
    """What has come of a file so far, and the validator that its mirror gave."""

    def __init__(self, folder: Path, name: str, url: str) -> None:
        # Mirrors compress differently, so one's beginning is no use with another's end.
        key = hashlib.sha256(url.encode()).hexdigest()[:12]
        self.path = folder / f".{name}.{key}.part"
        self._validator = folder / f".{name}.{key}.validator"

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def validator(self) -> str:
        return self._validator.read_text("ascii") if self._validator.exists() else ""

    def begin(self, validator: str) -> None:
        self.path.write_bytes(b"")
        self._validator.write_text(validator, "ascii")

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._validator.unlink(missing_ok=True)

    def publish(self, file: CatalogueFile) -> Path:
        with self.path.open("rb") as stream:
            # Some servers unpack what they call .gz; it is named for what it is.
            suffix = ".gz" if stream.read(2) == b"\x1f\x8b" else ""
            os.fsync(stream.fileno())
        target = self.path.with_name(file.name + suffix)
        self.path.replace(target)
        self._validator.unlink(missing_ok=True)
        sync_directory(target.parent)
        return target


def _from_mirror(
    session: requests.Session,
    url: str,
    file: CatalogueFile,
    folder: Path,
    patience: Patience,
    progress: ProgressDisplay,
) -> Path:
    part = _Part(folder, file.name, url)
    problem = ""
    for _ in range(patience.attempts):
        start = part.size
        try:
            _transfer(session, url, file, part, patience, progress)
        except _BrokenError as error:
            problem = str(error)
            if part.size == start:
                break
            continue
        except OSError as error:
            raise unwritable(part.path, error) from error
        try:
            if content_digest(part.path, file.size) == file.sha256:
                return part.publish(file)
            problem = "its content has another SHA-256"
        except RuntimeFault as fault:
            problem = fault.message.replace(str(part.path), "what it sent")
        part.discard()
        if not start:
            break
    raise MirrorError(problem)


def _transfer(
    session: requests.Session, url: str, file: CatalogueFile, part: _Part, patience: Patience, progress: ProgressDisplay
) -> None:
    """Add to the part what the mirror sends.

    Raises:
        _BrokenError: It broke off; going on from there may help.
        MirrorError: This mirror is no use.
        OSError: The part can't be written.
    """
    import requests

    # Identity: a .gz is to come as it is stored, not compressed once more or unpacked on the way.
    headers = {"Accept-Encoding": "identity"}
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
        if part.validator:
            headers["If-Range"] = part.validator
    try:
        response = session.get(url, headers=headers, stream=True, timeout=(patience.connect, patience.read))
    except requests.RequestException as error:
        raise _BrokenError(_reason(error)) from error
    with response:
        if response.status_code == 416:
            part.discard()
            raise _BrokenError("it can't go on from where the last transfer broke")
        if response.status_code == 200:
            part.begin(_validator(response.headers))
        elif response.status_code != 206 or not _continues(response.headers, part.size):
            raise MirrorError(f"HTTP {response.status_code} {response.reason}")
        length = response.headers.get("Content-Length", "")
        progress.start(f"{file.name}.gz", part.size + int(length) if length.isdecimal() else None)
        try:
            progress.advance(part.size)
            _append(response, file, part, patience, progress)
        finally:
            progress.finish()


def _append(
    response: requests.Response, file: CatalogueFile, part: _Part, patience: Patience, progress: ProgressDisplay
) -> None:
    import urllib3

    # Stored deflate blocks add a thousandth at most; gzip's header may hold a long file name.
    largest = file.size + file.size // 1000 + (1 << 16)
    window_end, window_bytes = time.monotonic() + patience.window, 0
    # Unbuffered: what has come is kept even if this process is killed.
    with part.path.open("ab", buffering=0) as stream:
        while True:
            try:
                # At most one recv per call, so that a trickle is noticed too.
                chunk = response.raw.read1(_CHUNK, decode_content=False)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise _BrokenError(_reason(error)) from error
            if not chunk:
                return
            if stream.write(chunk) < len(chunk):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            progress.advance(len(chunk))
            window_bytes += len(chunk)
            if stream.tell() > largest:
                part.discard()
                raise MirrorError(f"it sends more than {largest:,} bytes")
            if time.monotonic() > window_end:
                if window_bytes < patience.window_bytes:
                    raise MirrorError(f"only {window_bytes:,} bytes in {patience.window:g} seconds")
                window_end, window_bytes = time.monotonic() + patience.window, 0


def _validator(headers: Mapping[str, str]) -> str:
    # If-Range takes strong validators only.
    tag = str(headers.get("ETag", ""))
    found = tag if tag and not tag.startswith("W/") else str(headers.get("Last-Modified", ""))
    return found if found.isascii() and len(found) < 256 else ""


def _continues(headers: Mapping[str, str], start: int) -> bool:
    return str(headers.get("Content-Range", "")).startswith(f"bytes {start}-")


def _reason(error: BaseException) -> str:
    import requests
    import urllib3

    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy does not answer"
    if isinstance(error, (requests.exceptions.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError)):
        return "no connection in time"
    if isinstance(error, (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        return "nothing came in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not accepted"
    if isinstance(error, requests.exceptions.TooManyRedirects):
        return "too many redirects"
    if isinstance(error, (urllib3.exceptions.ProtocolError, ConnectionError)):
        return "the connection broke"
    if isinstance(error, requests.exceptions.ConnectionError):
        return "no connection"
    return type(error).__name__
