"""The workspace's model registry through SDK v1."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from backends.azure import submit
from backends.azure.errors import explained, retry
from backends.azure.registry import IN_WORKSPACES, OUTPUT, WorkspaceStore, properties_of
from backends.azure.session import sdk
from backends.azure.sync import run_name
from trainer.errors import IntegrityError

if TYPE_CHECKING:
    from backends.azure.sdk import Model, Workspace
    from trainer.artifacts import ModelVersion
    from trainer.runfolder import RunFolder


class AzureMLStore(WorkspaceStore["Model"]):
    """The model registry of a workspace.

    Args:
        workspace: Opens it, on first use.
    """

    name = "azureml"

    def __init__(self, workspace: Callable[[], Workspace]) -> None:
        self._workspace = workspace

    def _send(self, folder: RunFolder, source: Path, record: ModelVersion) -> None:
        workspace, tags, properties = self._workspace(), dict(record.tags), properties_of(record)
        theirs = run_name(folder.info())
        run = submit.find_run(workspace, theirs) if record.backend in IN_WORKSPACES else None
        if run is not None and OUTPUT in retry(lambda: list(run.get_file_names())):
            with submit.exclusive_upload():
                run.register_model(record.name, model_path=OUTPUT, tags=tags, properties=properties)
            return
        model = sdk("azureml.core").Model
        # The SDK takes a path below the working directory only.
        with submit.exclusive_upload(), contextlib.chdir(source.parent):
            model.register(workspace, model_path=source.name, model_name=record.name, tags=tags, properties=properties)

    def _list(self, model_name: str | None) -> list[Model]:
        model = sdk("azureml.core").Model
        with explained("list the models"):
            found: list[Model] = retry(lambda: model.list(self._workspace(), name=model_name, expand=False))
        return found

    def _find(self, model_name: str, version: int) -> Model | None:
        model = sdk("azureml.core").Model
        try:
            found: Model = model(self._workspace(), name=model_name, version=version, expand=False)
        except Exception as error:
            if "ModelNotFound" in str(error):
                return None
            raise
        return found

    def _download(self, model: Model, directory: Path) -> None:
        if model.unpack:
            raise IntegrityError(f"{model.name}:{model.version} is an archive to unpack.", "Register its npz instead.")
        model.download(str(directory), exist_ok=True)

    def _remove(self, model: Model) -> None:
        model.delete()
