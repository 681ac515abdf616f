"""Forms: other ways to write a layer, that trade size for time; each is a rewriting of the captured float graph.

A form gives the same function by another layer. Everything behind it (statistics, rounding, pruning, lowering) sees the
rewritten graph, in which the layer keeps its name and its output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .candidate import DYNAMIC, NATIVE, Candidate
from .errors import InputError
from .follow import new_constant
from .graph import Graph, Layer
from .integer_ops import constant_input, nearest_factors
from .narrow import Removed

if TYPE_CHECKING:
    import onnx_ir as ir


class Form(Protocol):
    """One other way to write a layer of one group, as ``op``.

    What it gives equals the layer, at the borders too: `tests/spaces/test_forms.py` holds every form to that.

    Example:
        class Phases:
            op = "ConvTranspose"
            def fits(self, graph, layer): ...     # a Conv of stride 1 behind a nearest Resize
            def weight(self, graph, layer): ...   # taps of neighbours that read the same pixel, added up
            def rewrite(self, graph, layer, node): ...  # the node becomes a ConvTranspose that reads the small image
    """

    op: str

    def fits(self, graph: Graph, layer: Layer) -> bool:
        """Whether the layer can be written so."""
        ...

    def weight(self, graph: Graph, layer: Layer) -> np.ndarray:
        """Return the new float32 weight, in the stored layout of the new op."""
        ...

    def rewrite(self, graph: Graph, layer: Layer, node: ir.Node) -> None:
        """Turn a node of the layer, in a copy of the graph, into the new op; its weight is exchanged already."""
        ...


class Phases:
    """Nearest upsampling and the Conv behind it as the one ConvTranspose that they equal.

    Upsampling by f is a ConvTranspose with f x f ones, so the taps of the two add up to one kernel of k + f - 1, stride f:
    for 2x and 3x3, 16 taps on the small image in place of 9 on the large one, 2.25 times fewer multiply-adds.
    """

    op = "ConvTranspose"

    def fits(self, graph: Graph, layer: Layer) -> bool:
        """Whether the layer is a plain Conv, padded by less than its kernel, that reads nearest upsampling only."""
        plain = layer.op == "Conv" and len(layer.kernel) == 2 and layer.group == 1
        if not plain or any(step != 1 for step in (*layer.strides, *layer.dilations)):
            return False
        if not all(0 <= pad < k for pad, k in zip(layer.pads, layer.kernel * 2, strict=True)):
            return False
        nodes = [node for node in graph.model.graph if node.name in layer.nodes]
        if any(node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET" for node in nodes):
            return False
        factors = {nearest_before(graph, node) for node in nodes}
        return len(factors) == 1 and None not in factors

    def weight(self, graph: Graph, layer: Layer) -> np.ndarray:
        """Return the ConvTranspose's weight [I, O, k + f - 1...]."""
        high, wide = self._factors(graph, layer)
        taps = np.flip(graph.weight(layer), (2, 3)).transpose(1, 0, 2, 3)
        rows, columns = layer.kernel
        total = np.zeros((*taps.shape[:2], rows + high - 1, columns + wide - 1), np.float32)
        for i, j in np.ndindex(high, wide):
            total[:, :, i : i + rows, j : j + columns] += taps
        return total

    def rewrite(self, graph: Graph, layer: Layer, node: ir.Node) -> None:
        """Make the node a ConvTranspose that reads what the Resize read."""
        import onnx_ir as ir

        factors = self._factors(graph, layer)
        assert node.inputs[0] is not None
        resize = node.inputs[0].producer()
        assert resize is not None
        node.replace_input_with(0, resize.inputs[0])
        node.op_type = self.op
        node.attributes.clear()
        geometry = {
            "kernel_shape": [k + f - 1 for k, f in zip(layer.kernel, factors, strict=True)],
            "strides": list(factors),
            "pads": [k - 1 - pad for pad, k in zip(layer.pads, layer.kernel * 2, strict=True)],
        }
        for name, values in geometry.items():
            node.attributes[name] = ir.AttrInt64s(name, values)

    def _factors(self, graph: Graph, layer: Layer) -> tuple[int, int]:
        factors = nearest_before(graph, next(node for node in graph.model.graph if node.name == layer.nodes[0]))
        assert factors is not None
        return factors


