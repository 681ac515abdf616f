"""Weights in an ONNX file for OpenVINO, which reads no local functions: nodes of the graph itself unpack them.

All layers of one width share the planes and the nodes that unpack those. OpenVINO folds them when it opens the file: arithmetic
in float, where it would run bitwise ops at every inference. It takes weights for an integer kernel
where they are stored as int8, or are rounded by a QuantizeLinear of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .candidate import LayerChoice
from .emit import FLOAT
from .graph import Layer
from .packing import pack, packed_bytes, planes
from .rounding import Grid
from .weights import grid_steps, per_channel, shared_zero, stored_floats

if TYPE_CHECKING:
    import onnx_ir as ir

    from .lowering import Lowering

PACKED_BELOW = 8  # bits


class PackedWeights:
    """The layers of a candidate below 8 bits.

    Args:
        lowering: of the candidate.
    """

    def __init__(self, lowering: Lowering) -> None:
        self._lowering = lowering
        self._steps: dict[str, ir.Value] = {}
        by_bits: dict[int, list[Layer]] = {}
        for layer in lowering.graph.layers.values():
            bits = lowering.candidate.choice(layer.name).weight_bits
            if bits < PACKED_BELOW:
                by_bits.setdefault(bits, []).append(layer)
        for bits, layers in sorted(by_bits.items()):
            self._steps |= self._unpacked(bits, layers)

    def codes(self, layer: Layer, choice: LayerChoice) -> ir.Value:
        """Return the codes of a rounded layer in its stored layout, float32."""
        emitter, rounded = self._lowering.emitter, self._lowering.rounded(layer.name)
        if layer.name not in self._steps:
            # rounded down, which changes nothing: integers that are only scaled OpenVINO would keep, and scale at every inference
            return emitter.op("Floor", emitter.op("Cast", emitter.constant(rounded.codes, shared=False), to=FLOAT))
        shape = emitter.constant(np.array(layer.shape, np.int64))
        steps = emitter.op("Reshape", self._steps[layer.name], shape)
        return emitter.op("Sub", steps, emitter.constant(shared_zero(layer, rounded).astype(np.float32)))

    def _unpacked(self, bits: int, layers: Sequence[Layer]) -> Mapping[str, ir.Value]:
        """Return ``step * u`` of layers' codes by name, float32 and flat."""
        emitter = self._lowering.emitter
        emitter.owner, asked_by = "", emitter.owner  # no layer's alone
        steps = []
        for layer in layers:
            self._lowering.shared_bytes[layer.name] = packed_bytes(math.prod(layer.shape), bits)
            steps.append(grid_steps(layer, self._lowering.rounded(layer.name), bits)[0].reshape(-1))
        joined, low = None, bits
        for plane, width in zip(pack(np.concatenate(steps), bits), planes(bits), strict=True):
            low -= width
            part = emitter.op("Mul", self._plane(plane, width), emitter.constant(np.float32(Grid(bits).step << low)))
            joined = part if joined is None else emitter.op("Add", joined, part)
        assert joined is not None
        emitter.owner = asked_by
        sizes = [len(part) for part in steps]
        sizes += [filled] if (filled := -sum(sizes) % 8) else []
        if len(sizes) == 1:
            return {layers[0].name: joined}
        parts = emitter.ops("Split", [joined, emitter.constant(np.array(sizes, np.int64))], len(sizes))
        return {layer.name: part for layer, part in zip(layers, parts, strict=False)}

    def _plane(self, packed: np.ndarray, width: int) -> ir.Value:
        """Return what a bit plane holds, float32 and flat.

        x >> s is floor(x / 2**s), and y & (2**w - 1) is y - 2**w * (y >> w).
        """
        emitter = self._lowering.emitter
        row = emitter.op("Cast", emitter.constant(packed[None], shared=False), to=FLOAT)
        shifts = np.arange(8 // width)[:, None] * width
        shifted, beyond = (
            emitter.op("Floor", emitter.op("Mul", row, emitter.constant(np.exp2(-by).astype(np.float32))))
            for by in (shifts, shifts + width)
        )
        above = emitter.op("Mul", beyond, emitter.constant(np.float32(1 << width)))
        return emitter.op("Reshape", emitter.op("Sub", shifted, above), emitter.constant(np.array([-1], np.int64)))


def float_weight(lowering: Lowering, packed: PackedWeights, layer: Layer, choice: LayerChoice) -> ir.Value:
    """Return a layer's weight for a float kernel.

    Raises:
        BuildError: float16 cannot store it.
    """
    emitter = lowering.emitter
    if choice.rounded:
        scale = emitter.constant(per_channel(layer, lowering.rounded(layer.name).scale))
        return emitter.op("Mul", packed.codes(layer, choice), scale)
    weight = emitter.constant(stored_floats(lowering.graph, layer, choice), shared=False)
    return weight if choice.weight_bits == 32 else emitter.op("Cast", weight, to=FLOAT)


def integer_weight(lowering: Lowering, packed: PackedWeights, layer: Layer, choice: LayerChoice) -> ir.Value:
    """Return a layer's weight for an integer kernel, in its stored layout."""
    rounded = lowering.rounded(layer.name)
    if choice.weight_bits < PACKED_BELOW:
        factors = per_channel(layer, rounded.scale)
        return rounded_again(lowering, packed.codes(layer, choice), factors, rounded.scale, layer.channel_axis)
    codes = lowering.emitter.constant(rounded.codes, shared=False)
    scale = lowering.emitter.constant(rounded.scale)
    return lowering.emitter.op("DequantizeLinear", codes, scale, axis=layer.channel_axis)


def rounded_again(lowering: Lowering, codes: ir.Value, factors: np.ndarray, scale: np.ndarray, axis: int) -> ir.Value:
    """Return the weights of codes that are computed: rounded once more, which changes nothing, they run in integers.

    Args:
        codes: float32.
        factors: the scales in a shape that broadcasts over the codes.
        scale: the same, flat.
        axis: of the output channels.
    """
    emitter = lowering.emitter
    steps, zero = emitter.constant(scale), emitter.constant(np.zeros(scale.shape, np.int8))
    weight = emitter.op("Mul", codes, emitter.constant(factors))
    integers = emitter.op("QuantizeLinear", weight, steps, zero, axis=axis)
    return emitter.op("DequantizeLinear", integers, steps, zero, axis=axis)
