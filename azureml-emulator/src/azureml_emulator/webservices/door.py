"""Who may ask a service something, as the front sees it at each request."""

from __future__ import annotations

import hmac
import json
import time
from pathlib import Path


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
