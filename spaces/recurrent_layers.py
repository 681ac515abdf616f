"""How an LSTM or GRU is written: its joined weight decoded from what is stored, and cut in two; biases stored as their sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from . import recurrent
from .recurrent import AXIS, PEEPHOLES, B, Sizes, X

if TYPE_CHECKING:
    import onnx_ir as ir

    from .emit import Emitter
    from .graph import Layer
    from .lowering import Lowering
    from .repaired import FloatLayer, RoundedLayer

LEAST_SAVED = 256  # bytes: what the nodes that spread a sum of biases take


def emit(
    lowering: Lowering, node: ir.Node, layer: Layer, weight: ir.Value | None, found: RoundedLayer | FloatLayer | None
) -> None:
    """Write a node in float.

    Args:
        lowering: of the candidate.
        node: captured.
        layer: its layer.
        weight: the joined one, as the kernel gets it; None where its parts are written.
        found: what repair adds to the sums, where the graph's biases do not hold it already.
    """
    w, r = parts(lowering, layer, weight)
    others = other_inputs(lowering, node, layer, found)
    while others and others[-1] is None:
        others.pop()
    x = lowering.float_value(node.inputs[X].name or "")  # type: ignore[union-attr]
    results = lowering.emitter.ops(node.op_type, [x, w, r, *others], len(node.outputs), attributes=node.attributes)
    set_outputs(lowering, node, results)


def other_inputs(
    lowering: Lowering, node: ir.Node, layer: Layer, found: RoundedLayer | FloatLayer | None
) -> list[ir.Value | None]:
    """Return a node's inputs behind the weights, None where one is absent; ``found`` as in `emit`."""
    given = (recurrent.given(node, index) for index in range(B + 1, PEEPHOLES + 1))
    return [
        bias(lowering, node, layer, found),
        *(None if value is None else lowering.any_value(value) for value in given),
    ]


def set_outputs(lowering: Lowering, node: ir.Node, results: Sequence[ir.Value]) -> None:
    """Say what a node's outputs are in float."""
    for value, result in zip(node.outputs, results, strict=True):
        if value.name:
            lowering.set_float(value.name, result)


def parts(lowering: Lowering, layer: Layer, weight: ir.Value | None, turned: bool = False) -> tuple[ir.Value, ir.Value]:
    """Return the weights of inputs and of states, or those two [D, I or H, gates H], turned; once for all nodes of a layer."""
    if layer.name not in lowering.recurrent_parts:
        assert weight is not None
        of, emitter = recurrent.sizes(layer.op, layer.shape), lowering.emitter
        axis = 1 if turned else AXIS
        if weight.const_value is not None:
            whole = weight.const_value.numpy()
            arrays = np.split(whole.swapaxes(1, AXIS) if turned else whole, [of.inputs], axis)
            w, r = (emitter.constant(array, shared=False) for array in arrays)
        else:
            widths = emitter.constant(np.array([of.inputs, of.hidden], np.int64))
            value = emitter.op("Transpose", weight, perm=[0, 2, 1]) if turned else weight
            w, r = emitter.ops("Split", [value, widths], 2, attributes={"axis": axis})
        lowering.recurrent_parts[layer.name] = w, r
    return lowering.recurrent_parts[layer.name]


def bias(lowering: Lowering, node: ir.Node, layer: Layer, found: RoundedLayer | FloatLayer | None) -> ir.Value | None:
    """Return a node's bias [D, 2 gates H] with what its repair adds; None where there is nothing to add.

    ONNX adds two biases to each sum. A candidate that is compressed stores their sum, but for a GRU's hidden gate, whose
    second one may be scaled by the reset gate.
    """
    values = recurrent.constant(node, B)
    assert values is not None
    if found is not None and found.shift.any():
        values = recurrent.shifted(node, layer, found.shift)
    if not values.any():
        return None
    of = recurrent.sizes(layer.op, layer.shape)
    apart = of.hidden if layer.op == "GRU" else 0  # biases of a direction that stay apart
    saved = values.nbytes // 2 - 4 * of.directions * apart
    if not lowering.candidate.rewritten or saved < LEAST_SAVED:
        return lowering.emitter.constant(values, shared=False)
    return _spread(lowering.emitter, values, of, apart)


def _spread(emitter: Emitter, values: np.ndarray, of: Sizes, apart: int) -> ir.Value:
    """Write biases [D, 2 gates H] as their sums, the second half filled up with zeros: folded when a file is opened."""
    rows = of.gates * of.hidden
    first, second = values[:, :rows], values[:, rows:]
    summed = rows - apart
    sums = np.concatenate([first[:, :summed] + second[:, :summed], first[:, summed:]], 1)

    def filled(value: ir.Value, after: int) -> ir.Value:
        return emitter.op("Pad", value, emitter.constant(np.array([0, 0, 0, after], np.int64)))

    if not apart:
        return filled(emitter.constant(sums, shared=False), rows)
    stored = emitter.constant(np.concatenate([sums, second[:, summed:]], 1), shared=False)
    ends = emitter.constant(np.array([rows, apart], np.int64))
    own, reset = emitter.ops("Split", [stored, ends], 2, attributes={"axis": 1})
    return emitter.op("Concat", filled(own, summed), reset, axis=1)


def weight_splits(lowering: Lowering) -> frozenset[str]:
    """Return the names of the captured nodes that cut weights of layers in two: `parts` writes what they are for."""
    joined = {layer.weight for layer in lowering.graph.layers.values() if layer.recurrent}
    nodes = (node for node in lowering.graph.model.graph if recurrent.is_weight_split(node))
    return frozenset(node.name or "" for node in nodes if node.inputs[0] is not None and node.inputs[0].name in joined)
