"""The included script's network as an ONNX graph, made from its weights. Needs no Chainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.modeluse.network import Network

INPUT, OUTPUT, BATCH = "input", "scores", "batch"
# Of 2021: old enough for every runtime that is in use.
OPSET, IR_VERSION = 13, 8


def graph_of_layers(network: Network) -> Any:  # noqa: ANN401  # an onnx.GraphProto; onnx is not always installed
    """Return a graph of ``Gemm`` and ``Relu``: float32 (batch, inputs) in, scores (batch, classes) out."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, tensors, before = [], [], INPUT
    last = len(network.layers)
    for number, (weights, bias) in enumerate(network.layers, 1):
        names = [f"l{number}/W", f"l{number}/b"]
        tensors += [numpy_helper.from_array(array, name) for name, array in zip(names, (weights, bias), strict=True)]
        after = OUTPUT if number == last else f"l{number}"
        nodes.append(helper.make_node("Gemm", [before, *names], [after], name=f"l{number}", transB=1))
        if number < last:
            nodes.append(helper.make_node("Relu", [after], [f"{after}/relu"], name=f"{after}/relu"))
        before = f"{after}/relu"
    return helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [BATCH, network.inputs])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [BATCH, network.classes])],
        tensors,
    )
