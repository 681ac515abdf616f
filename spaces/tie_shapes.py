"""What the ops that move entries tie and freeze: windows, resampling, pixel shuffles, cutting and joining."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .integer_ops import constant_input
from .sizes import is_given, kept_ranges, told_axes

if TYPE_CHECKING:
    import onnx_ir as ir

    from .ties import Ties


def _pooling(ties: Ties, node: ir.Node) -> None:
    """Batch and channels are left alone."""
    x, y = ties.ends(node)
    for axis in (0, 1):
        ties.same_axis(x, axis, y, axis)
    for name in (x, y):
        ties.freeze(name, range(2, len(ties.shape(name))), "slides over them")


# --- axes that grow or stay -----------------------------------------------------------------------------------------


def _resize(ties: Ties, node: ir.Node) -> None:
    if node.attributes.get_string("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        ties.unknown(node)
        return
    x, y = ties.ends(node)
    before, after = ties.shape(x), ties.shape(y)
    if is_given(node, 3):
        told = ties.told(node, 3)
        changed = {axis for axis, entry in told.items() if entry is None or before[axis] != after[axis]}
    else:
        scales = ties.sizes.entries(node.inputs[2])
        changed = {
            axis for axis, scale in zip(told_axes(node, len(scales), len(after)), scales, strict=True) if scale != 1
        }
    _tie_but(ties, node, changed)


def _pad(ties: Ties, node: ir.Node) -> None:
    axes = constant_input(node, 3)
    if axes is None and is_given(node, 3):
        ties.unknown(node)
        return
    pads = ties.sizes.entries(node.inputs[1])
    named = range(len(pads) // 2) if axes is None else axes.tolist()
    rank = len(ties.shape(ties.name(node, 0)))
    ends = zip(named, pads[: len(named)], pads[len(named) :], strict=True)
    _tie_but(ties, node, {axis % rank for axis, first, last in ends if first != 0 or last != 0})


def _tile(ties: Ties, node: ir.Node) -> None:
    repeats = ties.sizes.entries(node.inputs[1])
    _tie_but(ties, node, {axis for axis, repeat in enumerate(repeats) if repeat != 1})


def _tie_but(ties: Ties, node: ir.Node, changed: Collection[int]) -> None:
    """Tie the axes of a node's first input and output, and freeze those that it changes."""
    x, y = ties.ends(node)
    for axis in range(len(ties.shape(x))):
        if axis in changed:
            for name in (x, y):
                ties.freeze(name, (axis,), "changes their number")
        else:
            ties.same_axis(x, axis, y, axis)


def _expand(ties: Ties, node: ir.Node) -> None:
    x, y = ties.ends(node)
    ties.told(node, 1)
    ties.same(x, y)
    before, after = ties.shape(x), ties.shape(y)
    for back in range(1, len(after) + 1):
        if back > len(before) or before[-back] != after[-back]:
            ties.freeze(y, (len(after) - back,), "repeats them")


# --- pixel shuffles -------------------------------------------------------------------------------------------------


def _depth_to_space(ties: Ties, node: ir.Node) -> None:
    x, y = ties.ends(node)
    block = node.attributes.get_int("blocksize", 1) or 1
    deep, channels = np.arange(ties.shape(x)[1]), ties.shape(y)[1]
    crd = node.attributes.get_string("mode", "DCR") == "CRD"
    _blocks(ties, x, y, deep // block**2 if crd else deep % channels)


def _space_to_depth(ties: Ties, node: ir.Node) -> None:
    x, y = ties.ends(node)
    _blocks(ties, y, x, np.arange(ties.shape(y)[1]) % ties.shape(x)[1])


def _blocks(ties: Ties, deep: str, shallow: str, channel: np.ndarray) -> None:
    """Tie the block of channels of the deep tensor to the channel of the shallow one that it becomes."""
    units, of = ties.units(deep, 1), ties.units(shallow, 1)
    ties.same_axis(deep, 0, shallow, 0)
    if len(of):
        ties.tie(units, of[channel])
    else:
        ties.together(units[None])
    for name in (deep, shallow):
        ties.freeze(name, (2, 3), "moves channels there")


# --- cutting and joining --------------------------------------------------------------------------------------------


def _concat(ties: Ties, node: ir.Node) -> None:
    _, y = ties.ends(node)
    axis = (node.attributes.get_int("axis", 0) or 0) % len(ties.shape(y))
    _parts(ties, y, [ties.name(node, index) for index in range(len(node.inputs))], axis)


def _split(ties: Ties, node: ir.Node) -> None:
    x, _ = ties.ends(node)
    if is_given(node, 1) and constant_input(node, 1) is None:
        ties.unknown(node)
        return
    axis = (node.attributes.get_int("axis", 0) or 0) % len(ties.shape(x))
    _parts(ties, x, [value.name or "" for value in node.outputs], axis)


def _parts(ties: Ties, whole: str, parts: list[str], axis: int) -> None:
    """Tie a tensor to the parts that it is cut into, or joined from, along an axis."""
    start = 0
    for part in parts:
        ties.same_but(whole, part, axis)
        size = ties.shape(part)[axis]
        ties.cut(whole, axis, np.arange(start, start + size), part, axis)
        start += size


def _slice(ties: Ties, node: ir.Node) -> None:
    x, y = ties.ends(node)
    kept = kept_ranges(node, ties.shape(x))
    if kept is None:
        ties.unknown(node)
        return
    for axis in range(len(ties.shape(x))):
        found = kept.get(axis)
        if axis not in kept:
            ties.same_axis(x, axis, y, axis)
        elif found is None or found.step != 1:
            what = "computes which of them it takes" if found is None else "takes them in steps"
            for name in (x, y):
                ties.freeze(name, (axis,), what)
        else:
            ties.cut(x, axis, np.array(found, np.int64), y, axis)


def _gather(ties: Ties, node: ir.Node) -> None:
    x, y = ties.ends(node)
    indices = constant_input(node, 1)
    rank = len(ties.shape(x))
    axis = (node.attributes.get_int("axis", 0) or 0) % rank
    if indices is None or indices.ndim > 1 or ties.constant(x):
        ties.unknown(node)
        return
    for other in range(rank):
        if other != axis:
            ties.same_axis(x, other, y, other - (other > axis and indices.ndim == 0))
    taken = indices.reshape(-1) % ties.shape(x)[axis]
    if len(set(taken.tolist())) < len(taken):
        for name in (x, y):
            ties.freeze(name, (axis,), "takes some of them twice")
    else:
        ties.cut(x, axis, taken, y, axis)


def _transpose(ties: Ties, node: ir.Node) -> None:
    x, y = ties.ends(node)
    rank = len(ties.shape(x))
    for new, old in enumerate(node.attributes.get_ints("perm", []) or range(rank)[::-1]):
        ties.same_axis(x, old, y, new)


POOLINGS = ("AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
RULES: Mapping[str, Callable[[Any, Any], None]] = dict.fromkeys(POOLINGS, _pooling) | {
    "Resize": _resize,
    "Pad": _pad,
    "Tile": _tile,
    "Expand": _expand,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Transpose": _transpose,
}
