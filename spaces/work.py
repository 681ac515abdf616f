"""How much each layer computes, and what part of it goes with a channel group: a first guess at where the time goes."""

from __future__ import annotations

import math

from .graph import Graph
from .groups import channel_groups


def multiply_adds(graph: Graph) -> dict[str, int]:
    """Return the multiply-adds of each layer for one batch at the shape to measure at."""
    nodes = {node.name: node for node in graph.model.graph}
    work = {}
    for name, layer in graph.layers.items():
        transposed = layer.op == "ConvTranspose"  # each input, not each output, meets all weights of its channel
        weights = math.prod(layer.shape) // (layer.shape[0] if transposed else layer.channels)
        work[name] = 0
        if layer.recurrent:  # every step of every sequence meets all weights
            reads = (nodes[node].inputs[0] for node in layer.nodes)
            steps = (graph.shapes[value.name or ""][:2] for value in reads if value is not None)
            work[name] = math.prod(layer.shape) * sum(map(math.prod, steps))
            continue
        for node in (nodes[node] for node in layer.nodes):
            value = node.inputs[0] if transposed else node.outputs[0]
            work[name] += weights * math.prod(graph.shapes[(value.name if value is not None else "") or ""])
    return work


def channel_shares(graph: Graph) -> dict[str, tuple[dict[str, float], dict[str, float]]]:
    """Return for each channel group the part of each layer's inputs, and of each layer's outputs, that it is."""
    result = {}
    for name, group in channel_groups(graph).groups.items():
        shares: tuple[dict[str, float], dict[str, float]] = ({}, {})
        for found, layers, inputs in ((shares[0], group.readers, True), (shares[1], group.writers, False)):
            for other in layers:
                layer = graph.layers[other]
                axis = layer.input_axis if inputs else layer.channel_axis
                if not (inputs and layer.depthwise):
                    found[other] = group.slots[(layer.weight, axis)].size / layer.shape[axis]
        result[name] = shares
    return result
