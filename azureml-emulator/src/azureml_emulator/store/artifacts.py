"""Artifacts: named files in containers, each backed by a blob."""

# A body is described by its fields; pydantic copies mutable defaults.
# ruff: noqa: D101, RUF012

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from azureml_emulator.bodies import Body
from azureml_emulator.errors import bad_request, not_found
from azureml_emulator.store.blobs import Blob, BlobStore
from azureml_emulator.store.database import Database
from azureml_emulator.times import utc_now


class ArtifactPath(Body):
    path: str


class ArtifactPaths(Body):
    paths: list[ArtifactPath]


class Artifact(Body):
    artifact_id: str
    origin: str
    container: str
    path: str
    etag: str | None = None
    created_time: str
    data_path: str | None = None


class ContentInfo(Body):
    content_uri: str
    origin: str
    container: str
    path: str


class ErrorDetail(Body):
    code: str
    message: str


class ErrorResponse(Body):
    error: ErrorDetail


class BatchArtifacts(Body):
    """Answer keyed by the paths exactly as they were asked for."""

    artifacts: dict[str, Artifact]
    artifact_content_information: dict[str, ContentInfo]
    errors: dict[str, ErrorResponse] = {}


RUN_ORIGIN = "ExperimentRun"


@dataclass(frozen=True)
class StoredArtifact:
    """One name. ``created`` is ISO 8601."""

    origin: str
    container: str
    path: str
    blob_key: str
    created: str


def normalise(path: str) -> str:
    """Return a path as it is stored: ``./outputs/x`` is ``outputs/x``.

    Raises:
        ServiceError: 400, the path is empty, absolute, leaves its container or can't be UTF-8.
    """
    clean = posixpath.normpath(path.replace("\\", "/"))
    unnameable = "\0" in path or any("\ud800" <= character < "\ue000" for character in path)
    if not path or clean in (".", "..") or clean.startswith(("/", "../")) or unnameable:
        raise bad_request(f"{path!r} is no artifact path.")
    return clean


class ArtifactStore:
    """Names in containers. A name whose blob has not been uploaded is reserved, and not listed."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._db = database
        self._blobs = blobs

    def reserve(self, origin: str, container: str, path: str) -> StoredArtifact:
        """Return the artifact of that name, made if it is new; its blob may not exist yet."""
        name = normalise(path)
        with self._db.transaction():
            self._db.execute(
                "INSERT OR IGNORE INTO artifacts VALUES (?, ?, ?, ?, ?)",
                origin,
                container,
                name,
                self._blobs.new_key(),
                utc_now(),
            )
            row = self._db.one(
                "SELECT * FROM artifacts WHERE origin = ? AND container = ? AND path = ?", origin, container, name
            )
            assert row is not None
            return StoredArtifact(*row)

    def has_content(self, artifact: StoredArtifact) -> bool:
        """Tell whether an artifact has been uploaded."""
        return self._blobs.find(artifact.blob_key) is not None

    def get(self, origin: str, container: str, path: str) -> StoredArtifact:
        """Return an artifact that has content.

        Raises:
            ServiceError: 404.
        """
        row = self._db.one(
            "SELECT a.* FROM artifacts a JOIN blobs b ON b.key = a.blob_key"
            " WHERE origin = ? AND container = ? AND a.path = ?",
            origin,
            container,
            normalise(path),
        )
        if row is None:
            raise not_found("Artifact", f"{origin}/{container}/{path}")
        return StoredArtifact(*row)

    def list(self, origin: str, container: str, prefix: str | None = None) -> list[StoredArtifact]:
        """Return artifacts that have content, by name.

        Args:
            origin: Kind of the container, such as ``ExperimentRun``.
            container: Its id.
            prefix: Only this file, or the files in this folder.
        """
        rows = self._db.all(
            "SELECT a.* FROM artifacts a JOIN blobs b ON b.key = a.blob_key"
            " WHERE origin = ? AND container = ? ORDER BY a.path",
            origin,
            container,
        )
        found = [StoredArtifact(*row) for row in rows]
        if prefix is None:
            return found
        folder = prefix.strip("/")
        return [item for item in found if item.path == folder or item.path.startswith(folder + "/")]

    def blob(self, artifact: StoredArtifact) -> Blob:
        """Return the content of an artifact."""
        return self._blobs.get(artifact.blob_key)

    def forget(self, origin: str, container: str, folders: tuple[str, ...]) -> None:
        """Remove the names in some folders of a container."""
        for folder in folders:
            self._db.execute(
                "DELETE FROM artifacts WHERE origin = ? AND container = ? AND substr(path, 1, ?) = ?",
                origin,
                container,
                len(folder) + 1,
                f"{folder}/",
            )
