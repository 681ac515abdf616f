"""How nodes that name sizes, positions or groups of channels follow when entries go from the tensors around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from .graph import Graph
from .integer_ops import constant_input
from .recurrent import AXIS, R, W, joined_weight
from .sizes import Slot, kept_ranges, leaves, told_axes

if TYPE_CHECKING:
    import onnx_ir as ir

NOTHING = np.zeros(0, np.int64)


class FreeNames:
    """Names that no value and no node of a model has."""

    def __init__(self, model: ir.Model) -> None:
        values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
        self._taken = {
            *model.graph.initializers,
            *(value.name for value in values),
            *(node.name for node in model.graph),
        }

    def __call__(self, name: str) -> str:
        """Return the name itself, or a longer one where it is taken; it is taken then."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name


class Cut:
    """A graph that is being cut: what goes from each axis, and constants added on the way.

    Args:
        graph: as it was; all sizes are read from it.
        removed: the entries of each axis that go.
        model: the copy that is edited.
    """

    def __init__(self, graph: Graph, removed: Mapping[Slot, np.ndarray], model: ir.Model) -> None:
        self.graph = graph
        self.removed = removed
        self.model = model
        self.free_name = FreeNames(model)
        self._kept: dict[object, ir.Value] = {}

    def gone(self, name: str, axis: int) -> np.ndarray:
        """Return the entries that go from an axis of a tensor."""
        return self.removed.get((name, axis), NOTHING)

    def before(self, name: str, axis: int) -> int:
        """Return the size that an axis had."""
        return self.graph.shapes[name][axis]

    def after(self, name: str, axis: int) -> int:
        """Return the size that is left of an axis."""
        return self.before(name, axis) - len(self.gone(name, axis))

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """Add an initializer named like this."""
        value = new_constant(self.free_name(name), array)
        self.model.graph.initializers.add(value)
        return value

    def part(self, value: ir.Value, gone: Mapping[int, np.ndarray]) -> ir.Value:
        """Return a constant without these entries of its axes; one that several nodes cut alike stays one."""
        key = (value.name, *((axis, entries.tobytes()) for axis, entries in gone.items()))
        if key not in self._kept:
            array = constant_array(value)
            for axis, entries in gone.items():
                array = np.delete(array, entries, axis)
            self._kept[key] = self.constant(f"{value.name}_kept", array)
        return self._kept[key]

    def replace(self, node: ir.Node, index: int, array: np.ndarray) -> None:
        """Give a node an input of its own."""
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        node.replace_input_with(index, self.constant(f"{node.name}_{index}_kept", array))

    def follow(self, node: ir.Node) -> None:
        """Rewrite what a node says of the sizes around it."""
        told = node.op_type in ("Reshape", "Expand", "Resize")
        if node.op_type in RULES and (told or _read(node) in self.graph.shapes):
            RULES[node.op_type](self, node)


def constant_array(value: ir.Value) -> np.ndarray:
    """Return an initializer's values."""
    assert value.const_value is not None
    return value.const_value.numpy()


def new_constant(name: str, array: np.ndarray) -> ir.Value:
    """Return an initializer that no graph has yet."""
    import onnx_ir as ir

    value = ir.Value(name=name, type=ir.TensorType(ir.DataType.from_numpy(array.dtype)))
    set_constant(value, array)
    return value


def set_constant(value: ir.Value, array: np.ndarray) -> None:
    """Give an initializer other values, of any shape."""
    import onnx_ir as ir

    value.const_value = ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), name=value.name)
    value.shape = ir.Shape(array.shape)


def _read(node: ir.Node) -> str:
    return (node.inputs[0].name or "") if node.inputs[0] is not None else ""


def _set_int(node: ir.Node, name: str, value: int) -> None:
    import onnx_ir as ir

    node.attributes[name] = ir.AttrInt64(name, value)


def _convolution(cut: Cut, node: ir.Node) -> None:
    """The groups of a depthwise convolution go with their channels; of any other each loses the same."""
    group = node.attributes.get_int("group", 1) or 1
    if group > 1 and cut.before(_read(node), 1) == group:
        _set_int(node, "group", cut.after(_read(node), 1))


