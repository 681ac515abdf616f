"""Weights and biases as a candidate stores them, and the ops that decode them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .candidate import LayerChoice
from .errors import BuildError
from .graph import Graph, Layer, node_bias
from .packing import is_sparse, pack, pack_sparse
from .repaired import FloatLayer, RoundedLayer
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
    if choice.weight_bits > 8:
        value = _stored_floats(lowering, layer, choice)
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


def stored_floats(graph: Graph, layer: Layer, choice: LayerChoice) -> np.ndarray:
    """Return the weight of a layer with 16 or 32 bits as it is stored.

    Raises:
        BuildError: float16 cannot store it.
    """
    weight = graph.weight(layer)
    if choice.weight_bits == 32:
        return weight
    with np.errstate(over="ignore"):
        weight = weight.astype(np.float16)
    if not np.isfinite(weight).all():
        raise BuildError(f"layer {layer.name!r} has weights beyond float16: weight_bits 16 cannot store it")
    return weight


def _stored_floats(lowering: Lowering, layer: Layer, choice: LayerChoice) -> ir.Value:
    """Return the float32 weight of a layer with 16 or 32 bits: stored as it is, or without its zeros."""
    emitter, bits = lowering.emitter, choice.weight_bits
    weight = stored_floats(lowering.graph, layer, choice)
    if _without_zeros(choice, weight):
        return emitter.unpack_sparse(bits, pack_sparse(weight != 0, weight, bits), layer.shape)
    stored = emitter.constant(weight, shared=False)
    return stored if bits == 32 else emitter.op("Cast", stored, to=1)


def _stored_codes(lowering: Lowering, layer: Layer, choice: LayerChoice, rounded: RoundedLayer) -> ir.Value:
    """Return the int8 codes of a layer: stored as they are at 8 bits, packed below; or without its zeros."""
    emitter, bits, codes = lowering.emitter, choice.weight_bits, rounded.codes
    sparse = _without_zeros(choice, codes)
    if bits == 8:
        if sparse:
            return emitter.unpack_sparse(bits, pack_sparse(codes != 0, codes, bits), layer.shape)
        return emitter.constant(codes, shared=False)
    steps, off_grid = grid_steps(layer, rounded, bits)
    zero = shared_zero(layer, rounded)
    # a grid without 0 was chosen for the whole layer: channels that were removed since may have been those with the zeros
    if sparse or (choice.sparsity and off_grid.any()):
        return emitter.unpack_sparse(bits, pack_sparse(codes != 0, steps, bits), layer.shape, zero)
    return emitter.unpack(bits, pack(steps, bits), layer.shape, zero)


def grid_steps(layer: Layer, rounded: RoundedLayer, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return u of each code ``step * u - zero`` of a layer below 8 bits, and how far codes are off the grid."""
    steps, off_grid = np.divmod(rounded.codes.astype(np.int16) + per_channel(layer, rounded.zero), Grid(bits).step)
    return steps, off_grid


def shared_zero(layer: Layer, rounded: RoundedLayer) -> np.ndarray:
    """Return the grid's offset, uint8: one number where all channels have the same, else to be broadcast over the weight."""
    zero = per_channel(layer, rounded.zero)
    return np.asarray(zero.flat[0] if np.all(zero == zero.flat[0]) else zero, np.uint8)


def _without_zeros(choice: LayerChoice, stored: np.ndarray) -> bool:
    """Whether a weight is smaller as a bitmask and what is not zero."""
    return bool(choice.sparsity) and is_sparse(stored.size, int(np.count_nonzero(stored)), choice.weight_bits)


def per_channel(layer: Layer, values: np.ndarray) -> np.ndarray:
    """Return values of the output channels [O] in a shape that broadcasts over the stored weight."""
    if layer.op == "ConvTranspose" and layer.group > 1:  # stored as [I, O/G, k...]: the channel depends on both axes
        by_group = np.repeat(values.reshape(layer.group, -1), layer.shape[0] // layer.group, axis=0)
        return by_group.reshape(*by_group.shape, *[1] * len(layer.kernel))
    if layer.recurrent:
        return values.reshape(*layer.shape[:2], 1)
    shape = [1] * len(layer.shape)
    shape[layer.channel_axis] = -1
    return values.reshape(shape)


def shifted_bias(node: ir.Node, layer: Layer, rounded: RoundedLayer | FloatLayer | None) -> np.ndarray | None:
    """Return a node's bias [O] with the shift of its repaired weights, or None where there is neither."""
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
