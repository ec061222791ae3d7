"""``trainer export`` from a model's name to a checked file."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from trainer.artifacts import ArtifactStore
from trainer.errors import ConfigError, MissingExtraError, RunFailedError, UsageError
from trainer.export.subject import Source, Subject, as_recorded, built, read_source
from trainer.modeluse.building import split_model_file
from trainer.runtime.atomic import write_bytes

FORMATS = ("onnx", "safetensors")
TOLERANCE = 1e-4


class ExportSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What to export, and how.

    Attributes:
        format: One of :data:`FORMATS`.
        output: The file, or an existing directory; None for a name made of the model's, in the working directory.
        model_file: ``FILE.py:FUNCTION`` that builds the Chainer network; None where the record says what it is.
        input_shape: Shape of one input of that network.
        network: ``FILE.py:NAME`` as ``trainer run --network`` took it, where the run is not here.
        tolerance: Largest difference between the exported network's scores and the model's.
        force: Replace a file.
    """

    format: str
    output: Path | None = None
    model_file: str | None = None
    input_shape: tuple[int, ...] = ()
    network: str | None = None
    tolerance: float = TOLERANCE
    force: bool = False


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was written.

    Attributes:
        path: Where it is.
        format: What it is.
        model: ``name:version``, or the path of the file that it was made of.
        sha256: Of the file, in lower-case hexadecimal.
        size: In bytes.
        tensors: How many of the model's arrays it was made of.
        difference: The largest difference between its scores and the model's; None for weights alone, which are equal
            bit for bit.
        compared: On how many inputs.
        inputs: What those were.
    """

    path: Path
    format: str
    model: str
    sha256: str
    size: int
    tensors: int
    difference: float | None = None
    compared: int = 0
    inputs: str = ""


def check(settings: ExportSettings) -> ExportSettings:
    """Return the settings if they can be used.

    Raises:
        UsageError: A value is unusable, or two exclude each other.
        MissingExtraError: The extra ``export`` is not installed.
    """
    if settings.model_file is not None:
        split_model_file(settings.model_file)
        if settings.network is not None:
            raise UsageError("--model-file and --network exclude each other.", "Both name the network; give one.")
        if not settings.input_shape:
            raise UsageError("--model-file needs --input-shape.", "The shape of one input: --input-shape 1,28,28")
    elif settings.input_shape:
        raise UsageError("--input-shape is for --model-file.", "Leave it out.")
    if settings.format == "safetensors" and (settings.model_file or settings.network):
        raise UsageError("safetensors holds weights, and no network.", "Leave --model-file and --network out.")
    if not (math.isfinite(settings.tolerance) and settings.tolerance > 0):
        raise UsageError("--tolerance must be a number above 0.", "For example: --tolerance 0.001")
    _need_libraries(settings.format)
    return settings


def export(reference: str, store: Callable[[], ArtifactStore], settings: ExportSettings) -> Exported:
    """Write a model in another format, once it is known to be the same.

    Args:
        reference: A path, or a name as :func:`trainer.artifacts.find_model` takes it.
        store: Gives the registry; asked only for a name.
        settings: As :func:`check` returns them.

    Raises:
        NotFoundError: There is no such file or version.
        UsageError: The network can't be exported, or a file is in the way.
        RunFailedError: The exported network gives other scores than the model; nothing was written.
        ConfigError: The file can't be written.
    """
    if settings.output is not None and not settings.output.is_dir():
        _check_place(settings.output, force=settings.force)
    source = read_source(reference, store)
    path = _place(source, settings)
    _check_place(path, force=settings.force)
    difference, compared, inputs = None, 0, ""
    if settings.format == "safetensors":
        from trainer.export.tensors import safetensors_bytes

        content = safetensors_bytes(source.arrays, source.metadata())
    else:
        content, difference, compared, inputs = _compared(_subject(source, settings), settings.tolerance)
    try:
        write_bytes(path, content)
    except OSError as error:
        raise ConfigError(f"Can't write {path}: {error.strerror}.", "Choose another file: -o FILE") from error
    return Exported(
        path=path,
        format=settings.format,
        model=source.label,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        tensors=len(source.arrays),
        difference=difference,
        compared=compared,
        inputs=inputs,
    )


def _subject(source: Source, settings: ExportSettings) -> Subject:
    if settings.model_file is None:
        recorded = source.version is not None and source.version.network is not None
        try:
            return as_recorded(source, settings.network)
        except UsageError as error:
            if recorded or settings.network is not None:
                raise
            hint = "Name the function that builds its network: --model-file FILE.py:FUNCTION --input-shape N,N"
            raise UsageError(error.message, hint) from error
    return built(source, *split_model_file(settings.model_file), settings.input_shape)


def _compared(subject: Subject, tolerance: float) -> tuple[bytes, float, int, str]:
    """The file's content, its largest difference, over how many inputs, and what those are."""
    from trainer.export.examples import examples
    from trainer.export.onnx_file import largest_difference, onnx_bytes

    content = onnx_bytes(subject)
    inputs, what = examples(subject)
    difference, largest = largest_difference(content, subject, inputs)
    if not difference <= tolerance:  # NaN is not
        hint = "Nothing was written. Export the weights: --format safetensors"
        if difference <= 1e-6 * largest:
            hint = f"The scores reach {largest:.3g}, where float32 is no finer: --tolerance {10 * difference:.0e}"
        raise RunFailedError(
            f"In onnxruntime the exported network's scores differ by {difference:.2g} from the model's; "
            f"{tolerance:g} is the most.",
            hint,
        )
    return content, difference, len(inputs), what


def _place(source: Source, settings: ExportSettings) -> Path:
    name = f"{source.file_name}.{settings.format}"
    if settings.output is None:
        return Path(name)
    return settings.output / name if settings.output.is_dir() else settings.output


def _check_place(path: Path, *, force: bool) -> None:
    """Refuse a place that can't take the file, before anything is computed."""
    if path.is_dir():
        raise UsageError(f"{path} is a directory.", "Choose another file: -o FILE")
    if not path.parent.is_dir():
        raise UsageError(f"There is no directory {path.parent}.", "Make it, or choose another file: -o FILE")
    if os.path.lexists(path) and not force:
        raise UsageError(f"{path} exists.", "Replace it with --force, or choose another file: -o FILE")


def _need_libraries(kind: str) -> None:
    from importlib.util import find_spec

    for name in ("onnx", "onnxruntime") if kind == "onnx" else ("safetensors",):
        if find_spec(name) is None:
            raise MissingExtraError(f"trainer export --format {kind} ({name})", "export")
