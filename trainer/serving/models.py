"""Which version is served, and how it comes onto the disk of a worker."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from trainer.artifacts import ArtifactStore, ModelVersion, fetch, find_model, parse_model_reference, read_record
from trainer.errors import NotFoundError, UsageError
from trainer.runtime.layout import MODEL_FILE
from trainer.serving.scoring import ModelFiles
from trainer.serving.settings import ServeSettings
from trainer.serving.supervisor import Model

# Azure's name of the folder of all models.
MODELS_DIR = "azureml-models"


def model_of_file(path: Path) -> Model:
    """Return the model in a file, or in the ``model.npz`` of a directory.

    Raises:
        NotFoundError: There is none.
    """
    found = path / MODEL_FILE if path.is_dir() else path
    if not found.is_file():
        raise NotFoundError(f"There is no file {found}.", "Check the path, or name a registered model: trainer models")
    found = found.resolve()

    def open_file(app: Path) -> ModelFiles:
        directory = app / MODELS_DIR / found.stem / "1"
        return ModelFiles(str(path), found.stem, None, _place(found, directory), directory, read_record(found))

    return Model(str(path), open_file)


def model_of_copy(file: Path, name: str, version: int, revision: int, settings: ServeSettings) -> Model:
    """Return a registered version that lies here already and was checked.

    Args:
        file: Its npz file.
        name: The model's name.
        version: Its number.
        revision: See :class:`trainer.serving.supervisor.Model`.
        settings: How it is served.
    """
    label = f"{name}:{version}"

    def open_copy(app: Path) -> ModelFiles:
        directory = app / MODELS_DIR / name / str(version)
        return ModelFiles(label, name, version, _place(file, directory), directory, read_record(file))

    return Model(label, open_copy, revision, settings)


def model_of_version(store: ArtifactStore, version: ModelVersion) -> Model:
    """Return a registered version; the workers fetch it and check it."""

    def open_version(app: Path) -> ModelFiles:
        fetched = fetch(store, version.reference, app / "fetched")
        directory = app / MODELS_DIR / version.name / str(version.version)
        placed = _place(fetched.path, directory)
        return ModelFiles(version.reference, version.name, version.version, placed, directory, fetched.model)

    return Model(version.reference, open_version)


def newest_of(store: ArtifactStore, reference: str, version: ModelVersion) -> Callable[[], Model] | None:
    """Return what finds the version to serve now, or None if ``reference`` fixes it.

    Args:
        store: The registry.
        reference: What the user asked for.
        version: What it means now; a shortened name is not looked up again.
    """
    fixed = reference != "latest" and parse_model_reference(reference)[1] is not None
    if fixed:
        return None
    name = "latest" if reference == "latest" else version.name
    return lambda: model_of_version(store, find_model(store, name))


def _place(file: Path, directory: Path) -> Path:
    """Put a file into the folder that a score script finds it in, where nothing else lies."""
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / file.name
    try:
        with suppress(FileExistsError):  # another worker of the same generation was first
            os.link(file, target)
    except OSError:  # another file system
        copy = directory.parent / f".{os.getpid()}-{file.name}"
        shutil.copyfile(file, copy)
        copy.replace(target)
    if not target.is_file():
        raise UsageError(f"{file} is no file.", "Check the path.")
    return target
