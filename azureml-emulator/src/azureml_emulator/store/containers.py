"""Blob containers, whose blobs have names: the data stores', and one for each upload of code.

A blob is an artifact: those of the container ``azureml`` are the runs' own, ``ORIGIN/CONTAINER/PATH``, so what one SDK
writes there the other reads; those of other containers are artifacts of an origin of their own.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass

from azureml_emulator.errors import ServiceError, bad_request, not_found
from azureml_emulator.store.artifacts import ArtifactStore, StoredArtifact, normalise
from azureml_emulator.store.blobs import Blob, BlobStore
from azureml_emulator.store.database import Database

ARTIFACTS = "azureml"
ORIGIN = "BlobContainer"
NAME_PATTERN = r"azureml(?:-blobstore-[0-9a-f-]{36})?|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}-[0-9a-f]{20}"
"""Of a container: no route of a service begins so."""


@dataclass(frozen=True)
class NamedBlob:
    """A blob of a container."""

    name: str
    blob: Blob
    metadata: dict[str, str]


class ContainerStore:
    """Containers and their blobs.

    Args:
        database: Where the names are.
        blobs: Where the content is.
        artifacts: What the names stand for.
        workspace_id: Part of the containers' names.
    """

    def __init__(self, database: Database, blobs: BlobStore, artifacts: ArtifactStore, workspace_id: str) -> None:
        self._db = database
        self._blobs = blobs
        self._artifacts = artifacts
        self._workspace_id = workspace_id
        self._datastores = {
            "workspaceblobstore": f"azureml-blobstore-{workspace_id}",
            "workspaceartifactstore": ARTIFACTS,
        }

    @property
    def datastores(self) -> list[str]:
        """Names of the data stores; the first is the default one."""
        return list(self._datastores)

    def of_datastore(self, datastore: str) -> str:
        """Return the container of a data store.

        Raises:
            ServiceError: 404.
        """
        found = self._datastores.get(datastore)
        if found is None:
            raise not_found("Datastore", datastore)
        return found

    def datastore_of(self, container: str) -> str | None:
        """Return the data store of a container, if it is of one."""
        return next((name for name, other in self._datastores.items() if other == container), None)

    def new_upload(self) -> str:
        """Make a container for one upload."""
        name = f"{self._workspace_id}-{uuid.uuid4().hex[:20]}"
        self._db.execute("INSERT INTO upload_containers VALUES (?)", name)
        return name

    def check(self, container: str) -> None:
        """See that there is such a container.

        Raises:
            ServiceError: 404.
        """
        known = container in self._datastores.values() or self._db.one(
            "SELECT 1 FROM upload_containers WHERE name = ?", container
        )
        if not known:
            raise ServiceError(404, "ContainerNotFound", "The specified container does not exist.")

    def reserve(self, container: str, name: str) -> StoredArtifact:
        """Return what a name stands for; it is made if it is new, and may have no content yet.

        Raises:
            ServiceError: 400, no such name is possible; 404, no such container.
        """
        self.check(container)
        origin, inner, path = _split(container, name)
        return self._artifacts.reserve(origin, inner, path)

    def get(self, container: str, name: str) -> StoredArtifact:
        """Return a blob that has content.

        Raises:
            ServiceError: 404.
        """
        self.check(container)
        try:
            origin, inner, path = _split(container, name)
            return self._artifacts.get(origin, inner, path)
        except ServiceError:
            raise ServiceError(404, "BlobNotFound", "The specified blob does not exist.") from None

    def list(self, container: str, prefix: str = "") -> list[NamedBlob]:
        """Return the blobs whose names begin so, by name.

        Raises:
            ServiceError: 404, no such container.
        """
        self.check(container)
        if container == ARTIFACTS:
            name, condition, values = "a.origin || '/' || a.container || '/' || a.path", "a.origin != ?", [ORIGIN]
            parts = prefix.split("/", 2)
            if len(parts) == 3:
                condition, values = "a.origin = ? AND a.container = ?", parts[:2]
        else:
            name, condition, values = "a.path", "a.origin = ? AND a.container = ?", [ORIGIN, container]
        rows = self._db.all(
            f"SELECT {name} AS name, a.blob_key, m.doc FROM artifacts a JOIN blobs b ON b.key = a.blob_key"  # noqa: S608
            f" LEFT JOIN blob_metadata m ON m.blob_key = a.blob_key"
            f" WHERE {condition} AND substr({name}, 1, ?) = ? ORDER BY name",
            *values,
            len(prefix),
            prefix,
        )
        return [
            NamedBlob(row["name"], self._blobs.get(row["blob_key"]), json.loads(row["doc"] or "{}")) for row in rows
        ]

    def below(self, container: str, path: str) -> dict[str, StoredArtifact]:
        """Return a file, or what is in a folder, by the path within it; a file itself has the path ``""``.

        Raises:
            ServiceError: 404, no such container.
        """
        found = {}
        for item in self.list(container, path):
            rest = item.name[len(path) :]
            if not path or not rest or rest.startswith("/"):
                found[rest.strip("/")] = self.get(container, item.name)
        return found

    def metadata(self, blob_key: str) -> dict[str, str]:
        """Return a blob's metadata."""
        row = self._db.one("SELECT doc FROM blob_metadata WHERE blob_key = ?", blob_key)
        found: dict[str, str] = json.loads(row["doc"]) if row else {}
        return found

    def set_metadata(self, blob_key: str, metadata: dict[str, str]) -> None:
        """Replace a blob's metadata."""
        self._db.execute("INSERT OR REPLACE INTO blob_metadata VALUES (?, ?)", blob_key, json.dumps(metadata))


def _split(container: str, name: str) -> tuple[str, str, str]:
    path = normalise(name)
    if name.endswith("/"):
        # The SDK asks for such a name to find out whether something is a folder: then there is a blob for it on storage
        # with real folders, which this is not.
        raise bad_request("A blob's name may not end in a slash here.", "InvalidUri")
    if container != ARTIFACTS:
        return ORIGIN, container, path
    parts = path.split("/", 2)
    if len(parts) != 3 or parts[0] == ORIGIN:
        raise bad_request("A name in this container is an origin, a container and a path.", "InvalidUri")
    return parts[0], parts[1], parts[2]
