"""Lowering, the last step of a build: the graph is written anew, each node in the form that the runtime's kernels like.

Every tensor is known in one or both of two domains: float, and integer (uint8 with scale and zero point). Nodes ask for their
inputs in the domain in which they run; conversions are written where they are first needed, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import layers, recurrent_layers
from .emit import OPSET, Emitter
from .float_ops import float_op
from .graph import Graph
from .integer_ops import OPS, clip_range
from .narrow import Removed, kept_inputs
from .prune import pruned, with_weights
from .repaired import FloatLayer, RoundedLayer
from .trained import Trained

if TYPE_CHECKING:
    import onnx_ir as ir

    from .candidate import Candidate
    from .rules import Rules

PASS_THROUGH = ("Relu", "Clip", "MaxPool", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten")


@dataclass(frozen=True)
class Quant:
    """A tensor in integers: real value = (uint8 - zero) * scale."""

    value: ir.Value
    scale: float
    zero: int


def quantisation(low: float, high: float) -> tuple[float, int]:
    """Return scale and zero point of the uint8 grid that spans [low, high] and holds zero exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / 255)) or 1.0
    scale = max(scale, 1e-30)
    return scale, int(np.clip(np.rint(-low / scale), 0, 255))


class Lowering:
    """One candidate being written, for ONNX Runtime; other runtimes' lowerings write nodes otherwise.

    Args:
        graph: the captured reference.
        candidate: what to write.
        integer: names of the nodes that run in integers (`rules.Rules.integer_nodes`).
        tensor_range: (low, high) of a tensor by name.
        rounded: a layer's rounded weights, by layer name (for layers with weight bits 2-8).
        grids: scale and zero point by tensor, where training has found them; others follow from the tensor's range.
        refitted: layers whose float weights the graph has exchanged already, and moved their biases.

    After `run`, ``grids`` holds scale and zero point of each captured tensor that was quantised, and ``integer_tensors`` the
    node of each convolution and matrix product that has to run in integers, and the tensor that its kernel is known by.
    """

    def __init__(
        self,
        graph: Graph,
        candidate: Candidate,
        integer: frozenset[str],
        tensor_range: Callable[[str], tuple[float, float]],
        rounded: Callable[[str], RoundedLayer],
        grids: Mapping[str, tuple[float, int]] | None = None,
        refitted: Mapping[str, FloatLayer] | None = None,
    ) -> None:
        self.graph = graph
        self.candidate = candidate
        self.integer = integer
        self.tensor_range = tensor_range
        self.rounded = rounded
        self.refitted = refitted or {}
        self.emitter = Emitter(max(OPSET, graph.model.graph.opset_imports.get("", OPSET)))
        self.consumers: dict[str, list[ir.Node]] = {}
        for node in graph.model.graph:
            for value in node.inputs:
                if value is not None:
                    self.consumers.setdefault(value.name or "", []).append(node)
        self._output_names = {value.name for value in graph.model.graph.outputs}
        self._values = {value.name: value for value in graph.model.graph.inputs}
        self._values |= {value.name: value for node in graph.model.graph for value in node.outputs}
        self._float: dict[str, ir.Value] = {}
        self._from_integer: set[str] = set()
        self._quantised: dict[str, Quant] = {}
        self._dequantised: dict[str, ir.Value] = {}
        self.weights: dict[str, ir.Value] = {}
        self._trained_grids = grids or {}
        self.grids: dict[str, tuple[float, int]] = {}
        self.integer_products: set[str] = set()
        self.integer_tensors: list[tuple[str, ir.Value]] = []
        self.recurrent_parts: dict[str, tuple[ir.Value, ir.Value]] = {}  # weights of inputs and states, by layer
        self._weight_splits = recurrent_layers.weight_splits(self)
        self.shared_bytes: dict[str, int] = {}  # by layer, what it has of weights that several layers are stored in

    def run(self) -> ir.Model:
        """Write all nodes and return the model."""
        import onnx_ir as ir

        inputs = []
        for value in self.graph.model.graph.inputs:
            copy = ir.Value(name=value.name, shape=value.shape, type=value.type)
            inputs.append(copy)
            self._float[value.name or ""] = copy
        for node in self.graph.model.graph:
            self.emitter.owner = node.name or ""
            if node.name not in self._weight_splits:
                self.write(node)
        outputs = []
        for value in self.graph.model.graph.outputs:
            self.emitter.owner = ""
            result = self.any_value(value)
            result.shape, result.type = value.shape, value.type
            outputs.append((value.name or "", result))
        return self.emitter.finish(inputs, outputs)

    def write(self, node: ir.Node) -> None:
        """Write what a captured node becomes."""
        layer = self.graph.layer_of_node.get(node.name or "")
        if layer is not None:
            layers.emit(self, node, self.graph.layers[layer])
        elif node.name in self.integer:
            OPS[node.op_type].emit(self, node)
        elif not float_op(self, node):
            self.copy(node)

    # --- tensors in the domain that is asked for ---

    def float_value(self, tensor: str) -> ir.Value:
        """Return a tensor in float."""
        return self._float[tensor] if tensor in self._float else self.dequantised(tensor)

    def quantised(self, tensor: str) -> Quant:
        """Return a tensor in integers; a float one is quantised over its calibrated range."""
        if tensor not in self._quantised:
            self.quantise(tensor, self._float[tensor])
        return self._quantised[tensor]

    def dequantised(self, tensor: str) -> ir.Value:
        """Return the float view of a tensor in integers, as Q/DQ patterns need it."""
        quant = self.quantised(tensor)
        if tensor not in self._dequantised:
            self._dequantised[tensor] = self.dequantise(quant)
        return self._dequantised[tensor]

    def any_value(self, value: ir.Value) -> ir.Value:
        """Return a constant, or a computed tensor of another type than float."""
        if value.const_value is not None:
            return self.emitter.constant(value.const_value.numpy())
        return self.float_value(value.name or "")

    def set_float(self, tensor: str, value: ir.Value, *, from_integer: bool = False) -> None:
        """Say what a tensor is in float; ``from_integer`` where a DQ stands before the node that wrote it."""
        self._float[tensor] = value
        if from_integer:
            self._from_integer.add(tensor)

    def set_quantised(self, tensor: str, quant: Quant) -> None:
        """Say what a tensor is in integers."""
        self._quantised[tensor] = quant

    def quantise(self, tensor: str, value: ir.Value) -> None:
        """Write the Q node of a tensor whose float value was just computed."""
        self.grids[tensor] = self._trained_grids.get(tensor) or quantisation(*self._range(tensor))
        self._quantised[tensor] = self._on_grid(value, *self.grids[tensor])

    def grid_name(self, tensor: str) -> str:
        """Return the tensor that a quantised tensor shares its grid with: itself, where it shares it with none."""
        return tensor

    def requantise(self, value: ir.Value, low: float, high: float) -> Quant:
        """Write a Q node over [low, high]."""
        return self._on_grid(value, *quantisation(low, high))

    def _on_grid(self, value: ir.Value, scale: float, zero: int) -> Quant:
        return Quant(self.emitter.op("QuantizeLinear", value, *self.parameters(scale, zero)), scale, zero)

    def dequantise(self, quant: Quant) -> ir.Value:
        """Write a DQ node."""
        return self.emitter.op("DequantizeLinear", quant.value, *self.parameters(quant.scale, quant.zero))

    def parameters(self, scale: float, zero: int) -> tuple[ir.Value, ir.Value]:
        """Return scale and zero point as initializers."""
        return self.emitter.constant(np.float32(scale)), self.emitter.constant(np.uint8(zero))

    def sizes(self, tensor: str) -> list[int | None]:
        """Return a tensor's sizes in the shipped file, None for a free axis."""
        shape = self._values[tensor].shape
        if shape is None:
            return [None if i != 1 else size for i, size in enumerate(self.graph.shapes[tensor])]
        measured = self.graph.shapes[tensor]
        return [d if isinstance(d, int) else (measured[i] if i == 1 else None) for i, d in enumerate(shape)]

    # --- integer kernels of our own making ---

    def depthwise(self, source: str, codes: np.ndarray, scale: np.ndarray, attributes: dict[str, Any]) -> ir.Value:
        """Write an integer depthwise convolution of a tensor with int8 codes [C, 1, k, k] and scales [C]."""
        return self._depthwise(self.dequantised(source), codes, scale, attributes)

    def scaled_channels(self, quant: Quant, factors: np.ndarray) -> ir.Value:
        """Write the product of each channel with a factor [C], as an integer 1x1 depthwise convolution."""
        scale = np.maximum(np.abs(factors), 1e-12) / 127
        codes = np.rint(factors / scale).astype(np.int8).reshape(-1, 1, 1, 1)
        attributes = {"group": len(factors), "kernel_shape": [1, 1]}
        return self._depthwise(self.dequantise(quant), codes, scale.astype(np.float32), attributes)

    def _depthwise(self, x: ir.Value, codes: np.ndarray, scale: np.ndarray, attributes: dict[str, Any]) -> ir.Value:
        weight = self.decoded(self.emitter.constant(codes, shared=False), self.emitter.constant(scale))
        return self.emitter.op("Conv", x, weight, attributes=attributes)

    def decoded(self, codes: ir.Value, scale: ir.Value, *zero: ir.Value, axis: int = 0) -> ir.Value:
        """Write the DQ node of an integer kernel's int8 weights; what reads it has to run in integers."""
        self.integer_tensors.append((self.emitter.owner, codes))
        return self.emitter.op("DequantizeLinear", codes, scale, *zero, axis=axis)

    # --- rules about neighbours ---

    def reads_integer(self, tensor: str) -> bool:
        """Whether a float reader of this tensor gets it from a DQ node (directly, or through ops that ORT looks through)."""
        return tensor not in self._float or tensor in self._from_integer

    def only_in_integers(self, tensor: str) -> bool:
        """Whether a tensor was written in integers alone, so that float readers get its integers too."""
        return tensor not in self._float

    @property
    def whole(self) -> frozenset[str]:
        """The quantised tensors whose integers all their readers get."""
        return frozenset(tensor for tensor in self.grids if self.only_in_integers(tensor))

    def feeds_integer(self, tensor: str) -> bool:
        """Whether a Q node may follow this tensor (directly, or through ops that ONNX Runtime looks through)."""
        for node in self.consumers.get(tensor, ()):
            if node.name in self.integer:
                return True
            if node.op_type in PASS_THROUGH and any(self.feeds_integer(v.name or "") for v in node.outputs):
                return True
        return False

    def _range(self, tensor: str) -> tuple[float, float]:
        """Return the range to quantise over: where only clipping follows, what is left after it."""
        readers = self.consumers.get(tensor, [])
        clipped = [node for node in readers if node.op_type in ("Relu", "Clip") and node.name in self.integer]
        if readers and len(clipped) == len(readers) and tensor not in self._output_names:
            bounds = {clip_range(node) for node in clipped}
            if len(bounds) == 1:
                low, high = self._range(clipped[0].outputs[0].name or "")
                least, most = bounds.pop()
                return max(low, least) if least <= 0 else low, min(high, most)
        return self.tensor_range(tensor)

    def copy(self, node: ir.Node) -> None:
        """Write a node as it came, in float."""
        inputs = [None if value is None else self.any_value(value) for value in node.inputs]
        if node.op_type == "Add":
            inputs = [self._apart(value, other) for value, other in zip(inputs, node.inputs, strict=True)]
        data = node.inputs[0].name or "" if node.inputs and node.inputs[0] is not None else ""
        results = self.emitter.ops(
            node.op_type, inputs, len(node.outputs), domain=node.domain, attributes=node.attributes
        )
        passes_on = node.op_type in PASS_THROUGH and data in self._values and self.reads_integer(data)
        for value, result in zip(node.outputs, results, strict=True):
            self.set_float(value.name or "", result, from_integer=passes_on)

    def _apart(self, value: ir.Value | None, captured: ir.Value | None) -> ir.Value | None:
        """Give a bias added to an integer MatMul all its axes: ONNX Runtime would make a float Gemm of the two otherwise."""
        if (
            value is None
            or captured is None
            or captured.const_value is None
            or captured.const_value.dtype.name != "FLOAT"
        ):
            return value
        sums = [node for node in self.consumers.get(captured.name or "", ()) if node.op_type == "Add"]
        others = {v.name for node in sums for v in node.inputs if v is not None} & self.integer_products
        if not others:
            return value
        array = captured.const_value.numpy()
        rank = max(len(self.graph.shapes[name]) for name in others if name)
        return self.emitter.constant(array.reshape([1] * (rank - array.ndim) + list(array.shape)))


