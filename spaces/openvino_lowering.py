"""Lowering for OpenVINO: nodes as they came, between QuantizeLinear and DequantizeLinear where integers are read.

Which tensors those are, `openvino_domains` says. How weights are stored, `openvino_weights`.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from . import recurrent_layers
from .convolution import cropped, ends, phase_weight, transposed_padding
from .graph import Layer
from .joint_grids import JointGridLowering
from .lowering import Quant
from .openvino_domains import carried
from .openvino_weights import PackedWeights, float_weight, integer_weight, rounded_again
from .weights import shifted_bias

if TYPE_CHECKING:
    import onnx_ir as ir

    from .candidate import LayerChoice


class OpenVinoLowering(JointGridLowering):
    """One candidate being written for OpenVINO."""

    def carried(self, node: ir.Node) -> list[str]:
        """Return the names of what a node that reads integers reads of them."""
        return carried(node)

    def write(self, node: ir.Node) -> None:
        """Write what a captured node becomes."""
        layer = self.graph.layer_of_node.get(node.name or "")
        if layer is not None:
            self._layer(node, self.graph.layers[layer])
        elif node.name in self.integer:
            self._carry(node)
        else:
            self.copy(node)

    # --- tensors ---

    def float_value(self, tensor: str) -> ir.Value:
        """Return a tensor in float: the rounded values where there are some, for which no kernel has to write any others."""
        return self.dequantised(tensor) if tensor in self._shared else self._float[tensor]

    @property
    def whole(self) -> frozenset[str]:
        """The quantised tensors whose integers all their readers get."""
        return self._shared & self.grids.keys()

    @cached_property
    def _shared(self) -> frozenset[str]:
        """What is read in integers, by all: not what the model reads, or layers and sums write as its output, in float anyway."""
        nodes = (node for node in self.graph.model.graph if node.name in self.integer)
        found = {name for node in nodes for name in carried(node)}
        return frozenset(found - self._output_names - {value.name for value in self.graph.model.graph.inputs})

    def _carry(self, node: ir.Node) -> None:
        """Write a node that moves integers: what it gives lies on the grid of what it takes."""
        data = {name: self.dequantised(name) for name in carried(node)}
        inputs = [
            None if value is None else data.get(value.name or "") or self.any_value(value) for value in node.inputs
        ]
        results = self.emitter.ops(node.op_type, inputs, len(node.outputs), attributes=node.attributes)
        quant = self.quantised(next(iter(data)))
        for value, result in zip(node.outputs, results, strict=True):
            name = value.name or ""
            self._float[name] = self._dequantised[name] = result
            self._quantised[name] = Quant(result, quant.scale, quant.zero)

    # --- layers ---

    def _layer(self, node: ir.Node, layer: Layer) -> None:
        choice = self.candidate.choice(layer.name)
        if layer.recurrent:
            found = self.rounded(layer.name) if choice.rounded else None
            recurrent_layers.emit(self, node, layer, self._weight(layer), found)
            return
        source, target = ends(node)
        x = self.dequantised(source) if choice.integer else self.float_value(source)
        bias = shifted_bias(node, layer, self.rounded(layer.name) if choice.rounded else None)
        if choice.integer and layer.op == "ConvTranspose":
            value = self._transposed(layer, x, bias)
        else:
            stored = [] if bias is None else [self.emitter.constant(bias, shared=False)]
            value = self.emitter.op(node.op_type, x, self._weight(layer), *stored, attributes=node.attributes)
            self._told(choice, value)
        self.set_float(target, value)

    def _told(self, choice: LayerChoice, written: ir.Value) -> None:
        """Keep what a kernel that has to run in integers writes: OpenVINO names it after that."""
        if choice.integer:
            self.integer_tensors.append((self.emitter.owner, written))

    def _weight(self, layer: Layer) -> ir.Value:
        """Return a layer's weight as its kernel reads it; once for all its nodes."""
        if layer.name not in self.weights:
            choice = self.candidate.choice(layer.name)
            made = integer_weight if choice.integer else float_weight
            self.weights[layer.name] = made(self, self._packed, layer, choice)
        return self.weights[layer.name]

    @cached_property
    def _packed(self) -> PackedWeights:
        return PackedWeights(self)

    def _transposed(self, layer: Layer, x: ir.Value, bias: np.ndarray | None) -> ir.Value:
        """Write a ConvTranspose as the convolution it equals (`matrix.transposed_to_conv`), a pixel shuffle and a crop.

        OpenVINO runs its own kernel in integers only where the zero point is 0.
        """
        emitter = self.emitter
        phases, (begin, end, crop) = math.prod(layer.strides), transposed_padding(layer)
        taps = [math.ceil(k / s) for k, s in zip(layer.kernel, layer.strides, strict=True)]
        if layer.name not in self.weights:
            codes = self._packed.codes(layer, self.candidate.choice(layer.name))
            scale = np.tile(self.rounded(layer.name).scale, phases)
            moved = phase_weight(self, layer, codes, taps, np.float32(0))
            self.weights[layer.name] = rounded_again(self, moved, scale.reshape(-1, 1, 1, 1), scale, 0)
        stored = [] if bias is None else [emitter.constant(np.tile(bias, phases), shared=False)]
        attributes = {"pads": [*begin, *end], "kernel_shape": taps}
        value = emitter.op("Conv", x, self.weights[layer.name], *stored, attributes=attributes)
        self._told(self.candidate.choice(layer.name), value)
        if phases > 1:
            value = emitter.op("DepthToSpace", value, blocksize=layer.strides[0], mode="DCR")
        return cropped(emitter, value, crop)
