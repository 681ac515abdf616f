"""How a layer is written: weights decoded from few bits, float or integer kernels, ConvTranspose as Conv."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from . import nhwc
from .candidate import LayerChoice
from .errors import BuildError
from .graph import Layer, node_bias
from .packing import pack
from .repair import RoundedLayer
from .rounding import Grid

if TYPE_CHECKING:
    import onnx_ir as ir

    from .lowering import Lowering


def emit(lowering: Lowering, node: ir.Node, layer: Layer) -> None:
    """Write one node of a layer as the candidate chooses."""
    choice = lowering.candidate.choice(layer.name)
    lowering.integer_kernels += choice.integer
    if not choice.integer:
        _float(lowering, node, layer, choice)
    elif layer.op == "ConvTranspose":
        _integer_transposed(lowering, node, layer, choice)
    elif layer.op == "Conv":
        _integer_conv(lowering, node, layer, choice)
    else:
        _integer_product(lowering, node, layer, choice)


def _float(lowering: Lowering, node: ir.Node, layer: Layer, choice: LayerChoice) -> None:
    source, target = _ends(node)
    x = lowering.float_value(source)
    weight = _float_weight(lowering, layer, choice)
    bias = shifted_bias(node, layer, lowering.rounded(layer.name) if choice.weight_bits <= 8 else None)
    inputs = [x, weight] + ([] if bias is None else [lowering.emitter.constant(bias, shared=False)])
    result = lowering.emitter.op(node.op_type, *inputs, attributes=node.attributes)
    between = lowering.reads_integer(source) and lowering.feeds_integer(target)
    if between and layer.op != "MatMul":
        # ONNX Runtime would quantise a float layer between DQ and Q by itself, per tensor and slowly; an identity prevents it.
        result = lowering.emitter.op("LeakyRelu", result, alpha=1.0)
    lowering.set_float(target, result)


def _integer_conv(lowering: Lowering, node: ir.Node, layer: Layer, choice: LayerChoice) -> None:
    source, target = _ends(node)
    rounded = lowering.rounded(layer.name)
    x = lowering.dequantised(source)
    weight = _integer_weight(lowering, layer, choice)
    scale = lowering.emitter.constant(_safe_scale(lowering, node, layer, rounded, source))
    decoded = lowering.emitter.op("DequantizeLinear", weight, scale, axis=0)
    bias = _integer_bias(lowering, node, layer, rounded, source, scale)
    inputs = [x, decoded] + ([] if bias is None else [bias])
    lowering.quantise(target, lowering.emitter.op("Conv", *inputs, attributes=node.attributes))


def _integer_product(lowering: Lowering, node: ir.Node, layer: Layer, choice: LayerChoice) -> None:
    """MatMul and Gemm: the kernel writes float, or integers where a Q node follows."""
    source, target = _ends(node)
    rounded = lowering.rounded(layer.name)
    x = lowering.dequantised(source)
    scale = lowering.emitter.constant(_safe_scale(lowering, node, layer, rounded, source))
    weight = _integer_weight(lowering, layer, choice)
    # ONNX Runtime makes a float Gemm of a MatMul of two axes and the Add behind it: such a one is written as Gemm at once.
    # Only with an explicit zero point of the weights does a Gemm become its QGemm.
    op = "Gemm" if layer.op == "Gemm" or len(lowering.graph.shapes[source]) == 2 else "MatMul"
    zero = [lowering.emitter.constant(np.zeros(layer.channels, np.int8))] if op == "Gemm" else []
    decoded = lowering.emitter.op("DequantizeLinear", weight, scale, *zero, axis=layer.channel_axis)
    bias = _integer_bias(lowering, node, layer, rounded, source, scale)
    inputs = [x, decoded] + ([] if bias is None else [bias])
    lowering.set_float(target, lowering.emitter.op(op, *inputs, attributes=node.attributes))
    if op == "MatMul":
        lowering.integer_products.add(target)


def _integer_transposed(lowering: Lowering, node: ir.Node, layer: Layer, choice: LayerChoice) -> None:
    """ConvTranspose as the convolution it equals (`matrix.transposed_to_conv`), a pixel shuffle and a crop."""
    emitter = lowering.emitter
    source, target = _ends(node)
    rounded = lowering.rounded(layer.name)
    taps = [math.ceil(k / s) for k, s in zip(layer.kernel, layer.strides, strict=True)]
    phases = math.prod(layer.strides)
    begin, end, crop = transposed_padding(layer)
    weight = _phase_weight(lowering, layer, choice, taps)
    scale = emitter.constant(_safe_scale(lowering, node, layer, rounded, source))
    bias_values = shifted_bias(node, layer, rounded)
    if phases > 1:
        times = emitter.constant(np.array([phases], np.int64))
        scale = emitter.op("Tile", scale, times)
    decoded = emitter.op("DequantizeLinear", weight, scale, axis=0)
    inputs = [lowering.dequantised(source), decoded]
    if bias_values is not None:
        input_scale = emitter.constant(np.float32(lowering.quantised(source).scale))
        inputs.append(emitter.integer_bias(np.tile(bias_values, phases), input_scale, scale))
    result = emitter.op("Conv", *inputs, attributes={"pads": [*begin, *end], "kernel_shape": taps})
    lowering.quantise(target, result)
    quant = lowering.quantised(target)
    value = quant.value
    if phases > 1:
        sizes = lowering.sizes(source)
        blocks = [
            None if n is None else n + b + e - t + 1 for n, b, e, t in zip(sizes[2:], begin, end, taps, strict=True)
        ]
        shape = [sizes[0], phases * layer.channels, *blocks]
        value = nhwc.depth_to_space(emitter, value, shape, (layer.strides[0], layer.strides[1]))
    if any(any(pair) for pair in crop):
        starts = emitter.constant(np.array([first for first, _ in crop], np.int64))
        stops = emitter.constant(np.array([-last if last else np.iinfo(np.int64).max for _, last in crop], np.int64))
        value = emitter.op("Slice", value, starts, stops, emitter.constant(np.array([2, 3], np.int64)))
    lowering.set_quantised(target, replace(quant, value=value))


def transposed_padding(layer: Layer) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    """Return, for each spatial axis, the pads (begin, end) of the equal convolution and what to crop after the shuffle."""
    spatial = len(layer.kernel)
    begins, ends, crops = [], [], []
    for axis, (k, s) in enumerate(zip(layer.kernel, layer.strides, strict=True)):
        taps = math.ceil(k / s)
        first, last = layer.pads[axis], layer.pads[spatial + axis]
        extra = layer.output_padding[axis]
        begin = max(taps - 1 - first // s, 0)
        end = max((k + extra - last - 1) // s, 0)
        begins.append(begin)
        ends.append(end)
        crops.append((first - s * (taps - 1 - begin), s * end + s - k - extra + last))
    return begins, ends, crops


def _phase_weight(lowering: Lowering, layer: Layer, choice: LayerChoice, taps: list[int]) -> ir.Value:
    """Rearrange a ConvTranspose's int8 weights [I, O, k, k] to [phases * O, I, t, t], in ops that fold at load."""
    emitter = lowering.emitter
    value = _integer_weight(lowering, layer, choice)
    high, wide = layer.strides
    lacking = [t * s - k for t, s, k in zip(taps, layer.strides, layer.kernel, strict=True)]
    if any(lacking):
        pads = emitter.constant(np.array([0, 0, 0, 0, 0, 0, *lacking], np.int64))
        value = emitter.op("Pad", value, pads, emitter.constant(np.int8(0)))
    split = np.array([layer.shape[0], layer.shape[1], taps[0], high, taps[1], wide], np.int64)
    value = emitter.op("Reshape", value, emitter.constant(split))
    back = [emitter.constant(np.array(v, np.int64)) for v in ([-1, -1], [np.iinfo(np.int64).min] * 2, [2, 4], [-1, -1])]
    value = emitter.op("Slice", value, *back)
    value = emitter.op("Transpose", value, perm=[3, 5, 1, 0, 2, 4])
    shape = np.array([high * wide * layer.channels, layer.shape[0], *taps], np.int64)
    return emitter.op("Reshape", value, emitter.constant(shape))


