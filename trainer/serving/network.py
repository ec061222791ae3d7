"""Scoring without a script: pixels or pictures in, class and probabilities out.

Three networks: the one that trainer trains, run in NumPy (:class:`NetworkScorer`); one of the user's own that trainer
trained (:class:`RecordedScorer`); and any Chainer network that a function of the user's builds
(:class:`ChainerScorer`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from trainer.errors import TrainerError, UsageError
from trainer.job import DataRecord
from trainer.modelfile import read_npz
from trainer.modeluse.building import NetworkChoice, split_model_file
from trainer.modeluse.built_network import build_network, run_network
from trainer.modeluse.network import Network, probabilities
from trainer.modeluse.own_network import OwnNetwork
from trainer.modeluse.source import model_of_arrays
from trainer.runtime.networks import as_inputs
from trainer.serving.inputs import Array, Reader, colour_picture, digit_picture, own_picture
from trainer.serving.scoring import Answer, ModelFiles, Request, Scorer

_TOLERANCE = 1e-3


class Prediction(msgspec.Struct, rename={"label": "class"}, omit_defaults=True):
    """What an input is taken for; ``class`` in JSON. The name is there where the classes have some."""

    label: int
    probability: float
    probabilities: list[float]
    name: str = ""


class Predictions(msgspec.Struct, omit_defaults=True):
    """The answer's body: one prediction per input, in their order, and the classes' names, where they have some."""

    predictions: list[Prediction]
    model: str
    classes: Sequence[str] = ()


class Outputs(msgspec.Struct):
    """The answer's body of a network that does not classify."""

    outputs: list[Any]
    model: str


_ENCODER = msgspec.json.Encoder()


class NetworkScorer:
    """The network that trainer knows, run in NumPy. Nothing in the model's file is executed.

    Args:
        files: The model.

    Raises:
        TrainerError: As :func:`trainer.modeluse.open_model` raises.
    """

    in_main_thread = False

    def __init__(self, files: ModelFiles) -> None:
        self._label = files.label
        self._files = files
        self._network = Network.from_arrays(read_npz(files.model_file), files.label)
        self._input = trained_input(files, self._network)
        self._names = class_names(files, self._network.classes)
        self._reader = self._input.reader
        self.about = f"{self._input.about} in, {self._network.classes} classes out"
        self.schema = schema(self._reader, self._network.classes, self._names, self._input)

    def load(self) -> None:
        """Run the network once, so that the first request doesn't pay for it."""
        self._network.scores(np.zeros((1, self._network.inputs), np.float32))

    def score(self, request: Request) -> Answer:
        """Answer a request.

        Raises:
            InputError: Its body can't be used.
        """
        inputs = self._reader.read(request.body, request.content_type)
        with np.errstate(over="ignore", invalid="ignore"):
            scores = self._network.scores(self._input.prepared(inputs).reshape(len(inputs), -1))
        return Answer(_ENCODER.encode(classified(scores, self._label, self._names)), inputs=len(inputs))


class RecordedScorer:
    """A Chainer network that ``trainer run --network`` trained, as the model's record says.

    Args:
        files: The model.
        network: ``FILE.py:NAME`` in place of the file that travelled with the run, or None.

    Raises:
        TrainerError: As :func:`trainer.modeluse.open_model` raises.
    """

    in_main_thread = True

    def __init__(self, files: ModelFiles, network: str | None) -> None:
        self._label = files.label
        arrays = read_npz(files.model_file)
        self._loaded = model_of_arrays(files.label, arrays, files.record, network).network
        self._input = trained_input(files, self._loaded)
        self._names = class_names(files, self._loaded.classes)
        self.about = f"{self._input.about} in, {self._loaded.classes} classes out"
        self.schema = schema(self._input.reader, self._loaded.classes, self._names, self._input)

    def load(self) -> None:
        """Run the network once, so that the first request doesn't pay for it."""
        self._loaded.scores_of(np.zeros((1, *self._input.reader.shape), np.float32))

    def score(self, request: Request) -> Answer:
        """Answer a request.

        Raises:
            InputError: Its body can't be used.
        """
        inputs = self._input.prepared(self._input.reader.read(request.body, request.content_type))
        scores = self._loaded.scores_of(inputs)
        if not np.isfinite(scores).all():
            raise UsageError("The network's outputs are not finite.", "Are the inputs what it was trained on?")
        return Answer(_ENCODER.encode(classified(scores, self._label, self._names)), inputs=len(inputs))


