"""Pruning on the graph: the entries of channel groups are cut out of constants, and the nodes that name sizes follow."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from . import recurrent
from .cache import Store, content_hash
from .errors import InputError, nearest
from .follow import Cut, constant_array, set_constant
from .graph import Graph, node_bias
from .groups import Channels, channel_groups
from .importance import METHODS, VERSION
from .narrow import Removed
from .repaired import FloatLayer
from .statistics import Progress, Statistics
from .ties import OWN, Slot

if TYPE_CHECKING:
    import onnx_ir as ir


class Pruner:
    """Which channels stay: the first ones of each group's order of importance.

    Args:
        statistics: the reference's; their cache entry also holds the orders.
        importance: the name of a criterion.

    Raises:
        InputError: there is no such criterion.
    """

    def __init__(self, statistics: Statistics, importance: str = "output-energy") -> None:
        if importance not in METHODS:
            raise InputError(
                f"unknown importance {importance!r}{nearest(importance, METHODS)}; known: {', '.join(METHODS)}"
            )
        self.statistics = statistics
        self.channels = channel_groups(statistics.graph)
        self.importance = METHODS[importance]()
        self.store = Store(content_hash(statistics.key, importance, VERSION))
        self._orders: dict[str, np.ndarray] = {}
        self._removed: tuple[dict[str, float], dict[Slot, np.ndarray]] = ({}, {})  # the last answer: each layer asks

    def prepare(self, groups: Collection[str], progress: Progress | None = None) -> None:
        """Order the pieces of these groups unless the cache has it."""
        for number, name in enumerate(groups):
            self.order(name)
            if progress is not None:
                progress("order of channels", (number + 1) / len(groups))

    def order(self, name: str) -> np.ndarray:
        """Return the pieces of a group [P], the most important first."""
        if name not in self._orders:
            group = self.channels.groups[name]
            slots = [part for slot, entries in sorted(group.slots.items()) for part in (list(slot), entries)]
            entry = f"order-{content_hash(name, group.writers, group.readers, *slots)}"
            stored = self.store.arrays(entry)
            if stored is None:
                stored = {"order": self.importance.order(self.channels.groups[name], self.statistics)}
                self.store.put_arrays(entry, stored)
            self._orders[name] = stored["order"]
        return self._orders[name]

    def removed(self, ratios: Mapping[str, float]) -> dict[Slot, np.ndarray]:
        """Return the entries of each axis that go at these pruning ratios, by group name."""
        if self._removed[0] != ratios:
            kept = {
                name: np.sort(self.order(name)[: self.channels.group(name).kept(ratio)])
                for name, ratio in ratios.items()
            }
            self._removed = (dict(ratios), removed_entries(self.channels, kept))
        return self._removed[1]


def removed_entries(channels: Channels, kept: Mapping[str, np.ndarray]) -> dict[Slot, np.ndarray]:
    """Return the entries of each axis that go.

    Args:
        channels: the graph's groups.
        kept: by group name, the indices of the pieces that stay.
    """
    found: dict[Slot, list[np.ndarray]] = {}
    for name, stays in kept.items():
        group = channels.group(name)
        goes = np.setdiff1d(np.arange(group.pieces), stays)
        for slot, entries in group.slots.items():
            found.setdefault(slot, []).append(entries[goes].reshape(-1))
    return {slot: np.unique(np.concatenate(parts)) for slot, parts in found.items()}


def pruned(graph: Graph, removed: Removed) -> Graph:
    """Return a graph without these entries; what the remaining ones compute is the same, inputs and outputs too.

    Args:
        graph: the captured reference.
        removed: whole pieces of channel groups (`removed_entries`).
    """
    import onnx_ir.passes.common as passes

    model = graph.model.clone()
    cut = Cut(graph, removed, model)
    own: dict[str, dict[int, np.ndarray]] = {}  # of constants that a node cuts for itself
    for (name, axis), entries in removed.items():
        if name in model.graph.initializers:
            constant = model.graph.initializers[name]
            set_constant(constant, np.delete(constant_array(constant), entries, axis))
        elif OWN in name:
            own.setdefault(name, {})[axis] = entries
    for node in model.graph:
        cut.follow(node)
        for index, value in enumerate(node.inputs):
            gone = own.get(f"{value.name}{OWN}{node.name}") if value is not None else None
            if value is not None and gone:
                node.replace_input_with(index, cut.part(value, gone))
        for value in node.outputs:
            _set_shape(value, removed)
    passes.RemoveUnusedNodesPass()(model)
    return Graph(model, {port.name: port.shape for port in graph.inputs}, _shapes(graph, model, removed))


def with_weights(graph: Graph, weights: Mapping[str, FloatLayer]) -> Graph:
    """Return a graph whose layers have these weights, and biases moved by their shift.

    Args:
        graph: stays as it is.
        weights: by layer name, in the shapes of this graph.
    """
    import onnx_ir.passes.common as passes

    model = graph.model.clone()
    cut = Cut(graph, {}, model)
    for name, found in weights.items():
        set_constant(model.graph.initializers[graph.layers[name].weight], found.weight)
    for node in model.graph:
        name = graph.layer_of_node.get(node.name or "", "")
        if name in weights and weights[name].shift.any() and graph.layers[name].recurrent:
            cut.replace(node, recurrent.B, recurrent.shifted(node, graph.layers[name], weights[name].shift))
        elif name in weights and weights[name].shift.any():
            bias, shift = node_bias(node, graph.layers[name]), weights[name].shift
            cut.replace(node, 2, shift if bias is None else bias + shift)
    passes.RemoveUnusedNodesPass()(model)
    return Graph(model, {port.name: port.shape for port in graph.inputs}, graph.shapes)


def _set_shape(value: ir.Value, removed: Removed) -> None:
    import onnx_ir as ir

    if value.shape is None:
        return
    sizes = list(value.shape)
    for axis, size in enumerate(sizes):
        gone = removed.get((value.name or "", axis))
        if gone is not None and isinstance(size, int):
            sizes[axis] = size - len(gone)
    value.shape = ir.Shape(sizes)


def _shapes(graph: Graph, model: ir.Model, removed: Removed) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors, at the shape to measure at."""
    found = {}
    for value in (*model.graph.inputs, *(value for node in model.graph for value in node.outputs)):
        name = value.name or ""
        before = graph.shapes.get(name) or tuple(value.shape.numpy() if value.shape is not None else ())
        found[name] = tuple(size - len(removed.get((name, axis), ())) for axis, size in enumerate(before))
    return found
