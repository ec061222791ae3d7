"""Resolve the command line's MODEL to a network."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainer.artifacts import ArtifactStore, ModelVersion, fetch, read_record
from trainer.modelfile import is_path, read_npz
from trainer.modeluse.network import Network
from trainer.runtime.layout import MODEL_FILE


@dataclass(frozen=True)
class LoadedModel:
    """A model that can be used.

    Attributes:
        label: ``name:version``, or the file's path.
        network: What it computes.
        version: What is recorded of it, or None for a file that nothing is known of.
    """

    label: str
    network: Network
    version: ModelVersion | None = None


def open_model(reference: str, store: Callable[[], ArtifactStore]) -> LoadedModel:
    """Read the model that ``reference`` names.

    Args:
        reference: A path, or a name as :func:`trainer.artifacts.find_model` takes it.
        store: Gives the registry; asked only for a name, so that a file needs no sign-in.

    Raises:
        NotFoundError: There is no such file or version.
        IntegrityError: The file is not a safe npz, or not the one that was registered.
        UsageError: It holds another kind of network, or the reference is unusable.
        RunFailedError: Its weights are not finite.
    """
    if is_path(reference):
        return load_file(Path(reference))
    with tempfile.TemporaryDirectory(prefix="trainer-") as scratch:
        fetched = fetch(store(), reference, Path(scratch))
        arrays = read_npz(fetched.path)
    label = fetched.model.reference
    return LoadedModel(label, Network.from_arrays(arrays, label), fetched.model)


def load_file(path: Path) -> LoadedModel:
    """Read a model from a file, or from the ``model.npz`` in a directory; errors as :func:`open_model`."""
    if path.is_dir():
        path = path / MODEL_FILE
    arrays = read_npz(path)
    return LoadedModel(str(path), Network.from_arrays(arrays, str(path)), read_record(path))
