"""Which nodes run in integers: the layers that the candidate names, and the ops between them where that is cheapest.

Each op that has a good integer form may run in either domain; going from one domain to the other costs time for every
element of the tensor. The cheapest assignment is a minimum cut between "integer" and "float" (each tensor is converted
once, however many nodes read it). The costs are constants of the build, not measurements: the same candidate always gives
the same graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .candidate import Candidate
from .errors import BuildError
from .graph import Graph, Layer
from .integer_ops import OPS

if TYPE_CHECKING:
    import networkx
    import onnx_ir as ir

# Milliseconds for 2**20 elements on one core: [1, 64, 128, 128] measured on AVX512-VNNI; only their ratios matter.
TO_INTEGER = 0.84
TO_FLOAT = 0.67
ALWAYS = 1e9
PREFER_INTEGER = 1e-6  # between equal costs


def can_run_integer(graph: Graph, layer: Layer) -> bool:
    """Whether an integer kernel can run the layer (facts: Conv in 2-D, ConvTranspose as Conv, Gemm, MatMul)."""
    if layer.op in ("Gemm", "MatMul"):
        return True
    nodes = [node for node in graph.model.graph if node.name in layer.nodes]
    if len(layer.kernel) != 2:
        return False
    if layer.op == "Conv":
        return True
    plain = layer.group == 1 and all(d == 1 for d in layer.dilations)
    return plain and not any({"auto_pad", "output_shape"} & set(node.attributes) for node in nodes)


def integer_nodes(graph: Graph, candidate: Candidate) -> frozenset[str]:
    """Return the names of the nodes that run in integers for a candidate.

    Raises:
        BuildError: a layer with activation bits 8 that no integer kernel can run.
    """
    import networkx

    for name, choice in candidate.layers.items():
        if choice.integer and not can_run_integer(graph, graph.layers[name]):
            raise BuildError(
                f"layer {name!r} ({graph.layers[name].op}) has no integer kernel: activation_bits must be 32"
            )
    if not any(choice.integer for choice in candidate.layers.values()):
        return frozenset()
    network = networkx.DiGraph()
    nodes = list(graph.model.graph)
    ins, outs = _node_edges(network, graph, nodes, candidate)
    _tensor_edges(network, graph, nodes, ins, outs)
    _, (integer_side, _) = networkx.minimum_cut(network, SOURCE, SINK)
    return frozenset(node.name or "" for number, node in enumerate(nodes) if ins[number] in integer_side)


SOURCE, SINK = -1, -2  # integer, float


def _node_edges(
    network: networkx.DiGraph, graph: Graph, nodes: list[ir.Node], candidate: Candidate
) -> tuple[dict[int, int], dict[int, int]]:
    """Add a vertex for the domain that each node reads and one for what it writes; they differ only for matrix products."""
    ins, outs = {}, {}
    for number, node in enumerate(nodes):
        ins[number] = outs[number] = 2 * number
        integer_cost, float_cost = ALWAYS, 0.0
        layer = graph.layer_of_node.get(node.name or "")
        if layer is not None and candidate.choice(layer).integer:
            integer_cost, float_cost = 0.0, ALWAYS
            if graph.layers[layer].op in ("Gemm", "MatMul"):
                outs[number] = 2 * number + 1  # the kernel writes float or integer, as its reader likes
        elif layer is None and node.op_type in OPS and OPS[node.op_type].accepts(graph, node):
            share = max(_elements(graph, value) for value in (*node.outputs, node.inputs[0]) if value is not None)
            integer_cost, float_cost = (cost * share for cost in OPS[node.op_type].costs)
            float_cost += PREFER_INTEGER
        _add(network, SOURCE, ins[number], float_cost)  # paid where the vertex falls on the float side
        _add(network, ins[number], SINK, integer_cost)
    return ins, outs


def _tensor_edges(
    network: networkx.DiGraph, graph: Graph, nodes: list[ir.Node], ins: Mapping[int, int], outs: Mapping[int, int]
) -> None:
    producers = {value.name: outs[n] for n, node in enumerate(nodes) for value in node.outputs}
    readers: dict[str, list[int]] = {}
    shares: dict[str, float] = {}
    for number, node in enumerate(nodes):
        for value in node.inputs:
            if value is not None and not value.is_initializer() and _is_float(value):
                readers.setdefault(value.name or "", []).append(ins[number])
                shares[value.name or ""] = _elements(graph, value)
    for value in graph.model.graph.outputs:
        if _is_float(value):
            readers.setdefault(value.name or "", []).append(SINK)
            shares[value.name or ""] = _elements(graph, value)
    extra = 2 * len(nodes)
    for name, vertices in readers.items():
        writer = producers.get(name, SINK)
        to_float, to_integer = extra, extra + 1
        extra += 2
        _add(network, writer, to_float, TO_FLOAT * shares[name])
        _add(network, to_integer, writer, TO_INTEGER * shares[name])
        for vertex in vertices:
            _add(network, to_float, vertex, ALWAYS)
            _add(network, vertex, to_integer, ALWAYS)


def _add(network: networkx.DiGraph, start: int, stop: int, capacity: float) -> None:
    if start == stop or capacity <= 0:
        return
    if network.has_edge(start, stop):
        network[start][stop]["capacity"] += capacity
    else:
        network.add_edge(start, stop, capacity=capacity)


def _elements(graph: Graph, value: ir.Value) -> float:
    return math.prod(graph.shapes.get(value.name or "", (1,))) / 2**20


def _is_float(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype.name == "FLOAT"
