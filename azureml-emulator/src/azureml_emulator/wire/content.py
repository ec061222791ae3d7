"""Snapshots."""

# A body is described by its module and its fields; pydantic copies mutable defaults.
# ruff: noqa: D101, RUF012

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from azureml_emulator.bodies import Body

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
