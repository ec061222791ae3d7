"""Where an emulator keeps things under its state directory."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path


def write_atomically(path: Path, data: bytes | str, mode: int = 0o600) -> None:
    """Replace ``path`` with ``data`` so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = data.encode() if isinstance(data, str) else data
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class StateDir:
    """The state directory. Private to its owner, because it holds the key that signs tokens."""

    root: Path

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> StateDir:
        """The state directory at ``path``, which need not exist yet."""
        return cls(Path(path).expanduser().resolve())

    def create(self) -> None:
        """Make the directories, for their owner only. A root that is there already keeps its mode."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (self.blobs, self.uploads, self.jobs, self.client, self.client_home):
            path.mkdir(mode=0o700, exist_ok=True)
        for path in (self.database, self.log):
            path.touch(mode=0o600)

    @property
    def lock(self) -> Path:
        """Held by the emulator that serves this state."""
        return self.root / "lock"

    @property
    def endpoint(self) -> Path:
        """Where the running emulator says how it is reached."""
        return self.root / "endpoint.json"

    @property
    def key(self) -> Path:
        """Key that signs tokens and blob URLs."""
        return self.root / "secret.key"

    @property
    def database(self) -> Path:
        """The SQLite database."""
        return self.root / "emulator.db"

    @property
    def log(self) -> Path:
        """Log of requests and problems."""
        return self.root / "emulator.log"

    @property
    def tls(self) -> Path:
        """The server's certificates."""
        return self.root / "tls"

    @property
    def ca(self) -> Path:
        """The emulator's own CA certificate, and nothing else."""
        return self.tls / "ca.pem"

    @property
    def blobs(self) -> Path:
        """Content of blobs."""
        return self.root / "blobs"

    @property
    def uploads(self) -> Path:
        """Blobs that are being received."""
        return self.root / "uploads"

    @property
    def jobs(self) -> Path:
        """The jobs' directories."""
        return self.root / "jobs"

    @property
    def client(self) -> Path:
        """Files that clients are pointed at by their environment."""
        return self.root / "client"

    @property
    def client_home(self) -> Path:
        """HOME for clients: the SDK keeps caches in ~/.azureml."""
        return self.client / "home"
