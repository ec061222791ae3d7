"""Blobs: bytes under opaque keys."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from azureml_emulator.errors import ServiceError
from azureml_emulator.state import StateDir
from azureml_emulator.store.database import Database

BLOCK_BLOB = "BlockBlob"
APPEND_BLOB = "AppendBlob"


@dataclass(frozen=True)
class Blob:
    """A blob that has been committed. ``size`` is in bytes, ``modified`` is POSIX time."""

    key: str
    kind: str
    path: Path
    etag: str
    modified: float

    @property
    def size(self) -> int:
        """Its size in bytes, now."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0


class BlobStore:
    """Blobs as files, with a record each once they are complete."""

    def __init__(self, database: Database, state: StateDir) -> None:
        self._db = database
        self._state = state
        self._append_lock = threading.Lock()

    @staticmethod
    def new_key() -> str:
        """Make a key that is safe in a URL: the SDK quotes write URLs once more, which breaks names of users' files."""
        return uuid.uuid4().hex

    def find(self, key: str) -> Blob | None:
        """Return the blob, if it has been committed."""
        row = self._db.one("SELECT * FROM blobs WHERE key = ?", key)
        if row is None:
            return None
        return Blob(row["key"], row["kind"], Path(row["path"]), row["etag"], row["modified"])

    def get(self, key: str) -> Blob:
        """Return the blob.

        Raises:
            ServiceError: 404.
        """
        blob = self.find(key)
        if blob is None:
            raise ServiceError(404, "BlobNotFound", "The specified blob does not exist.")
        return blob

    def new_upload(self) -> Path:
        """Return where to collect the body of a request."""
        return self._state.uploads / uuid.uuid4().hex

    def commit(self, key: str, upload: Path, kind: str = BLOCK_BLOB, *, overwrite: bool = True) -> Blob:
        """Make a received file the blob's content.

        Raises:
            ServiceError: 409, the blob exists and ``overwrite`` is false.
        """
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._db.transaction():
            if not overwrite and self.find(key) is not None:
                upload.unlink(missing_ok=True)
                raise ServiceError(409, "BlobAlreadyExists", "The specified blob already exists.")
            upload.replace(path)
            return self._record(key, kind, path)

    def commit_bytes(self, key: str, data: bytes) -> Blob:
        """Make ``data`` the blob's content."""
        upload = self.new_upload()
        upload.write_bytes(data)
        return self.commit(key, upload)

    def commit_file(self, key: str, source: Path) -> Blob:
        """Make a copy of a file the blob's content."""
        upload = self.new_upload()
        shutil.copyfile(source, upload)
        return self.commit(key, upload)

    def link(self, key: str, path: Path) -> Blob:
        """Make a file outside the store that still grows the blob's content: a running job's log."""
        with self._db.transaction():
            return self._record(key, APPEND_BLOB, path)

    def append(self, key: str, data: bytes) -> tuple[Blob, int]:
        """Append to an append blob.

        Returns:
            The blob, and the offset in bytes at which ``data`` went.
        """
        with self._append_lock:
            blob = self.get(key)
            if blob.kind != APPEND_BLOB:
                raise ServiceError(409, "InvalidBlobType", "The blob type is invalid for this operation.")
            offset = blob.size
            with blob.path.open("ab") as stream:
                stream.write(data)
            with self._db.transaction():
                return self._record(key, APPEND_BLOB, blob.path), offset

    def stage_block(self, key: str, block_id: str, upload: Path) -> None:
        """Keep one block of a blob until its block list is committed."""
        path = self._block(key, block_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        upload.replace(path)

    def commit_blocks(self, key: str, block_ids: list[str], *, overwrite: bool) -> Blob:
        """Join staged blocks to the blob's content.

        Raises:
            ServiceError: 400, a block of the list has not been staged.
        """
        blocks = [self._block(key, block_id) for block_id in block_ids]
        if not all(block.exists() for block in blocks):
            raise ServiceError(400, "InvalidBlockList", "The specified block list is invalid.")
        upload = self.new_upload()
        with upload.open("wb") as stream:
            for block in blocks:
                with block.open("rb") as source:
                    shutil.copyfileobj(source, stream, 1 << 20)
        blob = self.commit(key, upload, overwrite=overwrite)
        shutil.rmtree(self._blocks(key), ignore_errors=True)
        return blob

    @staticmethod
    def read(blob: Blob, start: int, length: int) -> Iterator[bytes]:
        """Yield ``length`` bytes from ``start``, in pieces. A blob that still grows gives no more than asked for."""
        with blob.path.open("rb") as stream:
            stream.seek(start)
            while length > 0:
                piece = stream.read(min(length, 1 << 20))
                if not piece:
                    return
                length -= len(piece)
                yield piece

    def _record(self, key: str, kind: str, path: Path) -> Blob:
        blob = Blob(key, kind, path, f'"0x{uuid.uuid4().hex[:15].upper()}"', time.time())
        self._db.execute(
            "INSERT OR REPLACE INTO blobs VALUES (?, ?, ?, ?, ?)", key, kind, str(path), blob.etag, blob.modified
        )
        return blob

    def _path(self, key: str) -> Path:
        return self._state.blobs / key[:2] / key

    def _blocks(self, key: str) -> Path:
        return self._state.uploads / f"{key}.blocks"

    def _block(self, key: str, block_id: str) -> Path:
        # Block ids come from the client, so they may not become a file name as they are.
        return self._blocks(key) / hashlib.sha256(block_id.encode()).hexdigest()