def nearest_before(graph: Graph, node: ir.Node) -> tuple[int, int] | None:
    """Return the factors of the nearest upsampling whose output the node reads, None where that is not certain.

    A Resize that is told the size of its output has these factors at one size of its input only.
    """
    resize = node.inputs[0].producer() if node.inputs[0] is not None else None
    if resize is None or resize.op_type != "Resize" or resize.domain not in ("", "ai.onnx"):
        return None
    scales = constant_input(resize, 2)
    told_scales = scales is not None and scales.size > 0
    if not told_scales and not all(_is_static(value) for value in (resize.inputs[0], resize.outputs[0])):
        return None
    factors = nearest_factors(graph, resize)
    return None if factors == (1, 1) else factors


FORMS: Mapping[str, Form] = {"phases": Phases()}
DYNAMIC_OPS = (
    "Gemm",
    "MatMul",
    "LSTM",
)  # that can be written in the form "dynamic" (`dynamic`): the graph stays as it is


def valid_forms(graph: Graph, layer: Layer) -> tuple[str, ...]:
    """Return the forms that a layer can take, "native" first."""
    dynamic = (DYNAMIC,) if layer.op in DYNAMIC_OPS else ()
    return (NATIVE, *(name for name, form in FORMS.items() if form.fits(graph, layer)), *dynamic)


def check_form(graph: Graph, layer: Layer, form: str) -> None:
    """Raise `InputError`, with what it can take, where a layer cannot take a form."""
    if form != NATIVE and form not in (valid := valid_forms(graph, layer)):
        raise InputError(f"layer {layer.name!r} ({layer.op}) cannot take form {form!r}; it can take {', '.join(valid)}")


def forms_of(candidate: Candidate) -> dict[str, str]:
    """Return the form of each layer of a candidate for which the graph is rewritten."""
    return {name: choice.form for name, choice in candidate.layers.items() if choice.form in FORMS}


def formed(graph: Graph, forms: Mapping[str, str]) -> Graph:
    """Return a graph whose layers are written in these forms, by layer name; the graph itself where there are none."""
    import onnx_ir.passes.common as passes

    if not forms:
        return graph
    model = graph.model.clone()
    nodes = {node.name: node for node in model.graph}
    for name, form in forms.items():
        layer = graph.layers[name]
        weight = new_constant(formed_weight(layer, form), FORMS[form].weight(graph, layer))
        model.graph.initializers.add(weight)
        for node in layer.nodes:
            nodes[node].replace_input_with(1, weight)
            FORMS[form].rewrite(graph, layer, nodes[node])
    passes.RemoveUnusedNodesPass()(model)
    return Graph(model, {port.name: port.shape for port in graph.inputs}, graph.shapes)


def formed_weight(layer: Layer, form: str) -> str:
    """Return the name of a layer's weight in a form."""
    return f"{layer.weight}@{form}"


def formed_entries(graph: Graph, removed: Removed, forms: Mapping[str, str]) -> Removed:
    """Return removed entries with those of the formed layers' weights: the same channels, on the axes of the new op."""
    carried = dict(removed)
    for name, form in forms.items():
        old = graph.layers[name]
        new = replace(old, op=FORMS[form].op, weight=formed_weight(old, form))
        for before, now in ((old.channel_axis, new.channel_axis), (old.input_axis, new.input_axis)):
            if (old.weight, before) in removed:
                carried[(new.weight, now)] = removed[(old.weight, before)]
    return carried


def growth(graph: Graph, layer: Layer, form: str) -> float:
    """Return how many times the weights of a layer a form has."""
    if form not in FORMS:
        return 1.0
    return FORMS[form].weight(graph, layer).size / math.prod(layer.shape)


def _is_static(value: ir.Value | None) -> bool:
    return value is not None and value.shape is not None and value.shape.is_static()
