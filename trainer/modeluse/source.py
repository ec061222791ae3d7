"""Resolve the command line's MODEL to a network."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from trainer.artifacts import ArtifactStore, ModelVersion, fetch, read_record
from trainer.modelfile import is_path, read_npz
from trainer.modeluse.network import Network
from trainer.runtime.layout import MODEL_FILE

if TYPE_CHECKING:
    from trainer.modeluse.own_network import OwnNetwork


@dataclass(frozen=True)
class LoadedModel:
    """A model that can be used.

    Attributes:
        label: ``name:version``, or the file's path.
        network: What it computes.
        version: What is recorded of it, or None for a file that nothing is known of.
    """

    label: str
    network: Network | OwnNetwork
    version: ModelVersion | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes that it tells apart; their numbers where they have none."""
        known = self.version.data.classes if self.version and self.version.data else ()
        return known if len(known) == self.network.classes else tuple(map(str, range(self.network.classes)))


def open_model(reference: str, store: Callable[[], ArtifactStore], network: str | None = None) -> LoadedModel:
    """Read the model that ``reference`` names.

    Args:
        reference: A path, or a name as :func:`trainer.artifacts.find_model` takes it.
        store: Gives the registry; asked only for a name, so that a file needs no sign-in.
        network: ``FILE.py:NAME`` of the network, where it is not known or not here.

    Raises:
        NotFoundError: There is no such file or version.
        IntegrityError: The file is not a safe npz, or not the one that was registered.
        UsageError: It holds another kind of network, or the reference is unusable.
        RunFailedError: Its weights are not finite.
    """
    if is_path(reference):
        return load_file(Path(reference), network)
    with tempfile.TemporaryDirectory(prefix="trainer-") as scratch:
        fetched = fetch(store(), reference, Path(scratch))
        arrays = read_npz(fetched.path)
    label = fetched.model.reference
    return model_of_arrays(label, arrays, fetched.model, network)


def load_file(path: Path, network: str | None = None) -> LoadedModel:
    """Read a model from a file, or from the ``model.npz`` in a directory; errors as :func:`open_model`."""
    if path.is_dir():
        path = path / MODEL_FILE
    arrays = read_npz(path)
    return model_of_arrays(str(path), arrays, read_record(path), network)


def model_of_arrays(
    label: str, arrays: Mapping[str, NDArray[Any]], version: ModelVersion | None, network: str | None
) -> LoadedModel:
    """Make what can be used of the arrays of a model's file.

    Args:
        label: What to call it in messages.
        arrays: Of the file.
        version: What is recorded of it.
        network: As :func:`open_model` takes it.

    Raises:
        TrainerError: As :func:`open_model`.
    """
    recorded = version.network if version else None
    if network is None and recorded is None:
        return LoadedModel(label, Network.from_arrays(arrays, label), version)
    from trainer.modeluse.own_network import load_own

    return LoadedModel(label, load_own(network or str(recorded), version, arrays, given=network is not None), version)
