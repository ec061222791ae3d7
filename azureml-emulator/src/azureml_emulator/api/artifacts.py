"""Artifacts: the files of runs and models."""

# What a route is for is in its summary, from which the documentation's table is made.
# ruff: noqa: D103

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from azureml_emulator.api.common import DATA_PLANE, WORKSPACE, ServiceDep, guarded_router, paginate
from azureml_emulator.bodies import Page
from azureml_emulator.errors import not_found
from azureml_emulator.store.artifacts import (
    Artifact,
    ArtifactPaths,
    BatchArtifacts,
    ContentInfo,
    ErrorDetail,
    ErrorResponse,
    StoredArtifact,
)

BASE = f"/artifact/v2.0{WORKSPACE}/artifacts"
ContinuationToken = Annotated[str | None, Query(alias="continuationToken")]
PAGE_SIZE = 500

router = guarded_router("Artifacts", access=DATA_PLANE)


@router.post(
    f"{BASE}/batch/metadata/{{origin}}/{{container}}",
    summary="`Run.upload_file(s)`, `Run.upload_folder`, `Model.register`, a job's ./outputs and logs",
)
def create_artifacts(origin: str, container: str, body: ArtifactPaths, service: ServiceDep) -> BatchArtifacts:
    asked = {item.path: service.artifacts.reserve(origin, container, item.path) for item in body.paths}
    # As Azure answers: an artifact is written once, and whoever writes it again is told before he uploads anything.
    taken = {
        path: ErrorResponse(
            error=ErrorDetail(
                code="UserError",
                message=f"Resource Conflict: ArtifactId {origin}/{container}/{stored.path} already exists.",
            )
        )
        for path, stored in asked.items()
        if service.artifacts.has_content(stored) and not service.settings.blob_overwrite
    }
    free = {path: stored for path, stored in asked.items() if path not in taken}
    return BatchArtifacts(
        artifacts={path: _artifact(stored) for path, stored in free.items()},
        artifact_content_information={
            path: _content(stored, service.write_url(stored.blob_key)) for path, stored in free.items()
        },
        errors=taken,
    )


@router.get(f"{BASE}/contentinfo/{{origin}}/{{container}}/{{path:path}}", summary="`Run.download_file`")
def get_content(origin: str, container: str, path: str, service: ServiceDep) -> ContentInfo:
    stored = service.artifacts.get(origin, container, path)
    if not service.visible([stored], container):
        raise not_found("Artifact", f"{origin}/{container}/{path}")
    return _content(stored, service.read_url(stored.blob_key))


@router.get(
    f"{BASE}/prefix/contentinfo/{{origin}}/{{container}}/{{prefix:path}}",
    summary="`Run.get_details`, `Run.download_files`, `Run.register_model`, `Model.download`",
)
def list_content(
    origin: str, container: str, prefix: str, service: ServiceDep, token: ContinuationToken = None
) -> Page[ContentInfo]:
    found = service.visible(service.artifacts.list(origin, container, prefix), container)
    return paginate([_content(item, service.read_url(item.blob_key)) for item in found], PAGE_SIZE, token)


@router.get(f"{BASE}/write/{{origin}}/{{container}}/{{path:path}}", summary="a job's log upload, once its SAS expires")
def renew_write_url(origin: str, container: str, path: str, service: ServiceDep) -> ContentInfo:
    stored = service.artifacts.reserve(origin, container, path)
    return _content(stored, service.write_url(stored.blob_key))


@router.get(f"{BASE}/{{origin}}/{{container}}", summary="`Run.get_file_names`")
def list_artifacts(origin: str, container: str, service: ServiceDep, token: ContinuationToken = None) -> Page[Artifact]:
    found = service.visible(service.artifacts.list(origin, container), container)
    return paginate([_artifact(item) for item in found], PAGE_SIZE, token)


def _artifact(stored: StoredArtifact) -> Artifact:
    return Artifact(
        artifact_id=f"{stored.origin}/{stored.container}/{stored.path}",
        origin=stored.origin,
        container=stored.container,
        path=stored.path,
        created_time=stored.created,
    )


def _content(stored: StoredArtifact, url: str) -> ContentInfo:
    return ContentInfo(content_uri=url, origin=stored.origin, container=stored.container, path=stored.path)