class ChainerScorer:
    """A Chainer network that a function of the user's builds, with the parameters of the model's file.

    Args:
        files: The model.
        model_file: ``FILE.py:FUNCTION``.
        shape: Of one input, or empty where it isn't told.
    """

    in_main_thread = True

    def __init__(self, files: ModelFiles, model_file: str, shape: tuple[int, ...]) -> None:
        self._label = files.label
        self._files = files
        self._path, self._function = split_model_file(model_file)
        self._shape = shape
        self._reader = Reader(shape, _picture(shape))
        self._network: Any = None
        self._gives_probabilities = False
        self.about = f"{model_file}, {'x'.join(map(str, shape)) or 'any'} numbers in"
        self.schema = schema(self._reader, None)

    def load(self) -> None:
        """Build the network, and run it once if its input's shape is known.

        Raises:
            TrainerError: The function fails, or the parameters don't fit what it builds.
        """
        arrays = read_npz(self._files.model_file)
        self._network = build_network(self._path, self._function, arrays, self._files.label)
        if self._shape:
            example = np.random.default_rng(0).random((2, *self._shape), np.float32)
            try:
                outputs = self._run(example)
            except TrainerError:
                raise
            except Exception as error:
                raise UsageError(
                    f"The network fails on an input of shape {self._shape}: {type(error).__name__}: {error}.",
                    "Give the shape of one input, without the batch: --input-shape 1,28,28",
                ) from error
            sums = outputs.reshape(len(outputs), -1).sum(axis=1)
            self._gives_probabilities = outputs.min() >= 0 and bool(np.abs(sums - 1).max() < _TOLERANCE)

    def score(self, request: Request) -> Answer:
        """Answer a request.

        Raises:
            InputError: Its body can't be used.
        """
        inputs = self._reader.read(request.body, request.content_type)
        outputs = self._run(inputs)
        if not np.isfinite(outputs).all():
            raise UsageError("The network's outputs are not finite.", "Are the inputs what it was trained on?")
        if outputs.ndim != 2 or outputs.shape[1] < 2:
            return Answer(_ENCODER.encode(Outputs(outputs.tolist(), self._label)), inputs=len(inputs))
        names = class_names(self._files, outputs.shape[1])
        found = classified(outputs, self._label, names, already=self._gives_probabilities)
        return Answer(_ENCODER.encode(found), inputs=len(inputs))

    def _run(self, inputs: Array) -> NDArray[np.float32]:
        return run_network(self._network, inputs)


def network_scorer(files: ModelFiles, choice: NetworkChoice) -> Scorer:
    """Return what scores with a model's network: the one that is said, or recorded, or else the one we know.

    Raises:
        TrainerError: As :func:`trainer.modeluse.open_model` raises.
    """
    if choice.model_file is not None:
        return ChainerScorer(files, choice.model_file, choice.input_shape)
    if choice.network is not None or (files.record is not None and files.record.network is not None):
        return RecordedScorer(files, choice.network)
    return NetworkScorer(files)


def classified(
    scores: NDArray[np.float32], label: str, names: Sequence[str] = (), *, already: bool = False
) -> Predictions:
    """Return the answer to a batch.

    Args:
        scores: Shape (B, classes).
        label: The model.
        names: Of the classes, where they have some.
        already: They are probabilities, not scores before the softmax.
    """
    found = scores.astype(np.float64) if already else probabilities(scores)
    labels = found.argmax(axis=1).tolist()
    rows = found.tolist()
    made = [
        Prediction(best, row[best], row, names[best] if names else "") for best, row in zip(labels, rows, strict=True)
    ]
    return Predictions(made, label, names)


class TrainedInput(NamedTuple):
    """What a model takes that trainer trained.

    Attributes:
        reader: Reads it.
        about: What it is, in a few words.
        picture: ``digit`` where a picture shows one digit and is prepared as such, else ``picture``; empty without any.
        record: Of the user's own data, if it was that.
    """

    reader: Reader
    about: str
    picture: str = ""
    record: DataRecord | None = None

    def prepared(self, inputs: Array) -> Array:
        """Return the network's inputs: those of a table are scaled as the training set was."""
        record = self.record
        if record is None or record.kind != "table":
            return inputs
        return np.asarray((inputs - np.array(record.mean)) / np.array(record.scale), np.float32)


