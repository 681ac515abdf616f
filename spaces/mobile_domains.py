"""Which nodes of a candidate for LiteRT or ExecuTorch run in integers: its integer layers, and ops between where it is cheaper.

Both compute in XNNPACK on a processor. Its integer kernels write integers: a layer's output is rounded always, and what follows
reads it so or in float, whichever costs less (`domains`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from . import domains
from .graph import Graph, Layer
from .integer_ops import OPS, IntegerOp, constant_input

if TYPE_CHECKING:
    import onnx_ir as ir

MOVING = (
    "DepthToSpace",
    "Flatten",
    "MaxPool",
    "Pad",
    "Reshape",
    "Resize",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
CLIPPING = ("Relu", "Clip")
OTHERS = ("Concat", "LeakyRelu", "Sigmoid")


class MobileDomains(domains.Domains):
    """The domains of a graph's nodes, for any choice of layers; see `domains.Domains`."""

    free_products = False
    ops: Mapping[str, IntegerOp] = {
        **{name: OPS[name] for name in (*MOVING, *CLIPPING, *OTHERS, "Add")},
        "Mul": replace(OPS["Mul"], accepts=OPS["Add"].accepts),  # of two computed tensors
    }


def has_integer_kernel(graph: Graph, layer: Layer) -> bool:
    """Whether XNNPACK's integer kernels can run a layer: Conv in 2-D, ConvTranspose as a Conv and a shuffle, Gemm, MatMul."""
    if layer.op in ("Gemm", "MatMul"):
        nodes = [node for node in graph.model.graph if node.name in layer.nodes]
        return all(_is_plain(node, layer) for node in nodes)
    if not domains.has_integer_kernel(graph, layer):
        return False
    return layer.op == "Conv" or len(set(layer.strides)) == 1


def _is_plain(node: ir.Node, layer: Layer) -> bool:
    """Whether a product is inputs times weights, and a bias for each output, as XNNPACK's fully connected kernel has it."""
    weight = node.inputs[1]
    if weight is None or weight.name != layer.weight or len(layer.shape) != 2:
        return False
    if layer.op == "MatMul":
        return True
    bias = constant_input(node, 2)
    scaled = [node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
    fits = len(node.inputs) < 3 or node.inputs[2] is None or (bias is not None and bias.size in (1, layer.channels))
    return fits and scaled == [1.0, 1.0] and not node.attributes.get_int("transA", 0)
