"""Weights and biases as a candidate stores them, and the ops that decode them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .candidate import LayerChoice
from .errors import BuildError
from .graph import Layer, node_bias
from .packing import pack
from .repair import RoundedLayer
from .rounding import Grid

if TYPE_CHECKING:
    import onnx_ir as ir

    from .lowering import Lowering


def float_weight(lowering: Lowering, layer: Layer, choice: LayerChoice) -> ir.Value:
    """Return a layer's weight for a float kernel, decoded from what is stored; once for all its nodes.

    Raises:
        BuildError: float16 cannot store it.
    """
    if layer.name in lowering.weights:
        return lowering.weights[layer.name]
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
    lowering.weights[layer.name] = value
    return value


def integer_weight(lowering: Lowering, layer: Layer, choice: LayerChoice) -> ir.Value:
    """Return a layer's int8 codes in its stored layout; once for all its nodes."""
    if layer.name not in lowering.weights:
        lowering.weights[layer.name] = _stored_codes(lowering, layer, choice, lowering.rounded(layer.name))
    return lowering.weights[layer.name]


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


def integer_bias(lowering: Lowering, bias: np.ndarray | None, source: str, scale: ir.Value) -> ir.Value | None:
    """Return a float bias [O] as the int32 one of an integer kernel that reads ``source``, or None where there is none."""
    if bias is None:
        return None
    input_scale = lowering.emitter.constant(np.float32(lowering.quantised(source).scale))
    return lowering.emitter.integer_bias(bias, input_scale, scale)


def safe_scale(lowering: Lowering, node: ir.Node, layer: Layer, rounded: RoundedLayer, source: str) -> np.ndarray:
    """Return the weight scales, raised where the int32 bias would overflow (only where the weights are next to nothing)."""
    bias = shifted_bias(node, layer, rounded)
    if bias is None:
        return rounded.scale
    least = np.abs(bias) / (lowering.quantised(source).scale * 2.0**30)
    return np.maximum(rounded.scale, least).astype(np.float32)
