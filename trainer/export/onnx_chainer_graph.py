"""A Chainer network as an ONNX graph, through the exporter that Chainer brings, for batches of any size.

onnx_chainer (part of Chainer 7) runs the network on an example and writes down what it did, with the example's batch
size in it: ``F.reshape``, and so every ``L.Linear`` after a convolution, keeps the size as a constant. Here the network
is written down for batches of two sizes. Where the two graphs differ, the difference must be such a size, and it is
freed; anything else is refused. What comes out is compared with Chainer afterwards all the same.
"""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.errors import UsageError
from trainer.export.onnx_layers import BATCH, INPUT, OUTPUT

if TYPE_CHECKING:
    import onnx

_SIZES = (2, 3)
# Written without a word, and wrong: the node lacks Chainer's alignment of the corners.
_WRONG = {"ResizeImages": "F.resize_images, which aligns the corners; the node that is written does not"}


def graph_of_link(link: Any, shape: tuple[int, ...]) -> tuple[onnx.GraphProto, int]:  # noqa: ANN401  # a chainer.Link
    """Return the graph of a network, for batches of any size, and the version of ONNX's operators that it uses.

    Args:
        link: It has its weights, and gives one array of scores.
        shape: Of one input.

    Raises:
        UsageError: The network can't be exported.
    """
    graphs = []
    for size in _SIZES:
        model = _written_down(link, np.random.default_rng(size).random((size, *shape), np.float32))
        graphs.append(model.graph)
    for node in graphs[0].node:
        why = _WRONG.get(node.name.rpartition("_")[0])
        if why:
            raise UsageError(
                f"The network uses {why}, so the file would give other numbers.",
                "Use F.unpooling_2d or L.Deconvolution2D, or export the weights: --format safetensors",
            )
    graph, opset = _freed(*graphs), model.opset_import[0].version
    _only_inputs_as_inputs(graph)
    _named(graph, link)
    return graph, opset


def _written_down(link: Any, example: Any) -> onnx.ModelProto:  # noqa: ANN401  # a chainer.Link; float32 (B, ...)
    import onnx_chainer

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what may be wrong; it is compared
            model: onnx.ModelProto = onnx_chainer.export(link, example, input_names=[INPUT], output_names=[OUTPUT])
            return model
    except Exception as error:  # onnx_chainer raises whatever it runs into
        unknown = re.fullmatch(r"(\w+) is not supported", str(error))
        if unknown:
            raise UsageError(
                f"onnx_chainer can't export {unknown[1]}, which the network uses.",
                "Export the weights: --format safetensors",
            ) from error
        raise UsageError(
            f"onnx_chainer can't export the network: {type(error).__name__}: {_line(error)}",
            "Export the weights: --format safetensors",
        ) from error


def _freed(graph: onnx.GraphProto, other: onnx.GraphProto) -> onnx.GraphProto:
    """Return the first graph, without the batch's size.

    Args:
        graph: For a batch of the first of the two sizes.
        other: The same for the second.
    """
    from onnx import numpy_helper

    if [node.op_type for node in graph.node] != [node.op_type for node in other.node]:
        raise _bound("its operations")
    readers = {name: node for node in graph.node for name in node.input}
    for node, its in zip(graph.node, other.node, strict=True):
        if node == its:
            continue
        reader = readers.get(node.output[0])
        if node.op_type != "Constant" or reader is None or reader.op_type not in ("Reshape", "Expand"):
            raise _bound(f"{node.name}, {node.op_type}")
        [attribute] = [each for each in node.attribute if each.name == "value"]
        [its_attribute] = [each for each in its.attribute if each.name == "value"]
        sizes, its_sizes = (numpy_helper.to_array(each.t) for each in (attribute, its_attribute))
        attribute.t.CopyFrom(numpy_helper.from_array(_free_shape(sizes, its_sizes, reader), attribute.t.name))
    for mine, theirs in zip(graph.initializer, other.initializer, strict=True):
        if mine != theirs:
            raise _bound(f"{mine.name}, an array")
    for mine, theirs in zip((*graph.input, *graph.output), (*other.input, *other.output), strict=True):
        dims, its_dims = (value.type.tensor_type.shape.dim for value in (mine, theirs))
        different = [axis for axis, pair in enumerate(zip(dims, its_dims, strict=True)) if pair[0] != pair[1]]
        if different not in ([], [0]):
            raise _bound(f"the shape of {mine.name}")
        for axis in different:
            dims[axis].dim_param = BATCH
    # Shapes in between, for a batch of that size.
    del graph.value_info[:]
    return graph


def _free_shape(sizes: Any, its_sizes: Any, reader: onnx.NodeProto) -> Any:  # noqa: ANN401  # int64 arrays
    """Return a shape in which the size of the batch is left open."""
    if sizes.shape != its_sizes.shape:
        raise _bound(reader.name)
    freed = sizes.copy()
    different = np.flatnonzero(sizes != its_sizes)
    if reader.op_type == "Expand":
        freed[different] = 1  # as it is; the operation that follows expands it anyway
    elif len(different) == 1 and -1 not in sizes:
        freed[different] = -1  # whatever is left
    elif list(different) == [0]:
        freed[0] = 0  # the input's own
    else:
        raise _bound(reader.name)
    return freed


def _only_inputs_as_inputs(graph: onnx.GraphProto) -> None:
    """Take weights out of the list of inputs, where runtimes warn of them."""
    weights = {tensor.name for tensor in graph.initializer}
    kept = [value for value in graph.input if value.name not in weights]
    del graph.input[:]
    graph.input.extend(kept)


def _named(graph: onnx.GraphProto, link: Any) -> None:  # noqa: ANN401  # a chainer.Link
    """Give weights Chainer's paths for names, as in an npz file, in place of onnx_chainer's ``param_l1_W``."""
    from chainer.serializers import DictionarySerializer

    serializer = DictionarySerializer()
    serializer.save(link)
    plain: dict[str, str] = {}
    for name in serializer.target:
        key = f"param_{name.replace('/', '_')}"
        plain[key] = "" if key in plain else name  # two that onnx_chainer calls alike keep what it calls them
    renamed = {tensor.name: plain.get(tensor.name) or tensor.name for tensor in graph.initializer}
    for tensor in graph.initializer:
        tensor.name = renamed[tensor.name]
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)


def _bound(what: str) -> UsageError:
    return UsageError(
        f"The network computes something else for another batch ({what}), so the file would work for one alone.",
        "In forward() reshape with x.reshape(len(x), -1), and make no array or number of a batch's size or values.",
    )


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{text[:300]}{'' if text.endswith('.') else '.'}"
