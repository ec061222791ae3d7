"""Which mirrors a data set has, and which of them answer."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import queue
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from trainer.data.catalogue import CatalogueEntry, CatalogueFile
from trainer.errors import ConfigError

MIRRORS_VARIABLE = "TRAINER_DATA_MIRRORS"


@dataclass(frozen=True)
class Patience:
    """How long a mirror is waited for, in seconds.

    Attributes:
        probe: Until the first mirror has answered with a small file of the right content.
        connect: For a connection.
        read: For the next bytes.
        window: A mirror that sends fewer than ``window_bytes`` in this time is given up.
        window_bytes: In bytes.
        attempts: Transfers of one file from one mirror, each going on from the last.
    """

    probe: float = 15.0
    connect: float = 5.0
    read: float = 10.0
    window: float = 20.0
    window_bytes: int = 64 << 10
    attempts: int = 4


def mirrors_of(entry: CatalogueEntry) -> tuple[str, ...]:
    """Return the base URLs to ask, each ending in ``/``.

    ``TRAINER_DATA_MIRRORS`` replaces the built-in ones: URLs separated by white space or commas, in which
    ``{name}`` stands for the data set; ``off`` asks nobody.

    Raises:
        ConfigError: The variable holds something else than http and https URLs.
    """
    setting = os.environ.get(MIRRORS_VARIABLE, "").strip()
    if not setting or not entry.mirrors:
        return entry.mirrors
    if setting == "off":
        return ()
    found = []
    for url in setting.replace(",", " ").split():
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"{MIRRORS_VARIABLE} has {without_secrets(url)!r}, which is no http or https URL.",
                f"For example: {MIRRORS_VARIABLE}=https://mirror.example/{{name}}/",
            )
        found.append(url.replace("{name}", entry.name).rstrip("/") + "/")
    return tuple(found)


def answering(entry: CatalogueEntry, patience: Patience) -> list[str]:
    """Return the mirrors that give the smallest file rightly, quickest first; empty if none does in time.

    All are asked at once, from threads that are left behind when the time is up: the look-up of a host name
    has no time-out of its own.
    """
    smallest = min(entry.files, key=lambda file: file.size)
    mirrors = mirrors_of(entry)
    answers: queue.Queue[str | None] = queue.Queue()

    def ask(mirror: str) -> None:
        try:
            right = _small_file(file_url(mirror, smallest), smallest, patience) == smallest.sha256
        except Exception:  # a thread's error must count as an answer, or the others are waited for in vain
            right = False
        answers.put(mirror if right else None)

    for mirror in mirrors:
        threading.Thread(target=ask, args=(mirror,), daemon=True).start()
    deadline = time.monotonic() + patience.probe
    found: list[str] = []
    for _ in mirrors:
        # Once one has answered, the others get only a moment: they are the reserve.
        wait = min(0.5, deadline - time.monotonic()) if found else deadline - time.monotonic()
        try:
            answer = answers.get(timeout=max(wait, 0.0))
        except queue.Empty:
            break
        if answer:
            found.append(answer)
    return found


def without_secrets(url: str) -> str:
    """Return a URL without the user's name and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def file_url(mirror: str, file: CatalogueFile) -> str:
    """Return where a mirror has a file."""
    return f"{mirror}{file.name}.gz"


def _small_file(url: str, file: CatalogueFile, patience: Patience) -> str:
    import requests

    with requests.get(
        url, headers={"Accept-Encoding": "identity"}, stream=True, timeout=(patience.connect, patience.read)
    ) as response:
        response.raise_for_status()
        data = response.raw.read(file.size + (1 << 16), decode_content=False)
    if data[:2] == b"\x1f\x8b":
        data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(file.size + 1)
    return hashlib.sha256(data).hexdigest()
