"""The keys of a service: a file that only its owner can read, one key per line.

The first line is the primary key, which is handed to clients; every line is accepted. So a key is changed
without a pause by putting the new one above the old one, and the old one dies when its line goes. The file is read
again when it changes.
"""

from __future__ import annotations

import hmac
import os
import secrets
import shlex
import stat
from pathlib import Path

from trainer.errors import ConfigError
from trainer.runtime.atomic import replacing

_BYTES_MAX = 1 << 16
_KEY_BYTES = 24


def make_key() -> str:
    """Return a new key: 192 random bits in base64's alphabet for URLs."""
    return secrets.token_urlsafe(_KEY_BYTES)


def ensure_keys(path: Path, count: int = 1) -> None:
    """Make the file if it is missing.

    Args:
        path: The file.
        count: How many keys a new file gets.

    Raises:
        ConfigError: It can't be made or read, or others may read it.
    """
    if not path.exists():
        write_keys(path, [make_key() for _ in range(count)])
    read_keys(path)


def write_keys(path: Path, keys: list[str]) -> None:
    """Write the file anew.

    Raises:
        ConfigError: It can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, mode=0o600) as stream:
            stream.write("".join(f"{key}\n" for key in keys).encode())
    except OSError as error:
        raise ConfigError(f"Can't write the key file {path}: {error.strerror}.", "Make its folder writable.") from error


def read_keys(path: Path) -> tuple[str, ...]:
    """Return the keys, the primary one first.

    Raises:
        ConfigError: The file can't be read, others may read it, or it holds no key.
    """
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            text = stream.read(_BYTES_MAX)
    except OSError as error:
        raise ConfigError(
            f"Can't read the key file {path}: {error.strerror}.", "Delete it for a new one, or see --no-key."
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"Others may read the key file {path}.", f"chmod 600 {shlex.quote(str(path))}")
    keys = tuple(line.strip() for line in text.decode("ascii", "replace").splitlines() if line.strip())
    if not keys:
        raise ConfigError(f"The key file {path} holds no key.", "Delete it for a new one.")
    return keys


class Keys:
    """The keys that are accepted now.

    Args:
        path: The file, or None to accept everyone.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._accepted: tuple[bytes, ...] = ()

    @property
    def needed(self) -> bool:
        """Whether a key is asked for at all."""
        return self._path is not None

    def accepts(self, authorization: bytes | None) -> bool:
        """Return whether an ``Authorization`` header carries a key: ``Bearer KEY``."""
        if self._path is None:
            return True
        scheme, _, given = (authorization or b"").partition(b" ")
        if scheme.lower() != b"bearer":
            return False
        given = given.strip()
        return any(hmac.compare_digest(given, key) for key in self._current(self._path))

    def _current(self, path: Path) -> tuple[bytes, ...]:
        try:
            found = path.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
            if seen != self._seen:
                self._accepted = tuple(key.encode() for key in read_keys(path))
                self._seen = seen
        except (OSError, ConfigError):
            return ()  # a file that is gone or open to others lets nobody in
        return self._accepted
