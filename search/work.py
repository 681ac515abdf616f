"""How much each layer computes: a first guess at where the time goes, before anything is measured."""

from __future__ import annotations

import math

from ..spaces.graph import Graph


def multiply_adds(graph: Graph) -> dict[str, int]:
    """Return the multiply-adds of each layer for one batch at the shape to measure at."""
    nodes = {node.name: node for node in graph.model.graph}
    work = {}
    for name, layer in graph.layers.items():
        transposed = layer.op == "ConvTranspose"  # each input, not each output, meets all weights of its channel
        weights = math.prod(layer.shape) // (layer.shape[0] if transposed else layer.channels)
        work[name] = 0
        for node in (nodes[node] for node in layer.nodes):
            value = node.inputs[0] if transposed else node.outputs[0]
            work[name] += weights * math.prod(graph.shapes[(value.name if value is not None else "") or ""])
    return work