def trained_input(files: ModelFiles, network: Network | OwnNetwork) -> TrainedInput:
    """Return what a model takes, by its record, or by its network where there is none."""
    record = files.record.data if files.record else None
    if record is not None and math.prod(record.shape) != network.inputs:
        record = None
    if record is None or (record.kind == "idx" and len(record.shape) == 2):
        shape = network.shape if isinstance(network, OwnNetwork) else (network.inputs,)
        try:
            side = network.image_size
        except UsageError:
            return TrainedInput(Reader(shape, None), f"{_times(shape)} numbers")
        return TrainedInput(Reader(shape, digit_picture(side)), f"{side}x{side} pixels", "digit")
    if record.kind == "table":
        return TrainedInput(Reader(record.shape, None), f"{len(record.columns)} columns", record=record)
    shape = as_inputs(np.empty((1, *record.shape), np.uint8), flat=False).shape[1:]
    if record.kind == "pictures":
        kind = "colour" if len(record.shape) == 3 else "grey"
        rows, columns = record.shape[-2:]
        about = f"{kind} pictures of any size, made {rows}x{columns},"
        return TrainedInput(Reader(shape, own_picture(record)), about, "picture", record)
    return TrainedInput(Reader(shape, None), f"{_times(shape)} numbers", record=record)


def class_names(files: ModelFiles, classes: int) -> tuple[str, ...]:
    """Return the names of a model's classes, where its record has as many as there are."""
    known = files.record.data.classes if files.record and files.record.data else ()
    return known if len(known) == classes and known != tuple(map(str, range(classes))) else ()


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def schema(
    reader: Reader, classes: int | None, names: Sequence[str] = (), taken: TrainedInput | None = None
) -> dict[str, Any]:
    """The JSON schemas of a body and of its answer, and the other kinds of body that are taken."""
    one: dict[str, Any] = {"type": "array", "items": {"type": "number"}}
    if reader.shape:
        one |= {"minItems": reader.numbers, "maxItems": reader.numbers}
        one["description"] = f"One input of shape {_times(reader.shape)}, in C's order; or nested like that."
    if taken is not None and taken.record is not None and taken.record.columns:
        one["description"] = f"The columns, as they are in the table: {', '.join(taken.record.columns)}"
    properties: dict[str, Any] = {"data": {"type": "array", "items": one, "minItems": 1}}
    if not reader.shape:
        properties["data"] = {"type": "array", "items": {}, "minItems": 1}
    kinds = []
    if reader.takes_pictures:
        properties["images"] = {"type": "array", "items": {"type": "string", "format": "byte"}, "minItems": 1}
        kinds += ["image/png", "image/jpeg"]
    if reader.shape:
        kinds.insert(0, "application/octet-stream")
    row: dict[str, Any] = {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}}
    if classes:
        row |= {"minItems": classes, "maxItems": classes}
    found: dict[str, Any] = {
        "type": "object",
        "properties": {
            "class": {"type": "integer", "minimum": 0},
            "probability": {"type": "number", "minimum": 0, "maximum": 1},
            "probabilities": row,
        },
    }
    if names:
        found["properties"]["name"] = {"type": "string", "enum": list(names)}
    answer: dict[str, Any] = {"predictions": {"type": "array", "items": found}, "model": {"type": "string"}}
    if names:
        answer["classes"] = {"type": "array", "items": {"type": "string"}}
    described: dict[str, Any] = {"type": "object", "properties": properties}
    if reader.takes_pictures:
        # For the page, which shows a field to draw on, or takes files.
        described["x-picture"] = taken.picture if taken is not None else "digit" if reader.shape[0] == 1 else "picture"
    return {
        "input": described,
        "output": {"type": "object", "properties": answer},
        "bodies": kinds,
        "numbers": reader.numbers,
    }


def _picture(shape: tuple[int, ...]) -> Any:  # noqa: ANN401  # what Reader takes, or None
    if len(shape) == 2 or (len(shape) == 3 and shape[0] == 1):
        rows, columns = shape[-2:]
        return digit_picture(rows) if rows == columns else None
    if len(shape) == 3 and shape[0] == 3:
        return colour_picture(*shape[1:])
    return None
