"""Which nodes of a candidate for OpenVINO read integers: its integer layers, and what only carries values to them.

OpenVINO fuses what stands behind a convolution, sums and activations and the rounding of the result, into its kernel, in float
registers. What costs time is a tensor that is written in float where integers would do. So a tensor is rounded where an integer
layer reads it, as near to where it was computed as values are only moved from there; all else runs in float.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .graph import Graph, Layer
from .integer_ops import OPS

if TYPE_CHECKING:
    import onnx_ir as ir

CARRYING = (
    "Concat",
    "DepthToSpace",
    "MaxPool",
    "Pad",
    "Resize",
)  # that move values, or choose among them, and gain by it


def has_integer_kernel(graph: Graph, layer: Layer) -> bool:
    """Whether OpenVINO's integer kernels can run a layer: Conv, Gemm, MatMul, and ConvTranspose as a Conv and DepthToSpace."""
    if layer.op in ("Gemm", "MatMul"):
        return True
    if layer.op == "Conv":
        return 1 <= len(layer.kernel) <= 3
    nodes = [node for node in graph.model.graph if node.name in layer.nodes]
    plain = len(layer.kernel) == 2 and layer.group == 1 and all(d == 1 for d in layer.dilations)
    plain = plain and len(set(layer.strides)) == 1
    return plain and not any({"auto_pad", "output_shape"} & set(node.attributes) for node in nodes)


def carries(graph: Graph, node: ir.Node) -> bool:
    """Whether a node only moves the values of one tensor, or of several on one grid."""
    return node.op_type in CARRYING and OPS[node.op_type].accepts(graph, node)


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
            data = node.inputs[:1] if number in self._layers else node.inputs
            for value in data:
                if value is not None:
                    readers.setdefault(value.name or "", []).append(number)
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
