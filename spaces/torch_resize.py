"""What ONNX's Resize computes, in PyTorch: along each axis a sum over a few neighbours, the same for all rows.

Nearest, linear and cubic, without antialiasing (ONNX operators, Resize-19; Keys, 1981, for cubic).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .errors import BuildError
from .torch_ops import Op, whole_numbers

if TYPE_CHECKING:
    import onnx_ir as ir


def _resize(
    node: ir.Node, value: Tensor, roi: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None
) -> Tensor:
    attributes = node.attributes
    for name in ("antialias", "exclude_outside"):
        if attributes.get_int(name, 0):
            raise BuildError(f"Resize with {name} has no form in PyTorch here")
    mode = attributes.get_string("mode", "nearest")
    transform = attributes.get_string("coordinate_transformation_mode", "half_pixel")
    rounding = attributes.get_string("nearest_mode", "round_prefer_floor")
    axes = [axis % value.ndim for axis in attributes.get_ints("axes", range(value.ndim))]
    for axis, (size, scale) in zip(axes, _targets(node, value, axes, scales, sizes), strict=True):
        if size != value.shape[axis] or scale != 1.0:
            first = (value.shape[axis], size, scale, mode, transform, rounding)
            index, weight = _neighbours(*first, attributes.get_float("cubic_coeff_a", -0.75))
            value = _along(value, axis, torch.from_numpy(index), torch.from_numpy(weight))
    return value


def _targets(
    node: ir.Node, value: Tensor, axes: list[int], scales: Tensor | None, sizes: Tensor | None
) -> list[tuple[int, float]]:
    """Return the new size and the scale of each axis."""
    if scales is not None and len(scales):
        factors = [float(scale) for scale in scales.reshape(-1).tolist()]
        sizes32 = [int(np.float32(value.shape[axis]) * np.float32(f)) for axis, f in zip(axes, factors, strict=True)]
        return list(zip(sizes32, factors, strict=True))
    wanted = whole_numbers(sizes)
    ratios = [size / value.shape[axis] for axis, size in zip(axes, wanted, strict=True)]
    policy = node.attributes.get_string("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return list(zip(wanted, ratios, strict=True))
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return [(math.floor(value.shape[axis] * scale + 0.5), scale) for axis in axes]


def _along(value: Tensor, axis: int, index: Tensor, weight: Tensor) -> Tensor:
    """Return weighted sums over neighbours ``[size, neighbours]`` along one axis."""
    index, weight = index.to(value.device), weight.to(value)
    shape = [1] * value.ndim
    shape[axis] = len(index)
    near = [value.index_select(axis, column) for column in index.T]
    if len(near) == 1:
        return near[0]  # of whole numbers too
    terms = [each * column.reshape(shape) for each, column in zip(near, weight.T, strict=True)]
    return sum(terms[1:], terms[0])


@lru_cache(maxsize=256)
def _neighbours(
    before: int, after: int, scale: float, mode: str, transform: str, rounding: str, cubic: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return which values each new one is a sum of ``[after, neighbours]``, and with which weights."""
    at = _coordinates(before, after, scale, transform)
    if mode == "nearest":
        rounded = {
            "round_prefer_floor": lambda: np.ceil(at - 0.5),
            "round_prefer_ceil": lambda: np.floor(at + 0.5),
            "floor": lambda: np.floor(at),
            "ceil": lambda: np.ceil(at),
        }[rounding]()
        index = np.clip(rounded, 0, before - 1).astype(np.int64)
        return np.stack([index], axis=1), np.ones((after, 1), np.float32)  # no view: ExecuTorch knows no steps of 0
    if mode == "linear":
        at = np.clip(at, 0, before - 1)
    floor = np.floor(at)
    part = at - floor
    if mode == "linear":
        offsets, weights = [0, 1], [1.0 - part, part]
    else:
        offsets, weights = [-1, 0, 1, 2], [_keys(np.abs(part - offset), cubic) for offset in (-1, 0, 1, 2)]
    index = np.stack([floor + offset for offset in offsets], axis=1)
    return np.clip(index, 0, before - 1).astype(np.int64), np.stack(weights, axis=1).astype(np.float32)


def _coordinates(before: int, after: int, scale: float, transform: str) -> np.ndarray:
    """Return where each new value lies among the old ones, as ONNX's coordinate_transformation_mode says.

    In float32, as ONNX Runtime has it: which neighbour is nearest may hang on the last bit.
    """
    new, factor, half = np.arange(after, dtype=np.float32), np.float32(scale), np.float32(0.5)
    if transform == "asymmetric":
        return np.asarray(new / factor)
    if transform == "align_corners":
        return new * np.float32(before - 1) / np.float32(after - 1) if after > 1 else np.zeros(after, np.float32)
    if transform == "pytorch_half_pixel" and after == 1:
        return np.zeros(after, np.float32)
    if transform in ("half_pixel", "pytorch_half_pixel"):
        return np.asarray((new + half) / factor - half)
    if transform == "half_pixel_symmetric":
        offset = np.float32(before) / 2 * (1 - np.float32(after) / (factor * np.float32(before)))
        return np.asarray(offset + (new + half) / factor - half)
    raise BuildError(f"Resize with {transform} has no form in PyTorch here")


def _keys(distance: np.ndarray, a: float) -> np.ndarray:
    """Return the cubic convolution kernel of Keys at distances between 0 and 2."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.asarray(np.where(distance <= 1, near, far))


OPS: dict[str, Op] = {"Resize": _resize}
