"""The workspace's model registry by plain HTTPS."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from backends.azure.errors import explained, retry
from backends.azure.registry import ARCHIVED_TAG, IN_WORKSPACES, OUTPUT, WorkspaceStore, properties_of
from backends.azure.sync import run_name
from backends.azure.v2.connection import MODELS_VERSION, STORAGE_VERSION, AnswerError, segments
from backends.azure.v2.run import find_run
from trainer.errors import IntegrityError, RefusedError
from trainer.runtime.layout import MODEL_FILE

if TYPE_CHECKING:
    from backends.azure.v2.connection import Connection
    from trainer.artifacts import ModelVersion
    from trainer.runfolder import RunFolder

# As often as another client may be faster.
_ATTEMPTS = 50
_TAKEN = re.compile(r"cannot be (updated|changed)|already exists|immutable", re.IGNORECASE)
_IN_DATASTORE = re.compile(r"azureml://.*?/?datastores/(?P<store>[^/]+)/paths/(?P<path>.+)", re.DOTALL)
# Bytes that one Put Blob takes: https://learn.microsoft.com/rest/api/storageservices/put-blob
_LARGEST = 5000 << 20


class RestModel(NamedTuple):
    """A version of a model, as ARM describes it."""

    name: str
    version: int
    tags: Mapping[str, str]
    properties: Mapping[str, str]
    uri: str
    archived: bool
    content: Mapping[str, Any]


class AzureMLV2Store(WorkspaceStore[RestModel]):
    """The model registry of a workspace. What is deleted is archived: SDK v2's interface has no other way.

    Args:
        connection: Opens the workspace, on first use.
    """

    name = "azureml-v2"
    only_archives = True

    def __init__(self, connection: Callable[[], Connection]) -> None:
        self._connection = connection

    def _send(self, folder: RunFolder, source: Path, record: ModelVersion) -> None:
        uri = self._place(folder, source, record)
        content = {
            "modelUri": uri,
            "modelType": "custom_model",
            "tags": dict(record.tags),
            "properties": properties_of(record),
            "isAnonymous": False,
            "isArchived": False,
        }
        connection = self._connection()
        for _ in range(_ATTEMPTS):
            # The client chooses the number. No two runs have their models in one place, and the place of a version
            # can't be changed: so of two that choose the same number, one is refused.
            version = self._next_version(record.name)
            path = segments("models", record.name, "versions", str(version))
            try:
                connection.arm("PUT", path, version=MODELS_VERSION, body={"properties": content})
            except AnswerError as error:
                if error.status_code in (400, 409, 412) and _TAKEN.search(f"{error.code} {error.message}"):
                    continue
                raise
            return
        raise RefusedError(f"Others keep registering {record.name}.", "Try again: trainer attach RUN")

    def _place(self, folder: RunFolder, source: Path, record: ModelVersion) -> str:
        """Return where the workspace has a run's model; bring it there if it doesn't."""
        connection, name = self._connection(), run_name(folder.info())
        run = retry(lambda: find_run(connection, name)) if record.backend in IN_WORKSPACES else None
        if run is not None and OUTPUT in retry(run.get_file_names):
            return f"azureml://jobs/{name}/outputs/artifacts/paths/{OUTPUT}"
        if record.size > _LARGEST:
            raise RefusedError(
                f"{source} has {record.size:,} bytes; Azure ML takes {_LARGEST:,} here.", "Make it smaller."
            )
        store = connection.default_datastore()
        path = f"trainer/{record.run_id}/{record.sha256[:16]}/{MODEL_FILE}"
        url = connection.blob_url(store, path)

        def upload() -> None:
            with source.open("rb") as stream:
                headers = {"x-ms-blob-type": "BlockBlob", "x-ms-version": STORAGE_VERSION}
                # An empty stream would be sent in chunks, which storage doesn't take; a model is never empty.
                connection.put(url, stream, headers)

        retry(upload)
        return f"azureml:/{connection.path}/datastores/{store}/paths/{path}".replace(
            "/providers/Microsoft.MachineLearningServices", ""
        )

    def _next_version(self, model_name: str) -> int:
        try:
            found = self._connection().arm("GET", segments("models", model_name), version=MODELS_VERSION)
        except AnswerError as error:
            if error.status_code == 404:
                return 1
            raise
        return int((found.get("properties") or {})["nextVersion"])

    def _list(self, model_name: str | None) -> list[RestModel]:
        connection = self._connection()
        active = {"listViewType": "ActiveOnly"}

        def versions(name: str) -> list[RestModel]:
            path = f"{segments('models', name)}/versions"
            found = connection.arm_list(path, version=MODELS_VERSION, params=active)
            return [model for one in found if (model := _model(name, one)) is not None and not model.archived]

        def every() -> list[RestModel]:
            if model_name is not None:
                return versions(model_name)
            names = [str(one["name"]) for one in connection.arm_list("/models", version=MODELS_VERSION, params=active)]
            return [model for name in names for model in versions(name)]

        with explained("list the models"):
            return retry(every)

    def _find(self, model_name: str, version: int) -> RestModel | None:
        path = segments("models", model_name, "versions", str(version))
        try:
            found = _model(model_name, self._connection().arm("GET", path, version=MODELS_VERSION))
        except AnswerError as error:
            if error.status_code == 404:
                return None
            raise
        return None if found is None or found.archived else found

    def _download(self, model: RestModel, directory: Path) -> None:
        place = _IN_DATASTORE.fullmatch(model.uri)
        if place is None:
            raise IntegrityError(f"{model.name}:{model.version} lies at {model.uri[:200]}.", "Register its npz alone.")
        connection = self._connection()
        try:
            answer = connection.get(connection.blob_url(place["store"], place["path"]))
        except AnswerError as error:
            if error.status_code == 404:
                raise IntegrityError(
                    f"{model.name}:{model.version} is not one file, or its file is gone.", "Register its npz alone."
                ) from error
            raise
        with answer, (directory / MODEL_FILE).open("wb") as stream:
            answer.raw.decode_content = True
            shutil.copyfileobj(answer.raw, stream)

    def _remove(self, model: RestModel) -> None:
        path = segments("models", model.name, "versions", str(model.version))
        kept = (
            "modelUri",
            "modelType",
            "description",
            "tags",
            "properties",
            "flavors",
            "isAnonymous",
            "jobName",
            "stage",
        )
        body = {name: model.content[name] for name in kept if model.content.get(name) is not None}
        body |= {"tags": {**model.tags, ARCHIVED_TAG: "true"}, "isArchived": True}
        self._connection().arm("PUT", path, version=MODELS_VERSION, body={"properties": body})


def _model(name: str, described: Mapping[str, Any]) -> RestModel | None:
    """Read a version; None for one whose number is none, which ours have."""
    content, version = described.get("properties"), str(described.get("name", ""))
    if not isinstance(content, dict) or not (version.isascii() and version.isdecimal()):
        return None
    tags, properties = (
        content.get(key) if isinstance(content.get(key), dict) else {} for key in ("tags", "properties")
    )
    uri, archived = str(content.get("modelUri", "")), content.get("isArchived") is True
    return RestModel(name, int(version), tags or {}, properties or {}, uri, archived, content)
