"""Layers in the form "dynamic": the runtime finds the grid of their inputs at each inference, no calibration data does.

ONNX Runtime fuses what is written here for a product into its DynamicQuantizeMatMul, and has a DynamicQuantizeLSTM, which
puts the inputs of a whole sequence and the states of each step on grids of their own. They read and write float.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import recurrent_layers
from .convolution import ends
from .emit import FLOAT
from .recurrent import AXIS, X
from .weights import integer_weight, shifted_bias

if TYPE_CHECKING:
    import onnx_ir as ir

    from .candidate import LayerChoice
    from .graph import Layer
    from .lowering import Lowering

CONTRIB = "com.microsoft"
LACKING = ("layout",)  # attributes of an LSTM that DynamicQuantizeLSTM has not; a layer has 0 there


def emit(lowering: Lowering, node: ir.Node, layer: Layer, choice: LayerChoice) -> None:
    """Write one node of a Gemm, a MatMul or an LSTM."""
    if layer.recurrent:
        _lstm(lowering, node, layer, choice)
    else:
        _product(lowering, node, layer, choice)


def _product(lowering: Lowering, node: ir.Node, layer: Layer, choice: LayerChoice) -> None:
    emitter, rounded = lowering.emitter, lowering.rounded(layer.name)
    source, target = ends(node)
    codes = integer_weight(lowering, layer, choice)
    if layer.transposed:
        codes = emitter.op("Transpose", codes, perm=[1, 0])
    lowering.integer_tensors.append((emitter.owner, codes))
    integers, scale, zero = emitter.ops("DynamicQuantizeLinear", [lowering.float_value(source)], 3)
    sums = emitter.op("Cast", emitter.op("MatMulInteger", integers, codes, zero), to=FLOAT)
    value = emitter.op("Mul", sums, emitter.op("Mul", scale, emitter.constant(rounded.scale)))
    bias = shifted_bias(node, layer, rounded)
    if bias is not None:
        value = emitter.op("Add", value, emitter.constant(bias, shared=False))
    lowering.set_float(target, value)


def _lstm(lowering: Lowering, node: ir.Node, layer: Layer, choice: LayerChoice) -> None:
    emitter, rounded = lowering.emitter, lowering.rounded(layer.name)
    w, r = recurrent_layers.parts(lowering, layer, integer_weight(lowering, layer, choice), turned=True)
    lowering.integer_tensors.append((emitter.owner, w))
    scale = emitter.constant(rounded.scale.reshape(layer.shape[:AXIS]))
    zero = emitter.constant(np.zeros(layer.shape[:AXIS], np.int8))
    others = recurrent_layers.other_inputs(lowering, node, layer, rounded)
    inputs = [lowering.float_value(node.inputs[X].name or ""), w, r, *others, scale, zero, scale, zero]  # type: ignore[union-attr]
    attributes = {name: value for name, value in node.attributes.items() if name not in LACKING}
    results = emitter.ops("DynamicQuantizeLSTM", inputs, len(node.outputs), domain=CONTRIB, attributes=attributes)
    recurrent_layers.set_outputs(lowering, node, results)
