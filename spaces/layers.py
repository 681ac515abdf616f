"""How a layer is written: in float or integer kernels, with weights decoded from few bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import dynamic, recurrent_layers
from .candidate import DYNAMIC, LayerChoice
from .convolution import ends, float_transposed, integer_conv, integer_transposed, is_faster_as_conv
from .graph import Layer
from .weights import float_weight, integer_bias, integer_weight, safe_scale, shifted_bias

if TYPE_CHECKING:
    import onnx_ir as ir

    from .lowering import Lowering


def emit(lowering: Lowering, node: ir.Node, layer: Layer) -> None:
    """Write one node of a layer as the candidate chooses."""
    choice = lowering.candidate.choice(layer.name)
    if choice.form == DYNAMIC:
        dynamic.emit(lowering, node, layer, choice)
    elif layer.recurrent:
        found = lowering.rounded(layer.name) if choice.rounded else None
        recurrent_layers.emit(lowering, node, layer, float_weight(lowering, layer, choice), found)
    elif not choice.integer:
        _float(lowering, node, layer, choice)
    elif layer.op == "ConvTranspose":
        integer_transposed(lowering, node, layer, choice)
    elif layer.op == "Conv":
        integer_conv(lowering, node, layer, choice)
    else:
        _integer_product(lowering, node, layer, choice)


def _float(lowering: Lowering, node: ir.Node, layer: Layer, choice: LayerChoice) -> None:
    source, target = ends(node)
    x = lowering.float_value(source)
    weight = float_weight(lowering, layer, choice)
    bias = shifted_bias(node, layer, lowering.rounded(layer.name) if choice.weight_bits <= 8 else None)
    op, attributes = node.op_type, dict(node.attributes)
    if lowering.candidate.rewritten and is_faster_as_conv(node, layer):
        op, (weight, attributes) = "Conv", float_transposed(lowering, layer, weight)
    inputs = [x, weight] + ([] if bias is None else [lowering.emitter.constant(bias, shared=False)])
    result = lowering.emitter.op(op, *inputs, attributes=attributes)
    between = lowering.reads_integer(source) and lowering.feeds_integer(target)
    if between and layer.op != "MatMul":
        # ONNX Runtime would quantise a float layer between DQ and Q by itself, per tensor and slowly; an identity prevents it.
        result = lowering.emitter.op("LeakyRelu", result, alpha=1.0)
    lowering.set_float(target, result)


def _integer_product(lowering: Lowering, node: ir.Node, layer: Layer, choice: LayerChoice) -> None:
    """MatMul and Gemm: the kernel writes float, or integers where a Q node follows."""
    source, target = ends(node)
    rounded = lowering.rounded(layer.name)
    x = lowering.dequantised(source)
    scale = lowering.emitter.constant(safe_scale(lowering, node, layer, rounded, source))
    weight = integer_weight(lowering, layer, choice)
    # ONNX Runtime makes a float Gemm of a MatMul of two axes and the Add behind it: such a one is written as Gemm at once.
    # Only with an explicit zero point of the weights does a Gemm become its QGemm.
    op = "Gemm" if layer.op == "Gemm" or len(lowering.graph.shapes[source]) == 2 else "MatMul"
    zero = [lowering.emitter.constant(np.zeros(layer.channels, np.int8))] if op == "Gemm" else []
    decoded = lowering.decoded(weight, scale, *zero, axis=layer.channel_axis)
    bias = integer_bias(lowering, shifted_bias(node, layer, rounded), source, scale)
    inputs = [x, decoded] + ([] if bias is None else [bias])
    lowering.set_float(target, lowering.emitter.op(op, *inputs, attributes=node.attributes))
    if op == "MatMul":
        lowering.integer_products.add(target)
