"""The oracle of pruning: the reference with weights such that nobody reads the channels that go."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir

from slimfront.spaces.graph import Graph, serialized
from slimfront.spaces.groups import Channels
from slimfront.spaces.prune import pruned, removed_entries
from slimfront.spaces.session import open_session

Removed = Mapping[tuple[str, int], np.ndarray]
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def removal(channels: Channels, random: np.random.Generator, share: float = 0.7) -> Removed:
    """Return the entries that go where random pieces of a random part of the groups stay."""
    names = [name for name in channels.groups if random.random() < share] or list(channels.groups)
    kept = {}
    for name in names:
        pieces = channels.groups[name].pieces
        kept[name] = np.sort(random.permutation(pieces)[: random.integers(1, pieces)])
    return removed_entries(channels, kept)


def check(graph: Graph, removed: Removed, feeds: Mapping[str, np.ndarray] | None = None) -> Graph:
    """Check all that has to hold of a pruned graph and return it; ``feeds`` may have other sizes on free axes."""
    small = pruned(graph, removed)
    onnx.checker.check_model(onnx.load_from_string(serialized(small.model)), full_check=True)
    assert small.inputs == graph.inputs
    assert small.outputs == graph.outputs
    inferred = Graph(small.model, {port.name: port.shape for port in graph.inputs})
    assert small.shapes == inferred.shapes
    assert list(small.layers) == list(graph.layers)
    assert multiply_adds(inferred) == expected_multiply_adds(graph, removed)
    feeds = feeds or feeds_of(graph)
    found, expected, whole = (outputs(model, feeds) for model in (small.model, unread(graph, removed), graph.model))
    for a, b, c in zip(found, expected, whole, strict=True):
        assert a.shape == b.shape == c.shape
        assert np.abs(a - b).max() <= 1e-4 * max(np.ptp(b), np.ptp(c))
    return small


def feeds_of(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """Return inputs within -1..1."""
    random = np.random.default_rng(seed)
    return {port.name: np.tanh(random.standard_normal(port.shape)).astype(np.float32) for port in graph.inputs}


def outputs(model: ir.Model, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Return all outputs of a model."""
    return open_session(serialized(model)).run(None, dict(feeds))


def unread(graph: Graph, removed: Removed) -> ir.Model:
    """Return the reference, its weights zero where they meet a removed channel of the tensor that their node reads."""
    model = graph.model.clone()
    for node in model.graph:
        if node.op_type not in PRODUCTS:
            continue
        for data, constant in ((0, 1), (1, 0)):
            x, w = node.inputs[data], node.inputs[constant]
            if x.const_value is None and w.const_value is not None:
                weight = _zeroed(node, data, removed, (x.name, len(graph.shapes[x.name])), w.const_value.numpy().copy())
                value = ir.Value(name=f"{node.name} unread", const_value=ir.tensor(weight), shape=w.shape, type=w.type)
                model.graph.initializers.add(value)
                node.replace_input_with(constant, value)
    return model


def _zeroed(node: ir.Node, data: int, removed: Removed, x: tuple[str, int], weight: np.ndarray) -> np.ndarray:
    name, rank = x
    if node.op_type == "ConvTranspose":
        weight[removed.get((name, 1), [])] = 0
    elif node.op_type == "Conv":
        inputs, of_group = weight.shape[1], len(weight) // node.attributes.get_int("group", 1)
        for channel in removed.get((name, 1), ()):
            first = channel // inputs * of_group
            weight[first : first + of_group, channel % inputs] = 0
    elif data == 1:
        weight[..., removed.get((name, rank - 2), [])] = 0
    elif node.attributes.get_int("transB", 0):
        weight[:, removed.get((name, rank - 1), [])] = 0
    else:
        weight[..., removed.get((name, rank - 1), []), :] = 0
    return weight


def multiply_adds(graph: Graph) -> int:
    """Count from the weights in the file and the inferred shapes."""
    total = 0
    for node in graph.model.graph:
        if node.op_type in PRODUCTS and node.inputs[1].const_value is not None:
            weight = node.inputs[1].const_value.shape
            positions = math.prod(graph.shapes[node.outputs[0].name if node.op_type == "Conv" else node.inputs[0].name])
            outward = 0 if node.op_type == "Gemm" and node.attributes.get_int("transB", 0) else -1
            total += positions * (math.prod(weight[1:]) if node.op_type.startswith("Conv") else weight[outward])
    return total


def expected_multiply_adds(graph: Graph, removed: Removed) -> int:
    """Count from the channels that the tensors of the reference have left."""

    def left(name: str) -> list[int]:
        return [size - len(removed.get((name, axis), ())) for axis, size in enumerate(graph.shapes[name])]

    total = 0
    for node in graph.model.graph:
        if node.op_type not in PRODUCTS or node.inputs[1].const_value is None:
            continue
        x, y = left(node.inputs[0].name), left(node.outputs[0].name)
        if node.op_type in ("Gemm", "MatMul"):
            total += math.prod(x) * y[-1]
        else:
            group = node.attributes.get_int("group", 1)
            group = x[1] if group == graph.shapes[node.inputs[0].name][1] else group
            taps = math.prod(node.inputs[1].const_value.shape[2:])
            total += taps * (math.prod(x) * y[1] if node.op_type == "ConvTranspose" else math.prod(y) * x[1]) // group
    return total
