"""Picking up what a script left behind and the SDK did not upload."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from azureml_emulator.errors import ServiceError
from azureml_emulator.store.artifacts import RUN_ORIGIN, ArtifactStore
from azureml_emulator.store.blobs import BlobStore


def collect(work: Path, folders: list[str], container: str, artifacts: ArtifactStore, blobs: BlobStore) -> None:
    """Store the files of some folders of a working directory as artifacts of the run.

    A cancelled or killed script has had no chance to upload. What has been uploaded is left alone, but for a file that
    has grown since: a log.

    Args:
        work: The job's working directory.
        folders: Relative to ``work``.
        container: The run's data container.
        artifacts: Where the names go.
        blobs: Where the content goes.
    """
    for path in _files(work, folders):
        try:
            artifact = artifacts.reserve(RUN_ORIGIN, container, path.relative_to(work).as_posix())
        except ServiceError:
            # A name that no client could ask for.
            continue
        blob = blobs.find(artifact.blob_key)
        if blob is None or (path.parts[len(work.parts)] != "outputs" and path.stat().st_size > blob.size):
            blobs.commit_file(artifact.blob_key, path)


def stream(work: Path, container: str, artifacts: ArtifactStore, blobs: BlobStore) -> None:
    """Show what a job of SDK v2 has begun to write into ./logs, while it writes.

    On Azure it is the node's agent that does this; jobs of SDK v1 have the SDK for it.

    Args:
        work: The job's working directory.
        container: The run's data container.
        artifacts: Where the names go.
        blobs: Where the content is linked.
    """
    for path in _files(work, ["logs"]):
        with contextlib.suppress(ServiceError, OSError):  # a name that no client could ask for, or a file that is gone
            artifact = artifacts.reserve(RUN_ORIGIN, container, path.relative_to(work).as_posix())
            if not artifacts.has_content(artifact):
                blobs.link(artifact.blob_key, path)


def _files(work: Path, folders: list[str]) -> Iterator[Path]:
    root = work.resolve()
    for folder in folders:
        top = (work / folder).resolve()
        if top == root or not top.is_relative_to(root):
            continue
        for directory, _, names in os.walk(top):
            for name in sorted(names):
                path = Path(directory, name)
                if path.is_file() and not path.is_symlink():
                    yield path
