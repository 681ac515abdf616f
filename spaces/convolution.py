"""Convolutions in the form that the kernels like: padded widths, ConvTranspose as Conv and pixel shuffle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from . import nhwc
from .candidate import LayerChoice
from .graph import Layer
from .scatter import integer_scattered, scatters
from .weights import integer_bias, integer_weight, safe_scale, shifted_bias

if TYPE_CHECKING:
    import onnx_ir as ir

    from .emit import Emitter
    from .lowering import Lowering

INPUTS = 4  # the integer kernel wants input channels in steps of this,
OUTPUTS = 4  # output channels in steps of this,
LEAST_OUTPUTS = 16  # and no fewer of them; one that lacks some pays 40 to 70 % more
FLOAT_OUTPUTS = 32  # the float kernel wants output channels in steps of this to outrun its transposed twin
SMALL_INPUT = 16  # channels: below it a 1x1 kernel gains from padding as well
NOTHING = np.int8(0)  # a code
LEAST_WORK = 4096  # taps times positions: below it a node more costs more than it saves


def integer_conv(lowering: Lowering, node: ir.Node, layer: Layer, choice: LayerChoice) -> None:
    """Write a convolution between Q and DQ nodes."""
    source, target = ends(node)
    rounded = lowering.rounded(layer.name)
    weight = integer_weight(lowering, layer, choice)
    scale = lowering.emitter.constant(safe_scale(lowering, node, layer, rounded, source))
    bias = shifted_bias(node, layer, rounded)
    _convolution(lowering, (source, target), weight, scale, bias, layer, layer.kernel, dict(node.attributes))


def integer_transposed(lowering: Lowering, node: ir.Node, layer: Layer, choice: LayerChoice) -> None:
    """Write a ConvTranspose as the convolution it equals (`matrix.transposed_to_conv`), a pixel shuffle and a crop."""
    emitter = lowering.emitter
    source, target = ends(node)
    if scatters(lowering, layer, source, target):
        integer_scattered(lowering, node, layer, choice, source, target)
        return
    rounded = lowering.rounded(layer.name)
    taps = [math.ceil(k / s) for k, s in zip(layer.kernel, layer.strides, strict=True)]
    phases = math.prod(layer.strides)
    begin, end, crop = transposed_padding(layer)
    weight = phase_weight(lowering, layer, integer_weight(lowering, layer, choice), taps)
    scale = emitter.constant(safe_scale(lowering, node, layer, rounded, source))
    bias = shifted_bias(node, layer, rounded)
    if phases > 1:
        scale = emitter.op("Tile", scale, emitter.constant(np.array([phases], np.int64)))
        bias = None if bias is None else np.tile(bias, phases)
    attributes = {"pads": [*begin, *end], "kernel_shape": taps}
    value = _convolution(lowering, (source, target), weight, scale, bias, layer, taps, attributes)
    if phases > 1:
        sizes = lowering.sizes(source)
        blocks = [
            None if n is None else n + b + e - t + 1 for n, b, e, t in zip(sizes[2:], begin, end, taps, strict=True)
        ]
        shape = [sizes[0], phases * layer.channels, *blocks]
        value = nhwc.depth_to_space(emitter, value, shape, (layer.strides[0], layer.strides[1]))
    value = cropped(emitter, value, crop)
    lowering.set_quantised(target, replace(lowering.quantised(target), value=value))


def cropped(emitter: Emitter, value: ir.Value, crop: Sequence[tuple[int, int]]) -> ir.Value:
    """Return an image ``[N, C, H, W]`` without what is to go at the two ends of each spatial axis."""
    if not any(any(pair) for pair in crop):
        return value
    starts = emitter.constant(np.array([first for first, _ in crop], np.int64))
    stops = emitter.constant(np.array([-last if last else np.iinfo(np.int64).max for _, last in crop], np.int64))
    return emitter.op("Slice", value, starts, stops, emitter.constant(np.array([2, 3], np.int64)))


def _convolution(
    lowering: Lowering,
    tensors: tuple[str, str],
    weight: ir.Value,
    scale: ir.Value,
    bias: np.ndarray | None,
    layer: Layer,
    taps: Sequence[int],
    attributes: dict[str, Any],
) -> ir.Value:
    """Write an integer Conv and the Q node behind it, at widths that the kernel likes; return the integers.

    Args:
        tensors: the captured tensors that are read and written.
        weight: int8 [O, I, k...].
        scale: of the weights [O].
        bias: float [O], or None.
        layer: that the convolution is written for.
        taps: its kernel size.
        attributes: of the Conv.
    """
    emitter = lowering.emitter
    source, target = tensors
    outputs = layer.channels * (math.prod(layer.strides) if layer.op == "ConvTranspose" else 1)
    lacking_in, lacking_out = _lacking(layer, outputs, taps, math.prod(lowering.graph.shapes[target][2:]))
    if lacking_in or lacking_out:
        weight = _padded(lowering, weight, [lacking_out, lacking_in, *[0] * len(taps)], np.int8(0))
    if lacking_out:
        scale = _padded(lowering, scale, [lacking_out], np.float32(1))
        bias = None if bias is None else np.pad(bias, (0, lacking_out))
    read = lowering.quantised(source)
    if lacking_in:
        whole = [0, lacking_in, *[0] * len(taps)]
        read = replace(read, value=_padded(lowering, read.value, whole, np.uint8(read.zero)))
    x = lowering.dequantise(read) if lacking_in else lowering.dequantised(source)
    inputs = [x, lowering.decoded(weight, scale)]
    integers = integer_bias(lowering, bias, source, scale)
    inputs += [] if integers is None else [integers]
    lowering.quantise(target, emitter.op("Conv", *inputs, attributes=attributes))
    quant = lowering.quantised(target)
    if lacking_out:
        cut = [emitter.constant(np.array([n], np.int64)) for n in (0, outputs, 1)]
        lowering.set_quantised(target, replace(quant, value=emitter.op("Slice", quant.value, *cut)))
    return lowering.quantised(target).value


def _lacking(layer: Layer, outputs: int, taps: Sequence[int], positions: int) -> tuple[int, int]:
    """Return how many input and output channels a convolution lacks to run fast."""
    work = math.prod(taps) * positions
    if layer.group > 1 or work < LEAST_WORK:
        return 0, 0
    inputs = layer.shape[0 if layer.op == "ConvTranspose" else 1]
    lacking_in = -inputs % INPUTS if math.prod(taps) > 1 or inputs < SMALL_INPUT else 0
    return lacking_in, max(LEAST_OUTPUTS - outputs, -outputs % OUTPUTS)


def _padded(lowering: Lowering, value: ir.Value, lacking: list[int], fill: np.generic) -> ir.Value:
    """Append ``lacking`` entries to each axis."""
    pads = lowering.emitter.constant(np.array([0] * len(lacking) + lacking, np.int64))
    return lowering.emitter.op("Pad", value, pads, lowering.emitter.constant(fill))


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


def float_transposed(lowering: Lowering, layer: Layer, weight: ir.Value) -> tuple[ir.Value, dict[str, Any]]:
    """Return weight and attributes of the Conv that a float ConvTranspose equals where `is_faster_as_conv` says so."""
    taps = list(layer.kernel)
    begin, end, _ = transposed_padding(layer)
    return phase_weight(lowering, layer, weight, taps), {"pads": [*begin, *end], "kernel_shape": taps}


def is_faster_as_conv(node: ir.Node, layer: Layer) -> bool:
    """Whether a float ConvTranspose never runs slower as a Conv: stride 1, no larger an output, and many channels in it.

    With larger strides ONNX Runtime's own kernel is as fast as a Conv and the pixel shuffle behind it, or faster.
    """
    plain = layer.op == "ConvTranspose" and layer.group == 1 and len(layer.kernel) == 2
    plain = plain and not {"auto_pad", "output_shape"} & set(node.attributes) and not any(layer.output_padding)
    if not plain or layer.channels % FLOAT_OUTPUTS or any(step != 1 for step in (*layer.strides, *layer.dilations)):
        return False
    begins, ends = layer.pads[:2], layer.pads[2:]
    return all(
        begin + end >= k - 1 and max(begin, end) < k for k, begin, end in zip(layer.kernel, begins, ends, strict=True)
    )


def phase_weight(
    lowering: Lowering, layer: Layer, value: ir.Value, taps: list[int], zero: np.generic = NOTHING
) -> ir.Value:
    """Rearrange a ConvTranspose's weights [I, O, k, k] to [phases * O, I, t, t], in ops that fold at load.

    Args:
        zero: of the weights' type.
    """
    emitter = lowering.emitter
    high, wide = layer.strides
    lacking = [t * s - k for t, s, k in zip(taps, layer.strides, layer.kernel, strict=True)]
    if any(lacking):
        pads = emitter.constant(np.array([0, 0, 0, 0, 0, 0, *lacking], np.int64))
        value = emitter.op("Pad", value, pads, emitter.constant(zero))
    split = np.array([layer.shape[0], layer.shape[1], taps[0], high, taps[1], wide], np.int64)
    value = emitter.op("Reshape", value, emitter.constant(split))
    back = [emitter.constant(np.array(v, np.int64)) for v in ([-1, -1], [np.iinfo(np.int64).min] * 2, [2, 4], [-1, -1])]
    value = emitter.op("Slice", value, *back)
    value = emitter.op("Transpose", value, perm=[3, 5, 1, 0, 2, 4])
    shape = np.array([high * wide * layer.channels, layer.shape[0], *taps], np.int64)
    return emitter.op("Reshape", value, emitter.constant(shape))


def ends(node: ir.Node) -> tuple[str, str]:
    """Return the names of the captured tensors that a layer's node reads and writes."""
    assert node.inputs[0] is not None
    return node.inputs[0].name or "", node.outputs[0].name or ""
