"""Cross-layer equalisation: channels of inner tensors are rescaled so that one 8-bit grid serves them all.

A channel that is divided by a factor before an activation and multiplied by it in the next layer's weights leaves the model
as it was, wherever everything between is positively homogeneous (Relu, LeakyRelu, sums, pooling, resizing). Nagel, van Baalen,
Blankevoort and Welling, arXiv:1906.04721; ours takes the ranges from calibration data and shares factors over residual sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .cache import Store, content_hash
from .graph import Graph, Layer
from .statistics import activations

if TYPE_CHECKING:
    import onnx_ir as ir

VERSION = 4  # part of the cache key: raise it when results change
LEAST = 1 / 64  # smallest factor: nearly dead channels stay nearly dead

HOMOGENEOUS = ("Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity")
SUMS = ("Add", "Sub")


@dataclass(frozen=True)
class Way:
    """How channels are made alike.

    Attributes:
        size: of a channel: "rms", its root mean square, or "extreme", its largest magnitude; both are means over batches.
        strength: 1: all channels get the same size; 0: nothing changes.
    """

    size: str
    strength: float


WAYS = (Way("rms", 0.4), Way("extreme", 0.6))
SIZES = {
    "rms": lambda array: np.sqrt(np.square(array).mean(axis=(0, 2, 3), dtype=np.float64)),
    "extreme": lambda array: np.abs(array).max(axis=(0, 2, 3)).astype(np.float64),
}


def equalised(graph: Graph, calibration: Mapping[str, np.ndarray], way: Way = WAYS[0]) -> Graph:
    """Return a graph that computes the same function (to float accuracy) with inner channels of like range.

    Args:
        graph: the captured reference.
        calibration: inputs by name, [N, ...].
        way: how they are made alike.
    """
    groups = _groups(graph)
    if not groups:
        return graph
    factors = _factors(graph, calibration, groups, way)
    return _rescaled(graph, factors)


class _Union:
    """Tensors that must share their channel factors; None stands for "cannot be rescaled"."""

    def __init__(self) -> None:
        self.parent: dict[str, str] = {}
        self.frozen: set[str] = set()

    def find(self, name: str) -> str:
        self.parent.setdefault(name, name)
        while self.parent[name] != name:
            self.parent[name] = self.parent[self.parent[name]]
            name = self.parent[name]
        return name

    def join(self, names: list[str]) -> None:
        for name in names[1:]:
            self.parent[self.find(name)] = self.find(names[0])

    def freeze(self, names: list[str]) -> None:
        self.frozen.update(names)

    def groups(self) -> dict[str, list[str]]:
        stuck = {self.find(name) for name in self.frozen}
        result: dict[str, list[str]] = {}
        for name in self.parent:
            if self.find(name) not in stuck:
                result.setdefault(self.find(name), []).append(name)
        return result


def _groups(graph: Graph) -> dict[str, list[str]]:
    """Return the sets of tensors [N, C, H, W] whose channels can be rescaled together."""
    union = _Union()
    union.freeze([port.name for port in (*graph.inputs, *graph.outputs)])
    # outputs of ops that fix their own scale: a product with one of these is homogeneous in the other
    bounded: set[str] = set()
    for node in graph.model.graph:
        read = [v.name or "" for v in node.inputs if v is not None and v.const_value is None]
        written = [v.name or "" for v in node.outputs]
        layer = graph.layer_of_node.get(node.name or "")
        for name in (*read, *written):
            union.find(name)
            if len(graph.shapes.get(name, ())) != 4:
                union.freeze([name])
        if layer is not None and node.op_type in ("Conv", "ConvTranspose"):
            first = next(n for n in graph.model.graph if n.name == graph.layers[layer].nodes[0])
            union.join([first.inputs[0].name or "", *read])  # type: ignore[union-attr]
            union.join([first.outputs[0].name or "", *written])
        elif node.op_type in HOMOGENEOUS or (node.op_type in SUMS and len(read) == 2) or _spatial(graph, node):
            same = len({graph.shapes.get(name, ())[1:2] for name in (*read, *written)}) == 1
            union.join([*read, *written]) if same else union.freeze([*read, *written])
        elif node.op_type == "Mul" and len(read) == 2 and bounded & set(read):
            union.freeze([name for name in read if name in bounded])
            union.join([name for name in read if name not in bounded] + written)
        else:
            union.freeze([*read, *written])
            bounded.update(written)
    return union.groups()


def _spatial(graph: Graph, node: ir.Node) -> bool:
    """Whether a Resize or Pad leaves the channels alone and zero where it was."""
    before = graph.shapes.get(node.inputs[0].name or "", ()) if node.inputs and node.inputs[0] is not None else ()
    after = graph.shapes.get(node.outputs[0].name or "", ())
    if node.op_type == "Resize":
        return before[:2] == after[:2]
    if node.op_type == "Pad":
        value = node.inputs[2] if len(node.inputs) > 2 else None
        zero = value is None or (value.const_value is not None and not value.const_value.numpy().any())
        return before[:2] == after[:2] and zero
    return False


def _factors(
    graph: Graph, calibration: Mapping[str, np.ndarray], groups: Mapping[str, list[str]], way: Way
) -> dict[str, np.ndarray]:
    """Return the factor [C] by which each tensor's channels are divided, by tensor name."""
    readers: dict[str, list[str]] = {}
    for node in graph.model.graph:
        for value in node.inputs:
            if value is not None:
                readers.setdefault(value.name or "", []).append(node.op_type)
    activated = ("Relu", "LeakyRelu", "PRelu")
    watched = {
        root: [name for name in names if not (len(readers.get(name, [])) == 1 and readers[name][0] in activated)]
        for root, names in groups.items()
    }
    names = sorted({name for found in watched.values() for name in found})
    sizes = {name: kinds[way.size] for name, kinds in _sizes(graph, calibration, names).items()}
    result = {}
    for root, found in watched.items():
        size = np.sqrt(np.mean([np.square(sizes[name]) for name in found], axis=0))
        if not size.max() > 0:
            continue
        factor = np.maximum(size / size.max(), LEAST) ** way.strength
        result.update({name: factor.astype(np.float32) for name in groups[root]})
    return result


