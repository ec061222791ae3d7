"""Snapshots."""

# What a route is for is in its summary, from which the documentation's table is made.
# ruff: noqa: D103

from __future__ import annotations

import uuid
from urllib.parse import urlsplit

from azureml_emulator.api.common import DATA_PLANE, WORKSPACE, ServiceDep, guarded_router
from azureml_emulator.errors import bad_request
from azureml_emulator.service import Service
from azureml_emulator.store.artifacts import normalise
from azureml_emulator.store.snapshots import (
    MAX_FILES,
    BlobAnswer,
    BlobRequest,
    FileNode,
    SnapshotAnswer,
    SnapshotMetadata,
    SnapshotRequest,
    SnapshotZip,
)

V1 = f"/content/v1.0{WORKSPACE}/snapshots"
V2 = f"/content/v2.0{WORKSPACE}/snapshots"

router = guarded_router("Snapshots", access=DATA_PLANE)


@router.get(f"{V1}/latest/metadata", summary="`Experiment.submit` (first snapshot of a client)")
def latest_snapshot() -> SnapshotMetadata:
    # "None": the client then uploads everything, which is always right.
    return SnapshotMetadata()


@router.post(f"{V2}/getblob", summary="`Experiment.submit`, `Run.take_snapshot`")
def reserve_blobs(body: BlobRequest, service: ServiceDep) -> BlobAnswer:
    names = body.FileNames
    for name in names:
        normalise(name)
    if len(names) > MAX_FILES:
        raise bad_request(f"A snapshot may have {MAX_FILES} files, not {len(names)}.", "SnapshotTooLarge")
    return BlobAnswer(
        file_nodes=[FileNode(full_name=name, blob_uri=service.write_url(service.blobs.new_key())) for name in names]
    )


@router.post(f"{V2}/{{snapshot_id}}", summary="`Experiment.submit`, `Run.take_snapshot`")
def create_snapshot(snapshot_id: str, body: SnapshotRequest, service: ServiceDep) -> SnapshotAnswer:
    _check_id(snapshot_id)
    uploaded = {file.FullName: _blob_key(file.BlobUri, service) for file in body.FileRevisionList.FileNodes}
    service.snapshots.add(snapshot_id, body, uploaded)
    return SnapshotAnswer(id=snapshot_id)


@router.post(f"{V2}/{{snapshot_id}}/zip", summary="`Run.restore_snapshot`")
def zip_snapshot(snapshot_id: str, service: ServiceDep) -> SnapshotZip:
    return SnapshotZip(zip_sas_uri=service.read_url(service.snapshots.zip(snapshot_id)))


def _check_id(snapshot_id: str) -> None:
    try:
        uuid.UUID(snapshot_id)
    except ValueError:
        raise bad_request(f"{snapshot_id!r} is not a snapshot id.") from None


def _blob_key(uri: str, service: Service) -> str:
    parts = urlsplit(uri)
    if f"https://{parts.netloc.rpartition('@')[2]}" != service.base_url or not parts.path.startswith("/blobs/"):
        raise bad_request("A snapshot's files must be in this emulator's blob store.")
    return parts.path.removeprefix("/blobs/")
