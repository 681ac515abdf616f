"""Which nodes of a candidate for OpenVINO read integers: its integer layers, and what only carries values to them.

OpenVINO fuses what stands behind a convolution, sums and activations and the rounding of the result, into its kernel, in float
registers. What costs time is a tensor that is written in float where integers would do. So a tensor is rounded where an integer
layer reads it, as near to where it was computed as values are only moved from there; all else runs in float.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from . import domains
from .graph import Graph, Layer
from .integer_ops import OPS

if TYPE_CHECKING:
    import onnx_ir as ir

CARRYING = ("Concat", "DepthToSpace", "MaxPool", "Resize")  # that move values, or choose among them, and gain by it
MOVING = (*CARRYING, "Flatten", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
CHANNELS = 1  # the axis along which OpenVINO joins what runs in integers


def has_integer_kernel(graph: Graph, layer: Layer) -> bool:
    """Whether OpenVINO's integer kernels can run a layer: Conv, Gemm, MatMul, and ConvTranspose as a Conv and DepthToSpace.

    Not where it reads what was joined along another axis than the channels: OpenVINO rounds before it joins, and fails.
    """
    if layer.recurrent:
        return False
    nodes = [node for node in graph.model.graph if node.name in layer.nodes]
    if any(_joined_elsewhere(graph, node, len(layer.kernel) == 0) for node in nodes):
        return False
    if layer.op == "ConvTranspose":
        return domains.has_integer_kernel(graph, layer) and len(set(layer.strides)) == 1
    return layer.op != "Conv" or 1 <= len(layer.kernel) <= 3


def _joined_elsewhere(graph: Graph, node: ir.Node, product: bool) -> bool:
    """Whether a layer's node reads, moved or not, a Concat along another axis than the channels."""
    value = node.inputs[0]
    writer = None if value is None else value.producer()
    if writer is None or writer.op_type not in MOVING:
        return False
    if writer.op_type == "Concat":
        many_axes = len(graph.shapes[writer.outputs[0].name or ""]) > 2
        return not _joins_channels(graph, writer) or (product and many_axes)
    return _joined_elsewhere(graph, writer, product)


def carries(graph: Graph, node: ir.Node) -> bool:
    """Whether a node only moves the values of one tensor, or of several on one grid."""
    if node.op_type not in CARRYING or not OPS[node.op_type].accepts(graph, node):
        return False
    return node.op_type != "Concat" or _joins_channels(graph, node)


def _joins_channels(graph: Graph, node: ir.Node) -> bool:
    """Whether a Concat is along the axis of the channels."""
    return bool(node.attributes.get_int("axis", 0) % len(graph.shapes[node.outputs[0].name or ""]) == CHANNELS)


def carried(node: ir.Node) -> list[str]:
    """Return the names of what a node that reads integers reads of them."""
    values = node.inputs if node.op_type == "Concat" else node.inputs[:1]
    return [value.name or "" for value in values if value is not None]


class CarriedDomains:
    """The nodes of a graph that read integers, for any choice of layers.

    Attributes:
        nodes: names, in the order of the graph.
        tensors, elements: none: no sizes count.
    """

    def __init__(self, graph: Graph) -> None:
        found = list(graph.model.graph)
        self.nodes = tuple(node.name or "" for node in found)
        self.tensors: tuple[str, ...] = ()
        self.elements = np.zeros((1, 0))
        layers = {name: number for number, name in enumerate(graph.layers)}
        self._layers = {
            number: layers[graph.layer_of_node[name]]
            for number, name in enumerate(self.nodes)
            if name in graph.layer_of_node
        }
        readers: dict[str, list[int]] = {}
        for number, node in enumerate(found):
            for name in carried(node):
                readers.setdefault(name, []).append(number)
        self._behind = {
            number: [reader for value in node.outputs for reader in readers.get(value.name or "", ())]
            for number, node in enumerate(found)
            if carries(graph, node)
        }

    def integer(self, layers: NDArray[np.bool_], elements: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which nodes read integers ``[M, nodes]``; see `rules.NodeDomains`."""
        found = np.zeros((len(layers), len(self.nodes)), bool)
        for number in reversed(range(len(self.nodes))):
            if number in self._layers:
                found[:, number] = layers[:, self._layers[number]]
            elif number in self._behind:
                found[:, number] = found[:, self._behind[number]].any(axis=1)
        return found
