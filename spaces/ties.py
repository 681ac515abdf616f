"""Which entries of which axes belong together, by all nodes of a graph.

Every axis of every tensor is a row of units, one for each index. An op ties units that can only be removed together
(channel i of a Relu's input and of its output; the channels of a pixel shuffle's block) and freezes units that cannot be
removed at all (the axis of a Softmax). What the ops leave connected is one removable piece: `groups` collects them.

An op that has no rule (`tie_layers`, `tie_shapes`, `tie_reshapes`) freezes all that it touches, so that what is offered is
always safe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import tie_layers, tie_reshapes, tie_shapes
from .sizes import SHAPE_INPUTS, Entry, Sizes, Slot, told_axes

if TYPE_CHECKING:
    import onnx_ir as ir

    from .graph import Graph

Units = np.ndarray  # of an axis: int64 [size]
MOST_UNITS = 1 << 15  # of an axis; a longer one (all pixels in a row) is frozen as a whole
SEVERAL_OUTPUTS = ("Split", "LSTM", "GRU")  # that have a rule for all of them
OWN = "\0"  # between a constant's name and that of the node that reads it
RULES: Mapping[str, Callable[[Any, Any], None]] = {
    **tie_layers.RULES,
    **tie_shapes.RULES,
    **tie_reshapes.RULES,
}


class Ties:
    """Units of all axes of a graph's tensors, with what ties and freezes them.

    Args:
        graph: the captured reference.
        followed: by pattern of a Reshape (`tie_reshapes`), which of the factors of each of its blocks is followed.

    Attributes:
        slots: the units of each axis that has any.
        count: of all units.
        pairs: units that are tied, two arrays of one length each, with the node that ties them.
        frozen: units that stay, with the reason, in the order of the nodes.
        patterns: of the Reshapes that leave a choice: how many factors there are.
    """

    def __init__(self, graph: Graph, followed: Mapping[object, int]) -> None:
        self.graph = graph
        self.followed = followed
        self.slots: dict[Slot, Units] = {}
        self.count = 0
        self.pairs: list[tuple[Units, Units, str]] = []
        self.frozen: list[tuple[Units, str]] = []
        self.patterns: dict[object, int] = {}
        self.sizes = Sizes(graph)
        self._constants = graph.model.graph.initializers
        self._weights = {layer.weight for layer in graph.layers.values()}
        for node in graph.model.graph:
            self._source = f"{node.op_type} {node.name!r}"
            self._apply(node)
        self._source = "they"
        for port in (*graph.inputs, *graph.outputs):
            what = "are an input of the model" if port in graph.inputs else "are the output of the model"
            self.freeze(port.name, range(len(port.shape)), what)
            self._freeze_sizes(port.name, what)

    def name(self, node: ir.Node, index: int) -> str:
        """Return the name under which a node's input is known; a constant other than a layer's weight is each node's own."""
        value = node.inputs[index] if index < len(node.inputs) else None
        name = "" if value is None else value.name or ""
        own = name in self._constants and name not in self._weights
        return f"{name}{OWN}{node.name}" if own else name

    def ends(self, node: ir.Node) -> tuple[str, str]:
        """Return the names of a node's first input and first output."""
        return self.name(node, 0), node.outputs[0].name or ""

    def constant(self, name: str) -> bool:
        """Whether a tensor is a constant."""
        return name.split(OWN)[0] in self._constants

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor or a constant, at the shape to measure at."""
        name = name.split(OWN)[0]
        if name in self._constants:
            tensor = self._constants[name].const_value
            return tuple(int(d) for d in tensor.shape) if tensor is not None else ()  # type: ignore[arg-type]
        return self.graph.shapes.get(name, ())

    def units(self, name: str, axis: int) -> Units:
        """Return the units of an axis; none where it is of size 1, or so long that it is frozen as a whole."""
        slot = (name, axis)
        if slot not in self.slots:
            size = self.shape(name)[axis]
            size = size if 1 < size <= MOST_UNITS else 0
            self.slots[slot] = np.arange(self.count, self.count + size)
            self.count += size
        return self.slots[slot]

    def tie(self, first: Units, second: Units) -> None:
        """Tie units pairwise; where one side is an axis without units, the other is frozen."""
        if len(first) and len(second):
            self.pairs.append((first, second, self._source))
        else:
            self.freeze_units(first if len(first) else second, "ties them to an axis that is too long to be followed")

    def together(self, rows: Units) -> None:
        """Tie all units of a row to each other, for each row [rows, units]."""
        if rows.size:
            self.pairs.append((rows[:, 1:].reshape(-1), rows[:, :-1].reshape(-1), self._source))

    def freeze_units(self, units: Units, what: str) -> None:
        """Freeze units; the reason is the present node and what it does (a verb and what follows)."""
        if units.size:
            self.frozen.append((units.reshape(-1), f"{self._source} {what}"))

    def freeze(self, name: str, axes: Iterable[int], what: str) -> None:
        """Freeze axes of a tensor."""
        for axis in axes:
            self.freeze_units(self.units(name, axis), what)

    def unknown(self, node: ir.Node, what: str = "cannot be followed") -> None:
        """Freeze all that a node touches, within its subgraphs too."""
        names = {self.name(node, index) for index in range(len(node.inputs))}
        names |= {value.name or "" for value in node.outputs} | _captured(node)
        for name in sorted(names):
            self.freeze(name, range(len(self.shape(name))), what)
            self._freeze_sizes(name, what)

    def same(self, first: str, second: str) -> None:
        """Tie two tensors axis by axis, the last with the last, as broadcasting does; axes of size 1 are left alone."""
        a, b = self.shape(first), self.shape(second)
        for back in range(1, min(len(a), len(b)) + 1):
            if a[-back] == b[-back] > 1:
                self.same_axis(first, len(a) - back, second, len(b) - back)

    def same_axis(self, first: str, axis: int, second: str, other: int) -> None:
        """Tie two axes of one size."""
        self.tie(self.units(first, axis), self.units(second, other))

    def same_but(self, first: str, second: str, axis: int) -> None:
        """Tie all axes but one of two tensors of one rank."""
        for other in range(len(self.shape(first))):
            if other != axis:
                self.same_axis(first, other, second, other)

    def cut(self, whole: str, axis: int, where: np.ndarray, part: str, part_axis: int) -> None:
        """Tie the units of a part to those of the whole that it is cut from; a part of one entry cannot be removed."""
        units = self.units(whole, axis)
        if len(where) == 1:
            self.freeze_units(units[where] if len(units) else units, "takes single ones of them")
        elif len(where):
            self.tie(units[where] if len(units) else units, self.units(part, part_axis))

    def told(self, node: ir.Node, index: int) -> dict[int, Entry]:
        """Return what a shape input says of each axis of the output.

        An axis of a computed size is tied to the one whose size it takes, or frozen.
        """
        y = node.outputs[0].name or ""
        entries = self.sizes.entries(node.inputs[index])
        told = dict(zip(told_axes(node, len(entries), len(self.shape(y))), entries, strict=True))
        for axis, entry in told.items():
            if isinstance(entry, tuple) and self.shape(entry[0])[entry[1]] == self.shape(y)[axis]:
                self.same_axis(*entry, y, axis)
            elif entry is None or isinstance(entry, tuple):
                self.freeze(y, (axis,), "computes their number")
                self._freeze_sizes(node.inputs[index].name, "computes with their number")  # type: ignore[union-attr]
        return told

    def _apply(self, node: ir.Node) -> None:
        if node.outputs[0].name in self.sizes:
            self._apply_to_sizes(node)
            return
        for index, value in enumerate(node.inputs):
            if value is not None and (node.op_type, index) not in SHAPE_INPUTS:
                self._freeze_sizes(value.name, "computes with their number")
        more = any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
        rule = RULES.get(node.op_type)
        if rule is None or (more and node.op_type not in SEVERAL_OUTPUTS):
            self.unknown(node)
        else:
            rule(self, node)

    def _apply_to_sizes(self, node: ir.Node) -> None:
        """A node that computes with sizes alone: what it reads must stay unless the entries are carried on as they are."""
        for value in node.outputs:
            name = value.name or ""
            self.freeze(name, range(len(self.shape(name))), "computes them from sizes")
        if any(self.sizes.slots(value.name) for value in node.outputs):
            return
        for index, read in enumerate(node.inputs):
            self._freeze_sizes(None if read is None else read.name, "computes with their number")
            if node.op_type == "Size":
                self.freeze(self.name(node, index), range(len(self.shape(self.name(node, index)))), "counts them")

    def _freeze_sizes(self, name: str | None, what: str) -> None:
        """Freeze the axes whose sizes a tensor holds."""
        for slot in self.sizes.slots(name):
            self.freeze(slot[0], slot[1:], what)


def _captured(node: ir.Node) -> set[str]:
    """Return the names of all tensors that are read in a node's subgraphs."""
    import onnx_ir as ir

    names = set()
    for attribute in node.attributes.values():
        if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            graphs = [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else attribute.as_graphs()
            for inner in (inner for graph in graphs for inner in graph.all_nodes()):
                names |= {value.name or "" for value in inner.inputs if value is not None}
            names |= {value.name or "" for graph in graphs for value in graph.outputs}
    return names
