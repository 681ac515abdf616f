"""Shapes that nodes are told: constants, and what a model with free axes computes from the sizes of its tensors.

A computed shape is followed entry by entry, so that a channel count that is read at run time and written back into a shape
stays what it is: the size of an axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .integer_ops import constant_input

if TYPE_CHECKING:
    import onnx_ir as ir

    from .graph import Graph

Slot = tuple[str, int]  # a tensor's name and one of its axes
Entry = Slot | float | None  # of a shape: the size of an axis, a constant, or something else that is computed
SHAPE_INPUTS = (("Reshape", 1), ("Expand", 1), ("Resize", 3))  # that are the output's shape, by op and input


class Sizes:
    """The tensors of a graph that depend on nothing but the sizes of others."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._found: dict[str, list[Entry]] = {}
        for node in graph.model.graph:
            data = [value for index, value in enumerate(node.inputs) if (node.op_type, index) not in SHAPE_INPUTS]
            computed = [value for value in data if value is not None and value.const_value is None]
            if node.op_type in ("Shape", "Size") or (computed and all(value.name in self for value in computed)):
                entries = CARRIED[node.op_type](self, node) if node.op_type in CARRIED else None
                for value in node.outputs:
                    self._found[value.name or ""] = self._unknown(value) if entries is None else entries

    def __contains__(self, name: str | None) -> bool:
        return name in self._found

    def entries(self, value: ir.Value | None) -> list[Entry]:
        """Return the entries of a tensor that tells a shape or the like: none where it is absent."""
        if value is None:
            return []
        if value.const_value is not None:
            return list(value.const_value.numpy().reshape(-1).tolist())
        return self._found.get(value.name or "") or self._unknown(value)

    def slots(self, name: str | None) -> list[Slot]:
        """Return the axes whose sizes a tensor holds; none for a tensor that holds anything else."""
        return [entry for entry in self._found.get(name or "", []) if isinstance(entry, tuple)]

    def _unknown(self, value: ir.Value) -> list[Entry]:
        return [None] * math.prod(self.graph.shapes.get(value.name or "", ()))


def leaves(value: ir.Value) -> list[ir.Value]:
    """Return the values that a shape is joined from; itself where it is not joined."""
    writer = value.producer()
    if value.const_value is not None or writer is None or writer.op_type != "Concat":
        return [value]
    return [leaf for part in writer.inputs if part is not None for leaf in leaves(part)]


def told_axes(node: ir.Node, count: int, rank: int) -> list[int]:
    """Return which axes of its output a Reshape, Expand or Resize is told by a shape of ``count`` entries."""
    if node.op_type == "Resize" and "axes" in node.attributes:
        return [axis % rank for axis in node.attributes.get_ints("axes", []) or []]
    return list(range(rank - count, rank)) if node.op_type == "Expand" else list(range(count))


def kept_ranges(node: ir.Node, shape: Sequence[int]) -> dict[int, range | None] | None:
    """Return for each axis that a Slice names what it keeps of it, or None where its bounds are computed.

    It is None as a whole where the axes are computed.
    """
    starts, ends, axes, steps = (constant_input(node, index) for index in range(1, 5))
    if axes is None and (starts is None or is_given(node, 3)):
        return None
    named = [int(axis) % len(shape) for axis in (range(len(starts)) if axes is None else axes)]  # type: ignore[arg-type]
    if starts is None or ends is None or (steps is None and is_given(node, 4)):
        return dict.fromkeys(named)
    found: dict[int, range | None] = {}
    for number, axis in enumerate(named):
        start, end, step = int(starts[number]), int(ends[number]), 1 if steps is None else int(steps[number])
        found[axis] = sliced(shape[axis], start, end, step)
    return found


def sliced(size: int, start: int, end: int, step: int) -> range:
    """Return what a Slice keeps of an axis.

    Downwards, ONNX takes a start before the first entry as the first one, and writes "down to the first one" as a very small
    end, which Python would count from the back.
    """
    if step < 0:
        return range(size)[slice(max(start, -size), None if end < -size else end, step)]
    return range(size)[slice(start, end, step)]


def is_given(node: ir.Node, index: int) -> bool:
    """Whether a node has an input there."""
    return index < len(node.inputs) and node.inputs[index] is not None


# --- ops that carry entries on ----------------------------------------------------------------------------------------


def _shape(sizes: Sizes, node: ir.Node) -> list[Entry]:
    name = (node.inputs[0].name or "") if node.inputs[0] is not None else ""
    rank = len(sizes.graph.shapes[name])
    axes = range(rank)[slice(node.attributes.get_int("start", 0), node.attributes.get_int("end", rank))]
    return [(name, axis) for axis in axes]


def _concat(sizes: Sizes, node: ir.Node) -> list[Entry]:
    return [entry for value in node.inputs for entry in sizes.entries(value)]


def _moved(sizes: Sizes, node: ir.Node) -> list[Entry]:
    """The same entries: only sizes are known behind it, since a constant could not be rewritten there."""
    return [entry if isinstance(entry, tuple) else None for entry in sizes.entries(node.inputs[0])]


def _gather(sizes: Sizes, node: ir.Node) -> list[Entry] | None:
    entries, indices = _moved(sizes, node), constant_input(node, 1)
    return None if indices is None else [entries[int(index)] for index in indices.reshape(-1)]


def _slice(sizes: Sizes, node: ir.Node) -> list[Entry] | None:
    entries = _moved(sizes, node)
    kept = (kept_ranges(node, (len(entries),)) or {}).get(0)
    return None if kept is None else [entries[index] for index in kept]


CARRIED: Mapping[str, Callable[[Sizes, Any], list[Entry] | None]] = {
    "Shape": _shape,
    "Concat": _concat,
    "Gather": _gather,
    "Slice": _slice,
    **dict.fromkeys(("Squeeze", "Unsqueeze", "Reshape", "Identity"), _moved),
}
