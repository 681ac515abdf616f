"""Reshapes to a shape that the model computes, where it can be told: exporters write them for inputs with free axes.

Layers around such a computation cannot lose channels, for it computes with their number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .follow import FreeNames, new_constant
from .graph import inferred_anew

if TYPE_CHECKING:
    import onnx_ir as ir

KEPT, REST = 0, -1  # entries of a Reshape's shape (ONNX operator Reshape): the axis as it is, what is left


def told_reshapes(model: ir.Model) -> None:
    """Give Reshapes whose shape is computed a constant one, in place.

    It is known where all axes but one are of a known size or the input's own: the number of elements, which is not 0, tells the
    last one.
    """
    computed = [node for node in model.graph if node.op_type == "Reshape" and _is_computed(node.inputs[1])]
    if not computed:
        return
    inferred, free = _inferred(model), FreeNames(model)
    for node in computed:
        shape = _shape(*(inferred.get(_name(value)) for value in (node.inputs[0], node.outputs[0])))
        if shape is not None:
            value = new_constant(free(f"{node.name}/shape"), np.array(shape, np.int64))
            model.graph.initializers.add(value)
            node.replace_input_with(1, value)
            node.attributes.pop("allowzero", None)


def _is_computed(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is None


def _name(value: ir.Value | None) -> str:
    return "" if value is None else value.name or ""


def _inferred(model: ir.Model) -> dict[str, ir.Shape]:
    copy = inferred_anew(model)
    values = [*copy.graph.inputs, *(value for node in copy.graph for value in node.outputs)]
    return {_name(value): value.shape for value in values if value.shape is not None}


def _shape(given: ir.Shape | None, wanted: ir.Shape | None) -> list[int] | None:
    """Return the shape that a Reshape gives, in its own terms; None where that cannot be told."""
    if given is None or wanted is None:
        return None
    own = dict(enumerate(given))
    found = [
        size if isinstance(size, int) else KEPT if size.value is not None and size == own.get(axis) else REST
        for axis, size in enumerate(wanted)
    ]
    told = found.count(REST) < 2 and not any(size == 0 for size in wanted)
    return found if told else None
