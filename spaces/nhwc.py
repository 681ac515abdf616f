"""Pixel shuffles and nearest upsampling on uint8, written channels-last.

ONNX Runtime runs integer convolutions channels-last and moves the transposes written here next to its own, where they
cancel; what is left are copies of whole channel vectors, several times faster than the ops themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

    from .emit import Emitter

LEAST_CHANNELS = 4  # with fewer, or in the order CRD, copies would be of single values, which the op itself does faster

Sizes = Sequence[int | None]  # [N, C, H, W]; None for a free axis


def depth_to_space(
    emitter: Emitter, value: ir.Value, sizes: Sizes, blocks: tuple[int, int], mode: str = "DCR"
) -> ir.Value:
    """Return DepthToSpace of a [N, C, H, W] tensor; ``blocks`` may differ in height and width where the mode is DCR."""
    high, wide = blocks
    assert sizes[1] is not None
    channels = sizes[1] // (high * wide)
    if high == wide and (mode != "DCR" or channels < LEAST_CHANNELS):
        return emitter.op("DepthToSpace", value, blocksize=high, mode=mode)
    last = emitter.op("Transpose", value, perm=[0, 2, 3, 1])
    split = emitter.op("Reshape", last, _shape(emitter, [0, 0, 0, high, wide * channels]))
    moved = emitter.op("Transpose", split, perm=[0, 1, 3, 2, 4])
    whole = emitter.op("Reshape", moved, _enlarged(emitter, last, sizes, blocks, channels))
    return emitter.op("Transpose", whole, perm=[0, 3, 1, 2])


def repeat(emitter: Emitter, value: ir.Value, sizes: Sizes, factors: tuple[int, int]) -> ir.Value:
    """Return nearest upsampling by whole ``factors`` of a [N, C, H, W] tensor."""
    high, wide = factors
    channels = sizes[1]
    assert channels is not None
    last = emitter.op("Transpose", value, perm=[0, 2, 3, 1])
    across = emitter.op("Concat", *[last] * wide, axis=3) if wide > 1 else last
    across = emitter.op("Reshape", across, _shape(emitter, [0, 0, -1, channels])) if wide > 1 else across
    down = emitter.op("Concat", *[across] * high, axis=2) if high > 1 else across
    whole = emitter.op("Reshape", down, _enlarged(emitter, last, sizes, factors, channels))
    return emitter.op("Transpose", whole, perm=[0, 3, 1, 2])


def _enlarged(emitter: Emitter, last: ir.Value, sizes: Sizes, factors: tuple[int, int], channels: int) -> ir.Value:
    """Return the shape [N, H * factor, W * factor, channels]; computed at run time where an axis is free."""
    batch, _, height, width = sizes
    if batch is not None and height is not None and width is not None:
        return _shape(emitter, [batch, height * factors[0], width * factors[1], channels])
    front = emitter.op("Shape", last, end=3)
    larger = emitter.op("Mul", front, _shape(emitter, [1, *factors]))
    return emitter.op("Concat", larger, _shape(emitter, [channels]), axis=0)


def _shape(emitter: Emitter, sizes: list[int]) -> ir.Value:
    return emitter.constant(np.array(sizes, np.int64))