def lowering_of(
    graph: Graph,
    candidate: Candidate,
    removed: Removed,
    repair: Callable[[str], Any],
    tensor_range: Callable[[str], tuple[float, float]],
    rules: Rules,
    trained: Trained | None = None,
) -> Lowering:
    """Return the lowering of a candidate, not yet run: channels removed and float weights exchanged first.

    Args:
        graph: with all its channels.
        candidate: what to write.
        removed: the entries of each axis that go.
        repair: a layer's weights, in the shape that is left, by its name: a `RoundedLayer` where it is rounded, else a
            `FloatLayer`. Asked only for layers that change, which are all where they were trained.
        tensor_range: (low, high) of a tensor by name.
        rules: of the runtime.
        trained: what training has found, where ``repair`` gives it.

    Raises:
        BuildError: a layer with activation bits 8 that no integer kernel can run, or trained weights of another candidate.
    """
    narrow = pruned(graph, removed) if removed else graph
    if trained is not None:
        trained.check(narrow, candidate)
    changed = {
        name: repair(name)
        for name, layer in graph.layers.items()
        if not candidate.choice(name).rounded
        and (trained is not None or candidate.choice(name).sparsity or kept_inputs(layer, removed) is not None)
    }
    if changed:
        narrow = with_weights(narrow, changed)
    grids = None if trained is None else trained.grids
    integer = rules.integer_nodes(narrow, candidate)
    return rules.lowering(narrow, candidate, integer, tensor_range, repair, grids, changed)
