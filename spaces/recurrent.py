"""Recurrent layers: LSTM and GRU, whose two weights are one matrix that multiplies input and state at once.

ONNX gives a node W [D, gates H, I] for its inputs and R [D, gates H, H] for its states (D directions, I inputs, H hidden
units). What both make of a step is added up, so that a layer's weight is [W | R] [D, gates H, I + H], with one scale for
each row: the captured graph stores that, and a Split in front of the node cuts it in two. A row's inputs are then those of
the step and the states before it (`with_inputs`), which is all that rounding and pruning need to know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

    from .graph import Graph, Layer

GATES = {"LSTM": 4, "GRU": 3}  # in ONNX's order: input, output, forget, cell; update, reset, hidden
X, W, R, B, LENGTHS, STATE, CELL, PEEPHOLES = range(8)  # inputs of a node
AXIS = 2  # of the joined weight: inputs, then states
MOVING = ("Expand", "Slice", "Transpose", "Reshape", "Unsqueeze", "Squeeze", "Identity")  # zeros stay zeros
DEFAULT_ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh")}


class Sizes(NamedTuple):
    """Of a recurrent node."""

    directions: int
    gates: int
    hidden: int
    inputs: int


def sizes(op: str, shape: tuple[int, ...]) -> Sizes:
    """Return the sizes of a node of ``op`` with a joined weight of this shape."""
    gates = GATES[op]
    hidden = shape[1] // gates
    return Sizes(shape[0], gates, hidden, shape[2] - hidden)


def directions(node: ir.Node) -> int:
    """Return how many directions a node has."""
    return 2 if node.attributes.get_string("direction", "forward") == "bidirectional" else 1


def row_blocks(node: ir.Node) -> int:
    """Return how many blocks of rows have inputs of their own: the directions; of a GRU each gate, as one reads reset states."""
    return directions(node) * (GATES[node.op_type] if node.op_type == "GRU" else 1)


def given(node: ir.Node, index: int) -> ir.Value | None:
    """Return an input of a node, None where it is absent."""
    return node.inputs[index] if index < len(node.inputs) else None


def constant(node: ir.Node, index: int) -> np.ndarray | None:
    """Return a constant input's values, None where it is absent or computed."""
    value = given(node, index)
    return None if value is None or value.const_value is None else value.const_value.numpy()


def activations(node: ir.Node) -> tuple[str, ...]:
    """Return the activations of a node: those of the first direction, then the others'."""
    named = node.attributes.get_strings("activations", None)
    return tuple(named) if named else DEFAULT_ACTIVATIONS[node.op_type] * directions(node)


# --- the joined weight ------------------------------------------------------------------------------------------------


def join_weights(model: ir.Model) -> None:
    """Join the weights of recurrent nodes in place, give each such node a bias of its own, and leave first states of zeros out.

    A node whose weights are computed, or serve other nodes in another way, keeps them as they are.
    """
    import onnx_ir as ir

    from .follow import new_constant

    joined: dict[tuple[str, str], ir.Node] = {}
    for node in list(model.graph):
        if node.op_type not in GATES or not_joined(node):
            continue
        w, r = node.inputs[W], node.inputs[R]
        assert w is not None and r is not None
        key = (w.name or "", r.name or "")
        if key not in joined:
            arrays = [array for index in (W, R) if (array := constant(node, index)) is not None]
            weight = new_constant(f"{w.name}|{r.name}", np.concatenate(arrays, AXIS))
            widths = np.array([array.shape[AXIS] for array in arrays], np.int64)
            parts = new_constant(f"{weight.name}/sizes", widths)
            split = ir.node("Split", [weight, parts], {"axis": AXIS}, num_outputs=2, name=f"{node.name}/weights")
            for value, part, array, name in zip(split.outputs, (w, r), arrays, ("inputs", "states"), strict=True):
                value.name, value.type, value.shape = f"{split.name}/{name}", part.type, ir.Shape(array.shape)
            model.graph.initializers.add(weight)
            model.graph.initializers.add(parts)
            model.graph.insert_before(node, split)
            joined[key] = split
        for index, value in zip((W, R), joined[key].outputs, strict=True):
            node.replace_input_with(index, value)
        _give_bias(model, node)
        _leave_zeros_out(node)


def not_joined(node: ir.Node) -> str:
    """Return why the weights of a recurrent node cannot be joined, "" where they can."""
    if node.domain not in ("", "ai.onnx"):
        return f"its domain is {node.domain!r}"
    if node.attributes.get_int("layout", 0):
        return "its layout is 1"
    w, r, bias = (given(node, index) for index in (W, R, B))
    if any(value is None or value.const_value is None or not value.is_initializer() for value in (w, r)):
        return "its weight is not a constant"
    if bias is not None and bias.const_value is None:
        return "its bias is not a constant"
    alike = all(
        usage.node.op_type == node.op_type and (given(usage.node, W), given(usage.node, R)) == (w, r)
        for value in (w, r)
        for usage in value.uses()  # type: ignore[union-attr]
    )
    if not alike or any(value.is_graph_output() for value in (w, r)):  # type: ignore[union-attr]
        return "its weight is used in another way as well"
    return ""


