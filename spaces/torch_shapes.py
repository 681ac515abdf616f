"""What each ONNX op computes, in PyTorch: ops that move values and keep them as they are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .sizes import sliced
from .torch_ops import Op, whole_numbers

if TYPE_CHECKING:
    import onnx_ir as ir


def _reshape(node: ir.Node, value: Tensor, shape: Tensor) -> Tensor:
    sizes = whole_numbers(shape)
    if not node.attributes.get_int("allowzero", 0):
        sizes = [value.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return value.reshape(sizes)


def _flatten(node: ir.Node, value: Tensor) -> Tensor:
    axis = node.attributes.get_int("axis", 1)
    return value.reshape(int(np.prod(value.shape[: axis % value.ndim if axis < 0 else axis])), -1)


def _transpose(node: ir.Node, value: Tensor) -> Tensor:
    return value.permute(list(node.attributes.get_ints("perm", list(reversed(range(value.ndim))))))


def _concat(node: ir.Node, *values: Tensor) -> Tensor:
    return torch.cat(values, dim=node.attributes.get_int("axis"))


def _split(node: ir.Node, value: Tensor, sizes: Tensor | None = None) -> list[Tensor]:
    axis = node.attributes.get_int("axis", 0)
    wanted = whole_numbers(sizes)
    if not wanted:
        pieces = len(node.outputs)
        size = -(-value.shape[axis] // pieces)
        wanted = [size] * (pieces - 1) + [value.shape[axis] - size * (pieces - 1)]
    return list(torch.split(value, wanted, dim=axis))


def _slice(
    node: ir.Node, value: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
) -> Tensor:
    first, last = whole_numbers(starts), whole_numbers(ends)
    along = whole_numbers(axes) or list(range(len(first)))
    by = whole_numbers(steps) or [1] * len(first)
    for axis, start, end, step in zip(along, first, last, by, strict=True):
        chosen = sliced(value.shape[axis], start, end, step)
        if step == 1:
            value = value.narrow(axis, chosen.start, len(chosen))
        else:
            value = value.index_select(axis, torch.tensor(list(chosen), dtype=torch.int64, device=value.device))
    return value


def _squeeze(node: ir.Node, value: Tensor, axes: Tensor | None = None) -> Tensor:
    along = whole_numbers(axes)
    return value.squeeze(along) if along else value.squeeze()


def _unsqueeze(node: ir.Node, value: Tensor, axes: Tensor) -> Tensor:
    along = whole_numbers(axes)
    rank = value.ndim + len(along)
    for axis in sorted(axis % rank for axis in along):
        value = value.unsqueeze(axis)
    return value


def _expand(node: ir.Node, value: Tensor, shape: Tensor) -> Tensor:
    return value.expand(torch.broadcast_shapes(value.shape, whole_numbers(shape)))


def _tile(node: ir.Node, value: Tensor, repeats: Tensor) -> Tensor:
    return value.repeat(whole_numbers(repeats))


def _pad(
    node: ir.Node, value: Tensor, pads: Tensor, constant: Tensor | None = None, axes: Tensor | None = None
) -> Tensor:
    mode = node.attributes.get_string("mode", "constant")
    along = whole_numbers(axes) or list(range(value.ndim))
    sizes = whole_numbers(pads)
    for axis, before, after in zip(along, sizes[: len(along)], sizes[len(along) :], strict=True):
        if before < 0 or after < 0:  # those crop
            value = value.narrow(axis, max(-before, 0), value.shape[axis] - max(-before, 0) - max(-after, 0))
        before, after = max(before, 0), max(after, 0)
        if before or after:
            value = _padded(value, axis, before, after, mode, constant)
    return value


def _padded(value: Tensor, axis: int, before: int, after: int, mode: str, constant: Tensor | None) -> Tensor:
    """Return a tensor that is longer at both ends of one axis."""
    if mode == "constant":
        fill = 0.0 if constant is None else constant.reshape(()).item()

        def edge(size: int) -> Tensor:
            return value.new_full([size if a == axis % value.ndim else n for a, n in enumerate(value.shape)], fill)

        return torch.cat([edge(before), value, edge(after)], dim=axis)
    index = np.pad(np.arange(value.shape[axis]), (before, after), mode=mode)  # type: ignore[call-overload]
    return value.index_select(axis, torch.from_numpy(index).to(value.device))


def _depth_to_space(node: ir.Node, value: Tensor) -> Tensor:
    block = node.attributes.get_int("blocksize")
    batch, channels, height, width = value.shape
    kept = channels // block**2
    if node.attributes.get_string("mode", "DCR") == "CRD":
        return torch.pixel_shuffle(value, block)
    pieces = value.reshape(batch, block, block, kept, height, width)
    return pieces.permute(0, 3, 4, 1, 5, 2).reshape(batch, kept, height * block, width * block)


def _space_to_depth(node: ir.Node, value: Tensor) -> Tensor:
    block = node.attributes.get_int("blocksize")
    batch, channels, height, width = value.shape
    pieces = value.reshape(batch, channels, height // block, block, width // block, block)
    return pieces.permute(0, 3, 5, 1, 2, 4).reshape(batch, channels * block**2, height // block, width // block)


def _gather(node: ir.Node, value: Tensor, index: Tensor) -> Tensor:
    axis = node.attributes.get_int("axis", 0) % value.ndim
    wrapped = torch.where(index < 0, index + value.shape[axis], index)
    taken = value.index_select(axis, wrapped.reshape(-1).long())
    return taken.reshape([*value.shape[:axis], *index.shape, *value.shape[axis + 1 :]])


def _shape(node: ir.Node, value: Tensor) -> Tensor:
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", None)
    return torch.tensor(list(value.shape)[start:end], dtype=torch.int64)


def _constant_of_shape(node: ir.Node, shape: Tensor) -> Tensor:
    given = node.attributes.get_tensor("value")
    fill = torch.zeros(1) if given is None else torch.from_numpy(given.numpy().copy())
    return fill.reshape(()).expand(whole_numbers(shape)).clone()


def _range(node: ir.Node, start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
    count = max(math.ceil((limit.item() - start.item()) / step.item()), 0)
    return start + step * torch.arange(count, dtype=start.dtype, device=start.device)


OPS: dict[str, Op] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Dropout": lambda node, value, *rest: [value, torch.ones_like(value, dtype=torch.bool)],
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": lambda node, value: torch.tensor(value.numel()),
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