# --- weights and biases ---------------------------------------------------------------------------------------------


def _float_weight(lowering: Lowering, layer: Layer, choice: LayerChoice) -> ir.Value:
    if layer.name in lowering._weights:
        return lowering._weights[layer.name]
    emitter = lowering.emitter
    if choice.weight_bits == 32:
        value = emitter.constant(lowering.graph.weight(layer), shared=False)
    elif choice.weight_bits == 16:
        with np.errstate(over="ignore"):
            half = lowering.graph.weight(layer).astype(np.float16)
        if not np.isfinite(half).all():
            raise BuildError(f"layer {layer.name!r} has weights beyond float16: weight_bits 16 cannot store it")
        value = emitter.op("Cast", emitter.constant(half, shared=False), to=1)
    else:
        rounded = lowering.rounded(layer.name)
        codes = emitter.op("Cast", _stored_codes(lowering, layer, choice, rounded), to=1)
        value = emitter.op("Mul", codes, emitter.constant(per_channel(layer, rounded.scale)))
    lowering._weights[layer.name] = value
    return value


def _integer_weight(lowering: Lowering, layer: Layer, choice: LayerChoice) -> ir.Value:
    if layer.name not in lowering._weights:
        lowering._weights[layer.name] = _stored_codes(lowering, layer, choice, lowering.rounded(layer.name))
    return lowering._weights[layer.name]


