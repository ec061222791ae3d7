"""Scoring without a script: pixels or pictures in, class and probabilities out.

Two networks: the one that trainer trains, run in NumPy (:class:`NetworkScorer`), and any Chainer network that a
function of the user's builds (:class:`ChainerScorer`).
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from trainer.errors import TrainerError, UsageError
from trainer.modelfile import read_npz
from trainer.modeluse.building import split_model_file
from trainer.modeluse.built_network import build_network, run_network
from trainer.modeluse.network import Network, probabilities
from trainer.serving.inputs import Array, Reader, colour_picture, digit_picture
from trainer.serving.scoring import Answer, ModelFiles, Request

_TOLERANCE = 1e-3


class Prediction(msgspec.Struct, rename={"label": "class"}):
    """What an input is taken for; ``class`` in JSON."""

    label: int
    probability: float
    probabilities: list[float]


class Predictions(msgspec.Struct):
    """The answer's body, one prediction per input, in their order."""

    predictions: list[Prediction]
    model: str


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
        inputs = self._network.inputs
        try:
            side = self._network.image_size
        except UsageError:
            self._reader = Reader((inputs,), None)
            self.about = f"{inputs} numbers in, {self._network.classes} classes out"
        else:
            self._reader = Reader((inputs,), digit_picture(side))
            self.about = f"{side}x{side} pixels in, {self._network.classes} classes out"
        self.schema = schema(self._reader, self._network.classes)

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
            scores = self._network.scores(inputs)
        return Answer(_ENCODER.encode(classified(scores, self._label)), inputs=len(inputs))


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
        found = classified(outputs, self._label, already=self._gives_probabilities)
        return Answer(_ENCODER.encode(found), inputs=len(inputs))

    def _run(self, inputs: Array) -> NDArray[np.float32]:
        return run_network(self._network, inputs)


def classified(scores: NDArray[np.float32], label: str, *, already: bool = False) -> Predictions:
    """Return the answer to a batch.

    Args:
        scores: Shape (B, classes).
        label: The model.
        already: They are probabilities, not scores before the softmax.
    """
    found = scores.astype(np.float64) if already else probabilities(scores)
    labels = found.argmax(axis=1).tolist()
    rows = found.tolist()
    made = [Prediction(best, row[best], row) for best, row in zip(labels, rows, strict=True)]
    return Predictions(made, label)


def schema(reader: Reader, classes: int | None) -> dict[str, Any]:
    """The JSON schemas of a body and of its answer, and the other kinds of body that are taken."""
    one: dict[str, Any] = {"type": "array", "items": {"type": "number"}}
    if reader.shape:
        one |= {"minItems": reader.numbers, "maxItems": reader.numbers}
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
    found = {
        "type": "object",
        "properties": {
            "class": {"type": "integer", "minimum": 0},
            "probability": {"type": "number", "minimum": 0, "maximum": 1},
            "probabilities": row,
        },
    }
    return {
        "input": {"type": "object", "properties": properties},
        "output": {
            "type": "object",
            "properties": {"predictions": {"type": "array", "items": found}, "model": {"type": "string"}},
        },
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
