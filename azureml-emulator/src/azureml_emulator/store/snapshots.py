"""Snapshots of source directories."""

# A body is described by its fields; pydantic copies mutable defaults.
# ruff: noqa: D101, RUF012

from __future__ import annotations

import shutil
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict

from azureml_emulator.bodies import Body
from azureml_emulator.errors import bad_request, not_found
from azureml_emulator.store.artifacts import normalise
from azureml_emulator.store.blobs import BlobStore
from azureml_emulator.store.database import Database
from azureml_emulator.times import utc_now

NO_SNAPSHOT = "00000000-0000-0000-0000-000000000000"


class SnapshotMetadata(Body):
    id: str = NO_SNAPSHOT
    root: dict[str, Any] = {}


class BlobRequest(BaseModel):
    """Names of the files that changed since the parent snapshot."""

    FileNames: list[str]


class FileNode(Body):
    full_name: str
    blob_uri: str


class BlobAnswer(Body):
    file_nodes: list[FileNode]


class TreeNode(BaseModel):
    """A file or a directory of a snapshot. ``hash`` is SHA-512 of a file's content."""

    model_config = ConfigDict(extra="allow")

    name: str
    type: Literal["File", "Directory"]
    hash: str | None = None
    children: dict[str, TreeNode] = {}


class UploadedFile(BaseModel):
    FullName: str
    BlobUri: str
    FileSize: int


class UploadedFiles(BaseModel):
    FileNodes: list[UploadedFile] = []


class SnapshotRequest(BaseModel):
    """A new snapshot: its whole tree, and the content of what differs from its parent."""

    model_config = ConfigDict(extra="allow")

    ParentSnapshotId: str | None = None
    DirTreeNode: TreeNode
    FileRevisionList: UploadedFiles


class SnapshotAnswer(Body):
    id: str


class SnapshotZip(Body):
    zip_sas_uri: str


MAX_BYTES = 300 << 20
MAX_FILES = 2000
"""Azure's limits on a snapshot."""


def tree_files(node: TreeNode, prefix: str = "") -> Iterator[str]:
    """Yield the relative paths of the files below a directory node."""
    for name, child in node.children.items():
        path = f"{prefix}{name}"
        if child.type == "Directory":
            yield from tree_files(child, f"{path}/")
        else:
            yield path


class SnapshotStore:
    """Snapshots. Files that did not change are shared with the parent snapshot."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._db = database
        self._blobs = blobs

    def add(self, snapshot_id: str, request: SnapshotRequest, uploaded: dict[str, str]) -> None:
        """Store a snapshot.

        Args:
            snapshot_id: Chosen by the client. Storing the same one again changes nothing.
            request: Its tree and its parent.
            uploaded: Blob key by path, of the files that came with it.

        Raises:
            ServiceError: 400, the parent is unknown, or a file's content is neither here nor in the parent.
        """
        parent = request.ParentSnapshotId
        inherited: dict[str, str] = {}
        if parent and parent != NO_SNAPSHOT:
            if not self.exists(parent):
                raise bad_request(f"Parent snapshot {parent} is unknown.", "SnapshotNotFound")
            inherited = self.files(parent)
        content = {normalise(path): key for path, key in uploaded.items()}
        files: dict[str, str] = {}
        for path in map(normalise, tree_files(request.DirTreeNode)):
            key = content.get(path) or inherited.get(path)
            if key is None or self._blobs.find(key) is None:
                raise bad_request(f"Snapshot file {path} was not uploaded.", "SnapshotIncomplete")
            files[path] = key
        with self._db.transaction():
            self._db.execute(
                "INSERT OR IGNORE INTO snapshots VALUES (?, ?, ?)",
                snapshot_id,
                request.DirTreeNode.model_dump_json(),
                utc_now(),
            )
            for path, key in files.items():
                self._db.execute("INSERT OR IGNORE INTO snapshot_files VALUES (?, ?, ?)", snapshot_id, path, key)

    def add_zip(self, archive: BinaryIO) -> str:
        """Store a snapshot that came as a ZIP file.

        Returns:
            The snapshot's id.

        Raises:
            zipfile.BadZipFile: It is none.
            ServiceError: 400, it is too large, or has a name that leaves its directory.
        """
        snapshot_id = str(uuid.uuid4())
        files: dict[str, str] = {}
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            if sum(member.file_size for member in members) > MAX_BYTES or len(members) > MAX_FILES:
                raise bad_request(f"A snapshot may have {MAX_BYTES} bytes, {MAX_FILES} files.", "SnapshotTooLarge")
            for member in members:
                key = self._blobs.new_key()
                files[normalise(member.filename)] = key
                upload = self._blobs.new_upload()
                with opened.open(member) as source, upload.open("wb") as target:
                    shutil.copyfileobj(source, target)
                self._blobs.commit(key, upload)
        with self._db.transaction():
            self._db.execute("INSERT INTO snapshots VALUES (?, ?, ?)", snapshot_id, "{}", utc_now())
            for path, key in files.items():
                self._db.execute("INSERT INTO snapshot_files VALUES (?, ?, ?)", snapshot_id, path, key)
        return snapshot_id

    def add_files(self, files: dict[str, str]) -> str:
        """Store a snapshot of blobs that are there.

        Args:
            files: Blob key by path.

        Returns:
            The snapshot's id.
        """
        snapshot_id = str(uuid.uuid4())
        with self._db.transaction():
            self._db.execute("INSERT INTO snapshots VALUES (?, ?, ?)", snapshot_id, "{}", utc_now())
            for path, key in files.items():
                self._db.execute("INSERT INTO snapshot_files VALUES (?, ?, ?)", snapshot_id, normalise(path), key)
        return snapshot_id

    def exists(self, snapshot_id: str) -> bool:
        """Tell whether there is such a snapshot."""
        return self._db.one("SELECT 1 FROM snapshots WHERE id = ?", snapshot_id) is not None

    def files(self, snapshot_id: str) -> dict[str, str]:
        """Return the blob key of each path.

        Raises:
            ServiceError: 404.
        """
        if not self.exists(snapshot_id):
            raise not_found("Snapshot", snapshot_id)
        rows = self._db.all("SELECT path, blob_key FROM snapshot_files WHERE snapshot_id = ?", snapshot_id)
        return {row["path"]: row["blob_key"] for row in rows}

    def extract(self, snapshot_id: str, directory: Path) -> None:
        """Write the snapshot's files below ``directory``."""
        directory.mkdir(parents=True, exist_ok=True)
        for path, key in self.files(snapshot_id).items():
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            blob = self._blobs.get(key)
            with target.open("wb") as stream:
                for piece in self._blobs.read(blob, 0, blob.size):
                    stream.write(piece)

    def zip(self, snapshot_id: str) -> str:
        """Pack the snapshot.

        Returns:
            Key of the blob with the ZIP file.
        """
        upload = self._blobs.new_upload()
        with zipfile.ZipFile(upload, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, key in sorted(self.files(snapshot_id).items()):
                archive.write(self._blobs.get(key).path, path)
        blob_key = self._blobs.new_key()
        self._blobs.commit(blob_key, upload)
        return blob_key
