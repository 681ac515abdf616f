"""Gemms as products of rows with a constant weight, and at most one number added for each output: the form that layers have.

What else an ONNX Gemm can say (operator Gemm: alpha, beta, transA, a C that is computed or of any shape that broadcasts) is said
by the constants, or by nodes before and behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .follow import FreeNames, new_constant
from .graph import has_plain_scales

if TYPE_CHECKING:
    import onnx_ir as ir


def plain_gemms(model: ir.Model) -> None:
    """Make the Gemms of float32 with constant weights plain, in place; they keep their names, the outputs their values.

    Those that are plain stay as they were written: graphs, and with them runs, are known by every attribute.
    """
    import onnx_ir as ir

    gemms = _Gemms(model)
    for node in list(model.graph):
        weight = node.inputs[1] if node.op_type == "Gemm" and node.domain in ("", "ai.onnx") else None
        if weight is None or weight.const_value is None or weight.const_value.dtype != ir.DataType.FLOAT:
            continue
        if not _is_plain(node):
            gemms.make_plain(node)


class _Gemms:
    """The Gemms of a model that is being edited."""

    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        self._free = FreeNames(model)
        self._scaled: dict[tuple[str, float], ir.Value] = {}  # constants times a number, one for all nodes that read it

    def make_plain(self, node: ir.Node) -> None:
        """Edit one node."""
        alpha, beta = (node.attributes.get_float(name, 1.0) or 0.0 for name in ("alpha", "beta"))
        turned = node.attributes.get_int("transA", 0)
        for name in ("alpha", "beta", "transA"):
            node.attributes.pop(name, None)
        node.replace_input_with(1, self._times(node.inputs[1], alpha))  # type: ignore[arg-type]
        if turned:
            node.replace_input_with(0, self._before(node, "Transpose", [node.inputs[0]], perm=[1, 0]))
        added = node.inputs[2] if len(node.inputs) > 2 else None
        if added is None:
            return
        if beta == 0.0:  # what is not read may be infinite
            node.resize_inputs(2)
        elif added.const_value is not None:
            added = self._times(added, beta)
            node.replace_input_with(2, added)
        elif beta != 1.0:
            factor = self._constant(f"{node.name or node.op_type}_beta", np.array(beta, np.float32))
            added = self._before(node, "Mul", [added, factor])
        if len(node.inputs) > 2 and not _is_row(added):
            self._add_behind(node, added)

    def _times(self, value: ir.Value, factor: float) -> ir.Value:
        if factor == 1.0:
            return value
        key = (value.name or "", factor)
        if key not in self._scaled:
            array = value.const_value.numpy()  # type: ignore[union-attr]
            self._scaled[key] = self._constant(f"{value.name}_times_{factor:g}", np.float32(factor) * array)
        return self._scaled[key]

    def _constant(self, name: str, array: np.ndarray) -> ir.Value:
        value = new_constant(self._free(name), array)
        self._graph.initializers.add(value)
        return value

    def _before(self, node: ir.Node, op: str, inputs: list[ir.Value | None], **attributes: list[int]) -> ir.Value:
        import onnx_ir as ir

        name = self._free(f"{node.name or node.op_type}_{op}")
        new = ir.node(op, inputs, attributes, name=name)
        new.outputs[0].name, new.outputs[0].type = name, ir.TensorType(ir.DataType.FLOAT)
        self._graph.insert_before(node, new)
        return new.outputs[0]

    def _add_behind(self, node: ir.Node, added: ir.Value) -> None:
        """Let a node behind add C; it writes what the Gemm wrote."""
        import onnx_ir as ir

        node.resize_inputs(2)
        product = ir.Value(
            name=self._free(f"{node.name or node.op_type}_product"), type=ir.TensorType(ir.DataType.FLOAT)
        )
        new = ir.node("Gemm", list(node.inputs), dict(node.attributes), outputs=[product], name=node.name)
        add = ir.node("Add", [product, added], name=self._free(f"{node.name or node.op_type}_Add"))
        ir.convenience.replace_nodes_and_values(
            self._graph, node, [node], [new, add], [node.outputs[0]], [add.outputs[0]]
        )


def _is_plain(node: ir.Node) -> bool:
    added = node.inputs[2] if len(node.inputs) > 2 else None
    return has_plain_scales(node) and (added is None or _is_row(added))


def _is_row(c: ir.Value) -> bool:
    """Whether C is constant, with one number for each output or one for all."""
    return c.const_value is not None and c.const_value.size == ([*c.const_value.shape] or [1])[-1]
