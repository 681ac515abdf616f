"""Lowering for LiteRT and ExecuTorch: nodes as they came, between QuantizeLinear and DequantizeLinear where integers run.

The graph is ONNX still; `mobile_torch` turns it into what PyTorch exports. Every integer kernel reads and writes rounded tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import recurrent, recurrent_layers
from .convolution import cropped, ends, transposed_padding
from .emit import FLOAT
from .joint_grids import JointGridLowering
from .matrix import transposed_to_conv
from .mobile_domains import CLIPPING, MOVING
from .weights import per_channel, shifted_bias, stored_floats

if TYPE_CHECKING:
    import onnx_ir as ir

    from .candidate import LayerChoice
    from .graph import Layer

SIGMOID = (1 / 256, 0)  # scale and zero point that XNNPACK's integer sigmoid writes, whatever its range


class MobileLowering(JointGridLowering):
    """One candidate being written for LiteRT or ExecuTorch."""

    coarsest = math.inf  # XNNPACK takes any Concat between rounding ops for one of integers on one grid

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._unrounded: dict[str, ir.Value] = {}  # results that a Relu or Clip reads before they are rounded

    def write(self, node: ir.Node) -> None:
        """Write what a captured node becomes."""
        layer = self.graph.layer_of_node.get(node.name or "")
        if layer is not None:
            self._layer(node, self.graph.layers[layer])
        elif node.name not in self.integer:
            self.copy(node)
        elif node.op_type in MOVING:
            self._move(node)
        else:
            self._compute(node)

    # --- tensors ---

    def carried(self, node: ir.Node) -> list[str]:
        """Return the names of the tensors whose integers a node moves; none of a node that computes."""
        if node.op_type == "Concat":
            return [value.name or "" for value in node.inputs if value is not None]
        return [self._source(node)] if node.op_type in MOVING else []

    def own_grid(self, root: str) -> tuple[float, int]:
        """Return the grid of tensors that are joined; that of a sigmoid, which kernels like, where all fit on it."""
        writer = self._values[root].producer()
        sigmoid = writer is not None and writer.op_type == "Sigmoid" and writer.name in self.integer
        fits = all(low >= 0 and high <= 1 for low, high in map(self.tensor_range, self.joined(root)))
        return SIGMOID if sigmoid and fits else super().own_grid(root)

    def _computed(self, tensor: str, value: ir.Value, clipping: Sequence[str] = ("Relu",)) -> None:
        """Say what a kernel computes: it rounds its result, after what alone reads it and becomes a part of the kernel."""
        readers = self.consumers.get(tensor, [])
        clipped = len(readers) == 1 and readers[0].op_type in clipping and readers[0].name in self.integer
        if clipped and tensor not in self._output_names:
            self._unrounded[tensor] = value
        else:
            self.quantise(tensor, value)

    # --- nodes between layers ---

    def _source(self, node: ir.Node) -> str:
        assert node.inputs[0] is not None
        return node.inputs[0].name or ""

    def _move(self, node: ir.Node) -> None:
        """Write a node that moves integers: what it gives lies on the grid of what it takes."""
        quant = self.quantised(self._source(node))
        others = [None if value is None else self.any_value(value) for value in node.inputs[1:]]
        given = [self.dequantised(self._source(node)), *others]
        results = self.emitter.ops(node.op_type, given, len(node.outputs), attributes=node.attributes)
        for value, result in zip(node.outputs, results, strict=True):
            self.set_quantised(value.name or "", self._on_grid(result, quant.scale, quant.zero))

    def _compute(self, node: ir.Node) -> None:
        """Write a node that computes, or joins tensors of one grid, between DQ and Q."""
        inputs = [None if value is None else self._read(value) for value in node.inputs]
        self._computed(node.outputs[0].name or "", self.emitter.op(node.op_type, *inputs, attributes=node.attributes))

    def _read(self, value: ir.Value) -> ir.Value:
        if value.const_value is not None:
            return self.any_value(value)
        name = value.name or ""
        return self._unrounded[name] if name in self._unrounded else self.dequantised(name)

    # --- layers ---

    def _layer(self, node: ir.Node, layer: Layer) -> None:
        choice = self.candidate.choice(layer.name)
        if layer.recurrent:
            self._recurrent(node, layer, choice)
        elif not choice.integer:
            self._float_layer(node, layer, choice)
        elif layer.op == "ConvTranspose":
            self._transposed(node, layer)
        elif layer.op == "Conv":
            source, target = ends(node)
            bias = shifted_bias(node, layer, self.rounded(layer.name))
            inputs = [self.dequantised(source), self._codes(layer, layer.channel_axis), *self._stored(bias)]
            self._computed(target, self._told(self.emitter.op("Conv", *inputs, attributes=node.attributes)), CLIPPING)
        else:
            self._product(node, layer)

    def _recurrent(self, node: ir.Node, layer: Layer, choice: LayerChoice) -> None:
        """Write an LSTM or GRU in float; rounded weights as matrices, one a direction: so LiteRT's converter stores them."""
        found = self.rounded(layer.name) if choice.rounded else None
        if found is not None and layer.name not in self.recurrent_parts:
            of = recurrent.sizes(layer.op, layer.shape)
            scales = found.scale.reshape(of.directions, -1)
            w, r = (self._stacked(codes, scales) for codes in np.split(found.codes, [of.inputs], recurrent.AXIS))
            self.recurrent_parts[layer.name] = w, r
        written = layer.name in self.recurrent_parts
        recurrent_layers.emit(self, node, layer, None if written else self._float_weight(layer, choice), found)

    def _stacked(self, codes: np.ndarray, scales: np.ndarray) -> ir.Value:
        """Return weights [D, O, I] of codes of that shape and scales [D, O]."""
        axis = self.emitter.constant(np.array([0], np.int64))
        matrices = [self._decoded(*part, 0) for part in zip(codes, scales, strict=True)]
        each = [self.emitter.op("Unsqueeze", matrix, axis) for matrix in matrices]
        return each[0] if len(each) == 1 else self.emitter.op("Concat", *each, axis=0)

    def _float_layer(self, node: ir.Node, layer: Layer, choice: LayerChoice) -> None:
        source, target = ends(node)
        bias = shifted_bias(node, layer, self.rounded(layer.name) if choice.rounded else None)
        inputs = [self.float_value(source), self._float_weight(layer, choice), *self._stored(bias)]
        self.set_float(target, self.emitter.op(node.op_type, *inputs, attributes=node.attributes))

    def _product(self, node: ir.Node, layer: Layer) -> None:
        """Write a Gemm or MatMul as a Gemm of rows with a weight [O, I]; other axes than the last are joined before it."""
        source, target = ends(node)
        bias = shifted_bias(node, layer, self.rounded(layer.name))
        quant, shape = self.quantised(source), self.sizes(source)
        x = self.dequantised(source)
        if len(shape) != 2:
            rows = self.emitter.op("Reshape", x, self.emitter.constant(np.array([-1, layer.shape[0]], np.int64)))
            x = self.dequantise(self._on_grid(rows, quant.scale, quant.zero))
        found = self._told(self.emitter.op("Gemm", x, self._codes(layer, 0), *self._stored(bias), transB=1))
        if len(shape) == 2:
            self._computed(target, found, CLIPPING)
        else:
            self.quantise(target, found)
            sizes = [self.graph.shapes[source][axis] if n is None else n for axis, n in enumerate(shape)]
            back = self.emitter.constant(np.array([*sizes[:-1], layer.channels], np.int64))
            self._moved(target, lambda rows: self.emitter.op("Reshape", rows, back))

    def _transposed(self, node: ir.Node, layer: Layer) -> None:
        """Write a ConvTranspose as the convolution it equals (`matrix.transposed_to_conv`), a pixel shuffle and a crop."""
        source, target = ends(node)
        phases, (begin, end, crop) = math.prod(layer.strides), transposed_padding(layer)
        rounded = self.rounded(layer.name)
        bias = shifted_bias(node, layer, rounded)
        if layer.name not in self.weights:
            codes = transposed_to_conv(layer, rounded.codes)
            self.weights[layer.name] = self._decoded(codes, np.tile(rounded.scale, phases), 0)
        weight = self.weights[layer.name]
        stored = self._stored(None if bias is None else np.tile(bias, phases))
        taps = [math.ceil(k / s) for k, s in zip(layer.kernel, layer.strides, strict=True)]
        attributes = {"pads": [*begin, *end], "kernel_shape": taps}
        value = self.emitter.op("Conv", self.dequantised(source), weight, *stored, attributes=attributes)
        self.quantise(target, self._told(value))
        if phases > 1:
            self._moved(target, lambda x: self.emitter.op("DepthToSpace", x, blocksize=layer.strides[0], mode="DCR"))
        if any(any(pair) for pair in crop):
            self._moved(target, lambda x: cropped(self.emitter, x, crop))

    def _moved(self, tensor: str, moved: Callable[[ir.Value], ir.Value]) -> None:
        """Exchange a quantised tensor for what moves its values, on the same grid."""
        quant = self._quantised[tensor]
        self.set_quantised(tensor, self._on_grid(moved(self.dequantise(quant)), quant.scale, quant.zero))

    def _told(self, value: ir.Value) -> ir.Value:
        """Keep what a kernel that has to run in integers writes."""
        self.integer_tensors.append((self.emitter.owner, value))
        return value

    def _stored(self, bias: np.ndarray | None) -> list[ir.Value]:
        return [] if bias is None else [self.emitter.constant(bias.astype(np.float32), shared=False)]

    def _codes(self, layer: Layer, axis: int) -> ir.Value:
        """Return the DQ node of a layer's codes with its output channels along an axis; once for all its nodes."""
        if layer.name not in self.weights:
            rounded = self.rounded(layer.name)
            codes = rounded.codes if axis == layer.channel_axis else rounded.codes.T
            self.weights[layer.name] = self._decoded(codes, rounded.scale, axis)
        return self.weights[layer.name]

    def _decoded(self, codes: np.ndarray, scale: np.ndarray, axis: int) -> ir.Value:
        stored = self.emitter.constant(np.ascontiguousarray(codes), shared=False)
        return self.emitter.op("DequantizeLinear", stored, self.emitter.constant(scale), axis=axis)

    def _float_weight(self, layer: Layer, choice: LayerChoice) -> ir.Value:
        """Return a layer's weight for a float kernel; once for all its nodes."""
        if layer.name not in self.weights:
            self.weights[layer.name] = self._written_weight(layer, choice)
        return self.weights[layer.name]

    def _written_weight(self, layer: Layer, choice: LayerChoice) -> ir.Value:
        if not choice.rounded:
            weight = self.emitter.constant(stored_floats(self.graph, layer, choice), shared=False)
            return weight if choice.weight_bits == 32 else self.emitter.op("Cast", weight, to=FLOAT)
        rounded = self.rounded(layer.name)
        if (
            layer.op == "ConvTranspose" and layer.group > 1
        ):  # its channels lie on two axes: no scales of one axis tell it
            floats = rounded.codes * per_channel(layer, rounded.scale)
            return self.emitter.constant(floats.astype(np.float32), shared=False)
        return self._decoded(rounded.codes, rounded.scale, layer.channel_axis)