def _sizes(graph: Graph, calibration: Mapping[str, np.ndarray], names: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """Return each channel's sizes [C] by kind, sums over the batches, from the cache where they are there."""
    store = Store(content_hash(VERSION, graph.digest, *(calibration[key] for key in sorted(calibration))))
    stored = store.arrays("sizes")
    if stored is None:
        sums: dict[tuple[str, str], np.ndarray] = {}
        for _, name, array in activations(graph, calibration, names):
            for kind, size in SIZES.items():
                sums[name, kind] = sums.get((name, kind), 0) + size(array)
        stored = {f"{i} {kind}": sums[name, kind] for i, name in enumerate(names) for kind in SIZES}
        store.put_arrays("sizes", stored)
    return {name: {kind: stored[f"{i} {kind}"] for kind in SIZES} for i, name in enumerate(names)}


def _rescaled(graph: Graph, factors: Mapping[str, np.ndarray]) -> Graph:
    import onnx_ir as ir

    model = graph.model.clone()
    done: set[str] = set()
    for node in model.graph:
        name = graph.layer_of_node.get(node.name or "")
        if name is None or node.op_type not in ("Conv", "ConvTranspose"):
            continue
        layer = graph.layers[name]
        assert node.inputs[0] is not None and node.inputs[1] is not None
        before, after = factors.get(node.inputs[0].name or ""), factors.get(node.outputs[0].name or "")
        if layer.weight not in done:
            done.add(layer.weight)
            node.inputs[1].const_value = ir.tensor(_scaled_weight(layer, graph.weight(layer), before, after))
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None and after is not None:
            assert bias.const_value is not None
            array = (bias.const_value.numpy() / after).astype(np.float32)
            value = ir.Value(
                name=f"{node.name}_bias",
                shape=ir.Shape(array.shape),
                type=ir.TensorType(ir.DataType.FLOAT),
                const_value=ir.tensor(array),
            )
            model.graph.initializers.add(value)
            node.replace_input_with(2, value)
    return Graph(model, {port.name: port.shape for port in graph.inputs})


def _scaled_weight(layer: Layer, weight: np.ndarray, before: np.ndarray | None, after: np.ndarray | None) -> np.ndarray:
    """Multiply a convolution's input channels by ``before`` and divide its output channels by ``after``."""
    grouped_out = layer.channels // layer.group
    if layer.op == "Conv":
        split = weight.reshape(layer.group, grouped_out, *weight.shape[1:])
        out_axis, in_axis = 1, 2
    else:
        split = weight.reshape(layer.group, -1, *weight.shape[1:])
        out_axis, in_axis = 2, 1
    for factor, axis, inverse in ((before, in_axis, False), (after, out_axis, True)):
        if factor is not None:
            shape = [1] * split.ndim
            shape[0], shape[axis] = layer.group, split.shape[axis]
            scale = factor.reshape(shape)
            split = split / scale if inverse else split * scale
    return np.ascontiguousarray(split.reshape(weight.shape), np.float32)
