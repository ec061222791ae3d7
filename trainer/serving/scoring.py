"""What a scorer is, and what passes between it and the HTTP side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from trainer.artifacts import ModelVersion


@dataclass(frozen=True)
class ModelFiles:
    """A model on this machine.

    Attributes:
        label: ``name:version``, or the file's path.
        name: The model's name.
        version: Its number, or None for a file.
        model_file: The npz file.
        model_dir: What ``AZUREML_MODEL_DIR`` is to say.
        record: What is recorded of it, where that is known.
    """

    label: str
    name: str
    version: int | None
    model_file: Path
    model_dir: Path
    record: ModelVersion | None = None


@dataclass(slots=True)
class Request:
    """A request to ``/score``.

    Attributes:
        method: ``GET`` or ``POST``.
        query: The query string.
        body: The body, whole.
        content_type: The header's value without parameters, in lower case.
        headers: As they came: lower-case names and values, latin-1.
    """

    method: str
    query: str
    body: bytes
    content_type: str
    headers: list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Answer:
    """An answer of ``/score``.

    Attributes:
        body: The body.
        status: HTTP status.
        inputs: How many inputs were scored.
        failed: The score script failed.
        milliseconds: How long the score script ran, or None without one.
        headers: More headers.
    """

    body: bytes
    status: int = 200
    inputs: int = 0
    failed: bool = False
    milliseconds: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Scorer(Protocol):
    """What answers the requests of one model version in one process.

    Attributes:
        in_main_thread: Load and score in the process's main thread, one request at a time: Chainer's configuration
            belongs to a thread, and a script may use signals. If false, scoring is so short that the event loop
            itself does it.
        about: One line about what goes in and comes out.
        schema: ``input`` and ``output``, JSON schemas; ``bodies``, the other media types that are taken; and
            ``numbers``, how many numbers one input has.
    """

    in_main_thread: bool
    about: str
    schema: dict[str, Any]

    def load(self) -> None:
        """Make ready; may take long.

        Raises:
            Exception: Whatever the user's code raises.
        """
        ...

    def score(self, request: Request) -> Answer:
        """Answer a request.

        Raises:
            InputError: Its body can't be used.
        """
        ...