def _group_norm(cut: Cut, node: ir.Node) -> None:
    groups = node.attributes.get_int("num_groups", 1) or 1
    _set_int(node, "num_groups", groups * cut.after(_read(node), 1) // cut.before(_read(node), 1))


def _split(cut: Cut, node: ir.Node) -> None:
    axis = (node.attributes.get_int("axis", 0) or 0) % len(cut.graph.shapes[_read(node)])
    if len(cut.gone(_read(node), axis)):
        node.attributes.pop("num_outputs", None)
        cut.replace(node, 1, np.array([cut.after(value.name or "", axis) for value in node.outputs], np.int64))


def _slice(cut: Cut, node: ir.Node) -> None:
    kept = kept_ranges(node, cut.graph.shapes[_read(node)])
    starts, ends = constant_input(node, 1), constant_input(node, 2)
    if not kept or starts is None or ends is None:
        return
    bounds = [
        starts.astype(np.int64),
        ends.astype(np.int64),
    ]  # copies: other axes keep theirs, which may count from the end
    for number, (axis, found) in enumerate(kept.items()):
        gone = cut.gone(_read(node), axis)
        if len(gone) and found is not None:
            for bound, end in zip(bounds, (found.start, found.stop), strict=True):
                bound[number] = end - np.searchsorted(gone, end)
    for index, (old, new) in enumerate(zip((starts, ends), bounds, strict=True), start=1):
        if not np.array_equal(old, new):
            cut.replace(node, index, new)


def _gather(cut: Cut, node: ir.Node) -> None:
    read = _read(node)
    axis = (node.attributes.get_int("axis", 0) or 0) % len(cut.graph.shapes.get(read, (1,)))
    indices, gone = constant_input(node, 1), cut.gone(read, axis)
    if indices is not None and len(gone):
        indices = indices % cut.before(read, axis)
        stays = indices[~np.isin(indices, gone)] if indices.ndim else indices
        cut.replace(node, 1, np.asarray(stays - np.searchsorted(gone, stays), np.int64))


def _recurrent(cut: Cut, node: ir.Node) -> None:
    """The hidden units that are left, and where the joined weight is cut."""
    if joined_weight(node) is None:
        return
    weights = [value for value in node.inputs[W : R + 1] if value is not None]
    sizes = [cut.after(value.name or "", AXIS) for value in weights]
    _set_int(node, "hidden_size", sizes[1])
    split = weights[0].producer()
    assert split is not None
    if not np.array_equal(constant_array(split.inputs[1]), sizes):  # type: ignore[arg-type]
        cut.replace(split, 1, np.array(sizes, np.int64))


def _told(index: int) -> Callable[[Cut, ir.Node], None]:
    """Ops whose input ``index`` is the shape that they write: its constant parts follow, computed ones do of themselves."""

    def follow(cut: Cut, node: ir.Node) -> None:
        told = node.inputs[index] if index < len(node.inputs) else None
        if told is None:
            return
        parts = leaves(told)
        sizes = [
            part.const_value.numpy().size if part.const_value else cut.before(part.name or "", 0) for part in parts
        ]
        axes = told_axes(node, sum(sizes), len(cut.graph.shapes[node.outputs[0].name or ""]))
        changed = False
        for number, part in enumerate(parts):
            own = axes[sum(sizes[:number]) : sum(sizes[: number + 1])]
            if part.const_value is not None:
                old = part.const_value.numpy()
                new = np.array(
                    [_followed(cut, node, axis, int(size)) for axis, size in zip(own, old.reshape(-1), strict=True)]
                )
                if not np.array_equal(old.reshape(-1), new):
                    parts[number], changed = cut.constant(f"{node.name}_{index}_kept", new), True
        if changed:
            node.replace_input_with(index, parts[0] if len(parts) == 1 else _joined(cut, node, parts))

    return follow


def _followed(cut: Cut, node: ir.Node, axis: int, size: int) -> int:
    """Return the size that a shape tells of an axis: -1 is what is left over, 0 in a Reshape the size that it had before."""
    read, written = _read(node), node.outputs[0].name or ""
    if size == -1 or not (len(cut.gone(written, axis)) or (size == 0 and len(cut.gone(read, axis)))):
        return size
    return cut.after(written, axis)


def _joined(cut: Cut, node: ir.Node, parts: list[ir.Value]) -> ir.Value:
    """Return the parts of a shape joined, computed before the node."""
    import onnx_ir as ir

    joined = ir.node("Concat", parts, {"axis": 0}, name=cut.free_name(f"{node.name}_shape"))
    joined.outputs[0].name = joined.name
    joined.outputs[0].type = ir.TensorType(ir.DataType.INT64)
    joined.outputs[0].shape = ir.Shape([len(cut.graph.shapes[node.outputs[0].name or ""])])
    assert node.graph is not None
    node.graph.insert_before(node, joined)
    return joined.outputs[0]


RULES: Mapping[str, Callable[[Cut, ir.Node], None]] = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "GroupNormalization": _group_norm,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "Reshape": _told(1),
    "Expand": _told(1),
    "Resize": _told(3),
}