def _stored_codes(lowering: Lowering, layer: Layer, choice: LayerChoice, rounded: RoundedLayer) -> ir.Value:
    """Return the int8 codes of a layer: stored as they are at 8 bits, packed below."""
    bits = choice.weight_bits
    if bits == 8:
        return lowering.emitter.constant(rounded.codes, shared=False)
    zero = per_channel(layer, rounded.zero)
    steps = (rounded.codes.astype(np.int16) + zero) // Grid(bits).step
    if np.all(zero == zero.flat[0]):
        zero = zero.flat[0]
    return lowering.emitter.unpack(bits, pack(steps, bits), layer.shape, np.asarray(zero, np.uint8))


def per_channel(layer: Layer, values: np.ndarray) -> np.ndarray:
    """Return values of the output channels [O] in a shape that broadcasts over the stored weight."""
    if layer.op == "ConvTranspose" and layer.group > 1:  # stored as [I, O/G, k...]: the channel depends on both axes
        by_group = np.repeat(values.reshape(layer.group, -1), layer.shape[0] // layer.group, axis=0)
        return by_group.reshape(*by_group.shape, *[1] * len(layer.kernel))
    shape = [1] * len(layer.shape)
    shape[layer.channel_axis] = -1
    return values.reshape(shape)


def shifted_bias(node: ir.Node, layer: Layer, rounded: RoundedLayer | None) -> np.ndarray | None:
    """Return a node's bias [O] with the rounding's shift, or None where there is neither."""
    bias = node_bias(node, layer)
    if rounded is None or not rounded.shift.any():
        return bias
    return rounded.shift if bias is None else bias + rounded.shift


def _integer_bias(
    lowering: Lowering, node: ir.Node, layer: Layer, rounded: RoundedLayer, source: str, scale: ir.Value
) -> ir.Value | None:
    bias = shifted_bias(node, layer, rounded)
    if bias is None:
        return None
    input_scale = lowering.emitter.constant(np.float32(lowering.quantised(source).scale))
    return lowering.emitter.integer_bias(bias, input_scale, scale)


def _safe_scale(lowering: Lowering, node: ir.Node, layer: Layer, rounded: RoundedLayer, source: str) -> np.ndarray:
    """Return the weight scales, raised where the int32 bias would overflow (only where the weights are next to nothing)."""
    bias = shifted_bias(node, layer, rounded)
    if bias is None:
        return rounded.scale
    least = np.abs(bias) / (lowering.quantised(source).scale * 2.0**30)
    return np.maximum(rounded.scale, least).astype(np.float32)


def _ends(node: ir.Node) -> tuple[str, str]:
    assert node.inputs[0] is not None
    return node.inputs[0].name or "", node.outputs[0].name or ""