def _leave_zeros_out(node: ir.Node) -> None:
    """Drop first states that are zeros, which is what they are without: exporters of PyTorch write them, in the batch's size."""
    for index in (STATE, CELL):
        value = given(node, index)
        if value is not None and _is_zeros(value):
            node.replace_input_with(index, None)


def _is_zeros(value: ir.Value) -> bool:
    """Whether a tensor is zeros, stored or made in a size that is computed."""
    if value.const_value is not None:
        return not value.const_value.numpy().any()
    made = value.producer()
    if made is not None and made.op_type == "ConstantOfShape":
        filled = made.attributes.get_tensor("value", None)
        return filled is None or not filled.numpy().any()
    return made is not None and made.op_type in MOVING and made.inputs[0] is not None and _is_zeros(made.inputs[0])


def _give_bias(model: ir.Model, node: ir.Node) -> None:
    """Give a node a bias that no other node has: what repair adds to a layer's sums goes there."""
    from .follow import new_constant

    bias = given(node, B)
    if bias is not None and len(bias.uses()) == 1 and bias.is_initializer():
        return
    weight = joined_weight(node)
    assert weight is not None and weight.const_value is not None
    shape = weight.const_value.numpy().shape
    values = constant(node, B)
    own = new_constant(
        f"{node.name}/bias", np.zeros((shape[0], 2 * shape[1]), np.float32) if values is None else values
    )
    model.graph.initializers.add(own)
    if len(node.inputs) <= B:
        node.resize_inputs(B + 1)
    node.replace_input_with(B, own)


def joined_weight(node: ir.Node) -> ir.Value | None:
    """Return the initializer that a node's two weights are cut from, None where they are not."""
    split = None if given(node, W) is None else node.inputs[W].producer()  # type: ignore[union-attr]
    if split is None or split.op_type != "Split" or given(node, R) not in split.outputs:
        return None
    weight = split.inputs[0]
    return weight if weight is not None and weight.is_initializer() else None


def is_weight_split(node: ir.Node) -> bool:
    """Whether a node cuts the joined weight of recurrent nodes in two, and nothing else."""
    readers = [usage.node for value in node.outputs for usage in value.uses()] if node.op_type == "Split" else []
    return bool(readers) and all(
        reader.op_type in GATES and joined_weight(reader) is node.inputs[0] for reader in readers
    )


# --- what is added to the sums ----------------------------------------------------------------------------------------


def shifted(node: ir.Node, layer: Layer, shift: np.ndarray) -> np.ndarray:
    """Return a node's bias [D, 2 gates H] with what is added to the sums of its rows, [D gates H]."""
    bias = constant(node, B)
    assert bias is not None
    return (bias + padded(layer, shift)).astype(np.float32)


def padded(layer: Layer, shift: np.ndarray) -> np.ndarray:
    """Return what is added to the sums of rows [D gates H] as it is added to the bias: [D, 2 gates H], to the inputs' half."""
    rows = shift.reshape(layer.shape[0], layer.shape[1])
    return np.concatenate([rows, np.zeros_like(rows)], 1)


# --- what a layer reads -----------------------------------------------------------------------------------------------


def inputs_name(node: str) -> str:
    """Return the name of what `with_inputs` adds for a node."""
    return f"{node}@inputs"


def with_inputs(graph: Graph) -> Graph:
    """Return a graph that also computes what each row block of recurrent layers reads, ``[blocks, steps N, I + H]``.

    To the inputs X of a step belong the states before it: the output Y of the step before, in the direction of the layer, or
    the initial state. The rows of a GRU's hidden gate read states that its reset gate has scaled; where it scales them behind
    the product (linear_before_reset), each unit its own, the mean over the units stands for it.
    """
    from .graph import Graph as Captured

    if not any(layer.recurrent for layer in graph.layers.values()):
        return graph
    model = graph.model.clone()
    shapes = dict(graph.shapes)
    for node in list(model.graph):
        name = graph.layer_of_node.get(node.name or "")
        if name is not None and graph.layers[name].recurrent:
            shapes |= _Inputs(model, node, graph.layers[name], graph.weight(graph.layers[name]), shapes).write()
    return Captured(model, {port.name: port.shape for port in graph.inputs}, shapes)


