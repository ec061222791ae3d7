"""An ONNX file, and its comparison with what the model computes here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trainer.errors import RunFailedError, UsageError
from trainer.export.onnx_layers import INPUT, IR_VERSION, OPSET
from trainer.export.subject import Array, Subject

if TYPE_CHECKING:
    import onnxruntime

# The sizes of the first batches that are compared; then 100 at a time.
_BATCHES = (1, 2, 7)
_BATCH = 100


def onnx_bytes(subject: Subject) -> bytes:
    """Return the content of an ONNX file: float32 ``input`` (batch, *shape) in, ``scores`` (batch, classes) out.

    Raises:
        UsageError: The network can't be exported.
    """
    import onnx
    from onnx import checker, helper

    from trainer.export.onnx_chainer_graph import graph_of_link
    from trainer.export.onnx_layers import graph_of_layers

    graph, opset = (
        (graph_of_layers(subject.layers), OPSET)
        if subject.layers is not None
        else graph_of_link(subject.link, subject.shape)
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, producer_name="chainer-trainer", opset_imports=opsets, ir_version=IR_VERSION)
    helper.set_model_props(model, subject.metadata())
    try:
        checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString()
        return content
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise UsageError(
            f"The network's graph is not a valid one: {' '.join(str(error).split())[:300]}",
            "Export the weights: --format safetensors",
        ) from error


def largest_difference(content: bytes, subject: Subject, inputs: Array) -> tuple[float, float]:
    """Run a file in onnxruntime, on batches of several sizes.

    Args:
        content: Of the file.
        subject: What it was made of.
        inputs: Shape (N, *shape).

    Returns:
        The largest absolute difference between its scores and the model's; NaN where one of them is none. And the
        largest score.

    Raises:
        RunFailedError: onnxruntime can't run it, or its scores are of another shape.
    """
    session = _session(content)
    difference = largest = 0.0
    for batch in _batches(inputs):
        expected = subject.scores(batch)
        try:
            [found] = session.run(None, {INPUT: batch})
        except Exception as error:  # onnxruntime has many
            raise _unusable(f"onnxruntime can't run it for a batch of {len(batch)}", error) from error
        if found.shape != expected.shape:
            raise RunFailedError(
                f"The exported network gives scores of shape {found.shape}, and the model {expected.shape}.", _NOTHING
            )
        # Not max() of the two: that would drop a NaN.
        difference = float(np.maximum(difference, np.abs(found.astype(np.float64) - expected).max(initial=0)))
        largest = float(np.maximum(largest, np.abs(expected).max(initial=0)))
    return difference, largest


_NOTHING = "Nothing was written. Export the weights: --format safetensors"


def _batches(inputs: Array) -> list[Array]:
    found: list[Array] = []
    start = 0
    while start < len(inputs):
        size = _BATCHES[len(found)] if len(found) < len(_BATCHES) else _BATCH
        found.append(np.ascontiguousarray(inputs[start : start + size]))
        start += size
    return found


def _session(content: bytes) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise _unusable("onnxruntime can't load it", error) from error


def _unusable(what: str, error: Exception) -> RunFailedError:
    text = " ".join(str(error).split())[:300]
    return RunFailedError(f"The exported network is of no use: {what}: {text}", _NOTHING)
