"""What is exported: a model's arrays, what is known of it, and what computes its scores here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from trainer.artifacts import ArtifactStore, ModelVersion, fetch, read_record
from trainer.artifacts.fetching import file_sha256
from trainer.errors import NotFoundError, UsageError
from trainer.modelfile import is_path, read_npz
from trainer.runtime.layout import MODEL_FILE

if TYPE_CHECKING:
    from trainer.modeluse.network import Network

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Source:
    """A model's file, read.

    Attributes:
        label: ``name:version``, or the file's path.
        name: The model's name.
        sha256: Of the npz file.
        arrays: In it, by their paths.
        version: What is recorded of it, or None for a file that nothing is known of.
    """

    label: str
    name: str
    sha256: str
    arrays: Mapping[str, NDArray[Any]]
    version: ModelVersion | None

    @property
    def file_name(self) -> str:
        """What an exported file is called, without its ending."""
        return self.name if self.version is None else f"{self.version.name}-{self.version.version}"

    def metadata(self) -> dict[str, str]:
        """What is written into an exported file of where it is from."""
        found = {"model": self.name, "sha256": self.sha256}
        if self.version is not None:
            found["version"] = str(self.version.version)
            found |= {"dataset": self.version.dataset} if self.version.dataset else {}
        record = self.version.data if self.version else None
        if record is not None:
            found["classes"] = _json(record.classes)
            found["input_shape"] = _json(record.shape)
            if record.kind == "table":
                found |= {"columns": _json(record.columns), "mean": _json(record.mean), "scale": _json(record.scale)}
        return found


@dataclass(frozen=True)
class Subject:
    """What computes a model's scores here.

    Attributes:
        source: The model.
        shape: Of one input, as the network takes it.
        classes: The names of the classes; empty where they are not known.
        scores: Gives scores (B, ...) for float32 inputs (B, *shape).
        inputs: Makes such inputs of examples as a data set has them, (N, ...), uint8 or float32.
        layers: The network where it is the included script's own, else None.
        link: The ``chainer.Link`` of another network, else None.
    """

    source: Source
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    scores: Callable[[Array], Array]
    inputs: Callable[[NDArray[Any]], Array]
    layers: Network | None = None
    link: Any = None

    def metadata(self) -> dict[str, str]:
        """What is written into an ONNX file."""
        found = self.source.metadata() | {"input_shape": _json(self.shape)}
        return found | ({"classes": _json(self.classes)} if self.classes else {})


def read_source(reference: str, store: Callable[[], ArtifactStore]) -> Source:
    """Read the model that ``reference`` names.

    Args:
        reference: A path, or a name as :func:`trainer.artifacts.find_model` takes it.
        store: Gives the registry; asked only for a name.

    Raises:
        NotFoundError: There is no such file or version.
        IntegrityError: The file is not a safe npz, or not the one that was registered.
        UsageError: The reference is unusable.
    """
    if is_path(reference):
        path = Path(reference)
        path = path / MODEL_FILE if path.is_dir() else path
        if not path.is_file():
            raise NotFoundError(f"There is no file {path}.", "Check the path, or name a registered model.")
        version = read_record(path)
        name = version.name if version else path.stem
        return Source(str(path), name, file_sha256(path), read_npz(path), version)
    with tempfile.TemporaryDirectory(prefix="trainer-") as scratch:
        fetched = fetch(store(), reference, Path(scratch))
        arrays = read_npz(fetched.path)
    model = fetched.model
    return Source(model.reference, model.name, model.sha256, arrays, model)


def as_recorded(source: Source, network: str | None) -> Subject:
    """Return what computes the scores of a model that trainer trained.

    Args:
        source: The model.
        network: ``FILE.py:NAME`` of its network, where that is its own and not recorded or not here.

    Raises:
        TrainerError: As :func:`trainer.modeluse.open_model`.
    """
    from trainer.modeluse.network import Network, scaled
    from trainer.modeluse.source import model_of_arrays
    from trainer.runtime.networks import as_inputs

    loaded = model_of_arrays(source.label, source.arrays, source.version, network)
    found = loaded.network
    if isinstance(found, Network):
        return Subject(
            source,
            (found.inputs,),
            loaded.classes,
            scores=found.scores,
            inputs=lambda examples: scaled(examples.reshape(len(examples), -1)),
            layers=found,
        )
    return Subject(
        source,
        found.shape,
        loaded.classes,
        scores=_scores_of(found.chain),
        inputs=lambda examples: scaled(as_inputs(examples, flat=False)),
        link=found.chain,
    )


def built(source: Source, path: Path, function: str, shape: tuple[int, ...]) -> Subject:
    """Return what computes the scores of a model whose network a function of the user's builds.

    Args:
        source: The model.
        path: The user's Python file.
        function: Builds the link; takes no arguments.
        shape: Of one input.

    Raises:
        UsageError: The function fails, its network isn't the model's, or doesn't take such inputs.
    """
    from trainer.modeluse.built_network import build_network
    from trainer.modeluse.network import scaled

    link = build_network(path, function, source.arrays, source.label)
    scores = _scores_of(link)
    try:
        outputs = scores(np.zeros((2, *shape), np.float32))
    except UsageError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise UsageError(
            f"The network fails on an input of shape {shape}: {type(error).__name__}: {error}.",
            "Give the shape of one input, without the batch: --input-shape 1,28,28",
        ) from error
    record = source.version.data if source.version else None
    known = record.classes if record else ()
    return Subject(
        source,
        shape,
        known if outputs.ndim == 2 and len(known) == outputs.shape[1] else (),
        scores=scores,
        inputs=lambda examples: scaled(_reshaped(examples, shape)),
        link=link,
    )


def _scores_of(link: Any) -> Callable[[Array], Array]:  # noqa: ANN401  # a chainer.Link
    from trainer.modeluse.built_network import run_network

    return lambda inputs: run_network(link, inputs)


def _reshaped(examples: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    from trainer.runtime.networks import as_inputs

    return as_inputs(examples, flat=False).reshape(len(examples), *shape)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
