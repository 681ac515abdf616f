"""A transposed convolution of stride 1 on a small image, in integers: one matrix product, and the sum of what overlaps.

As a convolution it would be padded by nearly its whole kernel, and most taps would meet padding.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .candidate import LayerChoice
from .graph import Layer
from .weights import integer_weight, shifted_bias

if TYPE_CHECKING:
    import onnx_ir as ir

    from .emit import Emitter
    from .lowering import Lowering

# multiply-adds with padding that have to be saved before the sums cost less; of a single pixel nothing overlaps
LEAST_SAVED, LEAST_SAVED_OF_A_PIXEL = 50_000_000, 10_000_000
LEAST_SAVED_OF_A_SUMMAND = 700


def scatters(lowering: Lowering, layer: Layer, source: str, target: str) -> bool:
    """Whether a ConvTranspose of one group is faster so: stride 1, an image of one size, an output far larger than it."""
    if any(step != 1 for step in layer.strides) or any(layer.output_padding) or None in lowering.sizes(source)[2:]:
        return False
    batch, _, *image = lowering.graph.shapes[source]
    read, written = math.prod(image), math.prod(lowering.graph.shapes[target][2:])
    saved = batch * (written - read) * math.prod(layer.shape)
    summands = batch * read * math.prod(layer.shape[1:])
    least = LEAST_SAVED_OF_A_PIXEL if read == 1 else LEAST_SAVED
    return saved >= max(least, LEAST_SAVED_OF_A_SUMMAND * summands)


def integer_scattered(
    lowering: Lowering, node: ir.Node, layer: Layer, choice: LayerChoice, source: str, target: str
) -> None:
    """Write a ConvTranspose as a product of pixels [H * W, I] and taps [I, k * k * O], summed where taps overlap."""
    emitter = lowering.emitter
    rounded, read = lowering.rounded(layer.name), lowering.quantised(source)
    (high, wide), (rows, columns) = layer.kernel, lowering.graph.shapes[source][2:]
    inputs, outputs = layer.shape[:2]
    last = emitter.op("Transpose", read.value, perm=[0, 2, 3, 1])
    pixels = lowering.dequantise(replace(read, value=_reshaped(emitter, last, 0, rows * columns, inputs)))
    taps = emitter.op("Transpose", integer_weight(lowering, layer, choice), perm=[0, 2, 3, 1])
    scale = emitter.constant(np.tile(rounded.scale, high * wide))
    weight = lowering.decoded(_reshaped(emitter, taps, inputs, high * wide * outputs), scale, axis=1)
    value = _reshaped(emitter, emitter.op("MatMul", pixels, weight), 0, rows, columns, high, wide * outputs)
    value = emitter.op("Transpose", value, perm=[0, 1, 3, 2, 4])
    value = _overlapped(emitter, value, rows, high, columns * wide * outputs)
    value = _overlapped(emitter, value, columns, wide, outputs)
    value = _reshaped(emitter, value, -1, rows + high - 1, columns + wide - 1, outputs)
    value = _cropped(emitter, value, layer)
    bias = shifted_bias(node, layer, rounded)
    if bias is not None:
        value = emitter.op("Add", value, emitter.constant(bias, shared=False))
    lowering.quantise(target, emitter.op("Transpose", value, perm=[0, 3, 1, 2]))


def _overlapped(emitter: Emitter, value: ir.Value, places: int, taps: int, rest: int) -> ir.Value:
    """Sum what is [N, places, taps, rest] to [N, places + taps - 1, rest]: tap t of place p belongs to position p + t.

    Each place is padded so that, read in rows that are one shorter, it starts one further than the place before it.
    """
    length = places + taps - 1
    value = _reshaped(emitter, value, -1, places, taps, rest)
    if places > 1:
        pads = np.array([0, 0, 0, 0, 0, 0, places, 0], np.int64)
        padded = emitter.op("Pad", value, emitter.constant(pads))
        value = _reshaped(emitter, padded, -1, places * (taps + places), rest)
        value = emitter.op(
            "Slice", value, *(emitter.constant(np.array([n], np.int64)) for n in (0, places * length, 1))
        )
        value = _reshaped(emitter, value, -1, places, length, rest)
    return emitter.op("ReduceSum", value, emitter.constant(np.array([1], np.int64)), keepdims=0)


def _cropped(emitter: Emitter, value: ir.Value, layer: Layer) -> ir.Value:
    """Remove the pads from [N, H, W, O]."""
    if not any(layer.pads):
        return value
    ends = [-pad if pad else np.iinfo(np.int64).max for pad in layer.pads[2:]]
    bounds = [np.array(values, np.int64) for values in (layer.pads[:2], ends, [1, 2])]
    return emitter.op("Slice", value, *(emitter.constant(bound) for bound in bounds))


def _reshaped(emitter: Emitter, value: ir.Value, *sizes: int) -> ir.Value:
    return emitter.op("Reshape", value, emitter.constant(np.array(sizes, np.int64)))