class _Inputs:
    """The nodes behind a recurrent node that compute what its rows read."""

    def __init__(
        self, model: ir.Model, node: ir.Node, layer: Layer, weight: np.ndarray, shapes: dict[str, tuple[int, ...]]
    ) -> None:
        self.model, self.node, self.weight = model, node, weight
        self.sizes = sizes(layer.op, layer.shape)
        self.steps, self.batch = shapes[node.inputs[X].name or ""][:2]  # type: ignore[union-attr]
        self._last = node
        self._count = 0

    def write(self) -> dict[str, tuple[int, ...]]:
        """Add the nodes; return the shapes of what they compute."""
        import onnx_ir as ir

        of = self.sizes
        states = self.node.outputs[0]
        shapes = {}
        if not states.name:
            states.name, states.type = f"{self.node.name}@states", ir.TensorType(ir.DataType.FLOAT)
            shapes[states.name] = (self.steps, of.directions, self.batch, of.hidden)
        blocks = [block for direction in range(of.directions) for block in self._blocks(states, direction)]
        result = blocks[0] if len(blocks) == 1 else self._op("Concat", *blocks, axis=0)
        result.name, result.type = inputs_name(self.node.name or ""), ir.TensorType(ir.DataType.FLOAT)
        return shapes | {result.name: (len(blocks), self.steps * self.batch, of.inputs + of.hidden)}

    def _blocks(self, states: ir.Value, direction: int) -> list[ir.Value]:
        """Return what the row blocks of a direction read, ``[1, steps N, I + H]`` each."""
        x, before = self.node.inputs[X], self._before(states, direction)
        assert x is not None
        plain = self._joined(x, before)
        if self.node.op_type == "LSTM":
            return [plain]
        return [plain, plain, self._joined(x, self._reset(plain, before, direction))]

    def _joined(self, x: ir.Value, states: ir.Value) -> ir.Value:
        shape = self._constant(np.array([1, -1, self.sizes.inputs + self.sizes.hidden], np.int64))
        return self._op("Reshape", self._op("Concat", x, states, axis=2), shape)

    def _before(self, states: ir.Value, direction: int) -> ir.Value:
        """Return the states before each step ``[steps, N, H]``: of a backward direction those of the step behind it."""
        of = self.sizes
        backward = direction == 1 or self.node.attributes.get_string("direction", "forward") == "reverse"
        own = self._cut(states, 1, direction, direction + 1)
        own = self._op("Squeeze", own, self._constant(np.array([1], np.int64)))
        first = given(self.node, STATE)
        start = (
            self._constant(np.zeros((1, self.batch, of.hidden), np.float32))
            if first is None
            else self._cut(first, 0, direction, direction + 1)
        )
        if self.steps == 1:
            return start
        kept = self._cut(own, 0, 1, self.steps) if backward else self._cut(own, 0, 0, self.steps - 1)
        return self._op("Concat", *((kept, start) if backward else (start, kept)), axis=0)

    def _reset(self, plain: ir.Value, before: ir.Value, direction: int) -> ir.Value:
        """Return the states as a GRU's hidden gate sees them."""
        of, bias = self.sizes, constant(self.node, B)
        assert bias is not None
        if activations(self.node)[2 * direction] != "Sigmoid":
            return before
        rows = slice(of.hidden, 2 * of.hidden)  # of the reset gate
        added = bias[direction, rows] + bias[direction, of.gates * of.hidden :][rows]
        sums = self._op("MatMul", plain, self._constant(np.ascontiguousarray(self.weight[direction, rows].T)))
        gate = self._op("Sigmoid", self._op("Add", sums, self._constant(added)))
        gate = self._op("Reshape", gate, self._constant(np.array([self.steps, -1, of.hidden], np.int64)))
        if self.node.attributes.get_int("linear_before_reset", 0):
            gate = self._op("ReduceMean", gate, self._constant(np.array([2], np.int64)), keepdims=1)
        return self._op("Mul", gate, before)

    def _cut(self, value: ir.Value, axis: int, start: int, end: int) -> ir.Value:
        bounds = [self._constant(np.array([number], np.int64)) for number in (start, end, axis)]
        return self._op("Slice", value, *bounds)

    def _constant(self, array: np.ndarray) -> ir.Value:
        from .follow import new_constant

        value = new_constant(self._name(), array)
        self.model.graph.initializers.add(value)
        return value

    def _op(self, op: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        import onnx_ir as ir

        node = ir.node(op, list(inputs), attributes, name=self._name())
        node.outputs[0].name = node.name
        self.model.graph.insert_after(self._last, node)
        self._last = node
        return node.outputs[0]

    def _name(self) -> str:
        self._count += 1
        return f"{inputs_name(self.node.name or '')}/{self._count}"
