"""Artifacts: named files in containers, each backed by a blob."""

# A body is described by its module and its fields; pydantic copies mutable defaults.
# ruff: noqa: D101, RUF012

from __future__ import annotations

from azureml_emulator.bodies import Body


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


class BatchArtifacts(Body):
    """Answer keyed by the paths exactly as they were asked for."""

    artifacts: dict[str, Artifact]
    artifact_content_information: dict[str, ContentInfo]
    errors: dict[str, str] = {}
