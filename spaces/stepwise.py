"""The captured graph run piece by piece on several inputs, with rounded weights and 8-bit activations simulated in float.

This is how sequential repair sees, before it rounds a layer, the inputs that this layer will really get.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .emit import OPSET, Emitter
from .graph import Graph
from .session import open_session

if TYPE_CHECKING:
    import onnx_ir as ir

Feed = Mapping[str, np.ndarray]


class Stepwise:
    """A run of the graph in topological order that stops where it is told to; weights may change until they are used.

    Args:
        graph: the captured reference.
        feeds: one dict of inputs for each batch.
        grids: scale and zero point of the tensors that are rounded to 8 bits (`Lowering.grids`).
        integer: nodes that read rounded tensors.
        whole: those of the tensors that all nodes read rounded (`Lowering.whole`).
    """

    def __init__(
        self,
        graph: Graph,
        feeds: Sequence[Feed],
        grids: Mapping[str, tuple[float, int]] | None = None,
        integer: frozenset[str] = frozenset(),
        whole: frozenset[str] = frozenset(),
    ) -> None:
        self.nodes = list(graph.model.graph)
        self.grids = grids or {}
        self.integer = integer
        self.whole = whole
        self.opset = max(OPSET, graph.model.graph.opset_imports.get("", OPSET))
        self.constants: dict[str, np.ndarray] = {}
        self.biases: dict[str, np.ndarray] = {}
        self.done = 0
        self.alive: list[dict[str, np.ndarray]] = [dict(feed) for feed in feeds]
        self.last_use: dict[str, int] = {}
        for number, node in enumerate(self.nodes):
            for value in node.inputs:
                if value is not None:
                    self.last_use[value.name or ""] = number

    def replace(self, node: str, weight: str, values: np.ndarray, bias: np.ndarray | None) -> None:
        """From here on use ``values`` for the initializer ``weight`` and ``bias`` [O] for ``node``."""
        self.constants[weight] = values
        if bias is not None:
            self.biases[node] = bias

    def inputs_of(self, node: str) -> list[np.ndarray]:
        """Run up to ``node`` and return its first input, for each batch, as the node will read it."""
        stop = next(number for number, other in enumerate(self.nodes) if other.name == node)
        self._run(stop)
        first = self.nodes[stop].inputs[0]
        assert first is not None
        name = first.name or ""
        if not self._rounds(name, self.nodes[stop]):
            return [values[name] for values in self.alive]
        scale, zero = self.grids[name]
        return [_on_grid(values[name], scale, zero) for values in self.alive]

    def _rounds(self, tensor: str, reader: ir.Node) -> bool:
        """Whether ``reader`` gets the tensor rounded to 8 bits."""
        return tensor in self.grids and (tensor in self.whole or reader.name in self.integer)

    def _run(self, stop: int) -> None:
        if stop <= self.done:
            return
        piece = self.nodes[self.done : stop]
        inside = {value.name or "" for node in piece for value in node.outputs}
        read = {v.name or "" for node in piece for v in node.inputs if v is not None and v.const_value is None}
        sources = sorted(read - inside)
        results = sorted(name for name in inside if self.last_use.get(name, -1) >= stop)
        model = self._model(piece, sources, results)
        import onnx_ir as ir

        session = open_session(
            ir.to_proto(model).SerializeToString(), threads=os.cpu_count() or 1, spinning=False, optimize=not self.grids
        )
        for values in self.alive:
            outputs = session.run(results, {name: values[name] for name in sources}) if results else []
            values.update(zip(results, outputs, strict=True))
            for name in [name for name in values if self.last_use.get(name, -1) < stop]:
                del values[name]
        self.done = stop

    def _model(self, piece: Sequence[ir.Node], sources: list[str], results: list[str]) -> ir.Model:
        import onnx_ir as ir

        emitter = Emitter(self.opset)
        captured = {v.name: v for node in self.nodes for v in [*node.inputs, *node.outputs] if v is not None}
        inputs = []
        for name in sources:
            kind = captured[name].type or ir.TensorType(ir.DataType.FLOAT)
            inputs.append(ir.Value(name=name, type=kind))
        known = dict(zip(sources, inputs, strict=True))
        rounded: dict[str, ir.Value] = {}
        for node in piece:
            arguments: list[ir.Value | None] = []
            for value in node.inputs:
                if value is None:
                    arguments.append(None)
                elif value.const_value is not None:
                    array = self.constants.get(value.name or "")
                    arguments.append(emitter.constant(value.const_value.numpy() if array is None else array))
                elif self._rounds(value.name or "", node):
                    arguments.append(self._rounded(emitter, known, rounded, value.name or ""))
                else:
                    arguments.append(known[value.name or ""])
            if node.name in self.biases:
                arguments = [*arguments[:2], emitter.constant(self.biases[node.name or ""])]
            outputs = emitter.ops(
                node.op_type, arguments, len(node.outputs), domain=node.domain, attributes=node.attributes
            )
            known.update((value.name or "", output) for value, output in zip(node.outputs, outputs, strict=True))
        finals = []
        for name in results:
            known[name].type = captured[name].type or ir.TensorType(ir.DataType.FLOAT)
            finals.append((name, known[name]))
        return emitter.finish(inputs, finals)

    def _rounded(
        self, emitter: Emitter, known: Mapping[str, ir.Value], rounded: dict[str, ir.Value], name: str
    ) -> ir.Value:
        if name not in rounded:
            scale, zero = self.grids[name]
            grid = emitter.constant(np.float32(scale)), emitter.constant(np.uint8(zero))
            codes = emitter.op("QuantizeLinear", known[name], *grid)
            rounded[name] = emitter.op("DequantizeLinear", codes, *grid)
        return rounded[name]


def _on_grid(values: np.ndarray, scale: float, zero: int) -> np.ndarray:
    codes = np.clip(np.rint(values / np.float32(scale)) + zero, 0, 255)
    return ((codes - zero) * np.float32(scale)).astype(np.float32)
