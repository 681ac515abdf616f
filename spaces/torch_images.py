"""What each ONNX op computes, in PyTorch: convolutions, pooling and normalisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from .torch_ops import Op

if TYPE_CHECKING:
    import onnx_ir as ir

CONV = (functional.conv1d, functional.conv2d, functional.conv3d)
CONV_TRANSPOSE = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)
MAX_POOL = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
EPSILON = 1e-5
LOWEST = -torch.inf


def _window(node: ir.Node, value: Tensor, kernel: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Return strides, dilations, and pads (begins, then ends) of a node that slides a window over an input."""
    axes = len(kernel)
    strides = list(node.attributes.get_ints("strides", [1] * axes))
    dilations = list(node.attributes.get_ints("dilations", [1] * axes))
    pads = list(node.attributes.get_ints("pads", [0] * 2 * axes))
    automatic = node.attributes.get_string("auto_pad", "NOTSET")
    if automatic.startswith("SAME"):
        sizes = zip(value.shape[2:], kernel, strides, dilations, strict=True)
        needed = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in sizes]
        small, large = [n // 2 for n in needed], [n - n // 2 for n in needed]
        pads = small + large if automatic == "SAME_UPPER" else large + small
    return strides, dilations, pads


def _pad_ends(value: Tensor, begins: Sequence[int], ends: Sequence[int], fill: float = 0.0) -> Tensor:
    """Return a tensor that is longer at the ends of its spatial axes; shorter where a number is negative."""
    pairs = list(zip(begins, ends, strict=True))
    for axis, (begin, end) in enumerate(pairs, start=2):
        if min(begin, end) < 0:  # cut, not padded by less than nothing: ExecuTorch knows no such padding
            first = max(-begin, 0)
            value = value.narrow(axis, first, value.shape[axis] - first - max(-end, 0))
    sides = [max(side, 0) for pair in reversed(pairs) for side in pair]
    return functional.pad(value, sides, value=fill) if any(sides) else value


def _conv(node: ir.Node, value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    strides, dilations, pads = _window(node, value, weight.shape[2:])
    axes = len(strides)
    even = pads[:axes] == pads[axes:]
    value = value if even else _pad_ends(value, pads[:axes], pads[axes:])
    group = node.attributes.get_int("group", 1)
    return CONV[axes - 1](value, weight, bias, strides, pads[:axes] if even else 0, dilations, group)  # type: ignore[operator]


def _conv_transpose(node: ir.Node, value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    strides, dilations, pads = _window(node, value, weight.shape[2:])
    axes = len(strides)
    extra = list(node.attributes.get_ints("output_padding", [0] * axes))
    sizes = list(zip(value.shape[2:], weight.shape[2:], strides, dilations, extra, strict=True))
    whole = [(n - 1) * s + (k - 1) * d + 1 + e for n, k, s, d, e in sizes]
    wanted = node.attributes.get_ints("output_shape", None)
    automatic = node.attributes.get_string("auto_pad", "NOTSET")
    if wanted is not None or automatic.startswith("SAME"):
        aims = list(wanted)[-axes:] if wanted is not None else [n * s for n, _, s, _, _ in sizes]
        over = [max(w - aim, 0) for w, aim in zip(whole, aims, strict=True)]
        small, large = [o // 2 for o in over], [o - o // 2 for o in over]
        pads = small + large if automatic == "SAME_UPPER" else large + small
    group = node.attributes.get_int("group", 1)
    full = CONV_TRANSPOSE[axes - 1](value, weight, None, strides, 0, 0, group, dilations)  # type: ignore[operator]
    cropped = _pad_ends(full, [-p for p in pads[:axes]], [e - p for e, p in zip(extra, pads[axes:], strict=True)])
    return cropped if bias is None else cropped + bias.reshape(-1, *[1] * axes)


def _pool_pads(node: ir.Node, value: Tensor) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    """Return kernel, strides, dilations, pads, and what rounding the output's size up adds at the ends."""
    kernel = list(node.attributes.get_ints("kernel_shape"))
    strides, dilations, pads = _window(node, value, kernel)
    axes = len(kernel)
    more = [0] * axes
    if node.attributes.get_int("ceil_mode", 0):
        for axis, (n, k, s, d) in enumerate(zip(value.shape[2:], kernel, strides, dilations, strict=True)):
            begin, end = pads[axis], pads[axis + axes]
            reach = (k - 1) * d + 1
            outputs = -(-(n + begin + end - reach) // s) + 1
            if (outputs - 1) * s >= n + begin:  # a window that would begin in the padding at the end
                outputs -= 1
            more[axis] = max((outputs - 1) * s + reach - (n + begin + end), 0)
    return kernel, strides, dilations, pads, more


def _window_sums(value: Tensor, kernel: list[int], strides: list[int], dilations: list[int]) -> Tensor:
    """Return the sum over each window, channel by channel."""
    weight = value.new_ones(value.shape[1], 1, *kernel)
    return CONV[len(kernel) - 1](value, weight, None, strides, 0, dilations, value.shape[1])  # type: ignore[operator]


def _max_pool(node: ir.Node, value: Tensor) -> Tensor:
    kernel, strides, dilations, pads, more = _pool_pads(node, value)
    axes = len(kernel)
    ends = [p + m for p, m in zip(pads[axes:], more, strict=True)]
    return MAX_POOL[axes - 1](_pad_ends(value, pads[:axes], ends, LOWEST), kernel, strides, 0, dilations)  # type: ignore[operator]


def _average_pool(node: ir.Node, value: Tensor) -> Tensor:
    kernel, strides, dilations, pads, more = _pool_pads(node, value)
    axes = len(kernel)
    counts = float(node.attributes.get_int("count_include_pad", 0))  # of a value of the padding

    def sums(of: Tensor, fill: float) -> Tensor:
        padded = _pad_ends(of, pads[:axes], pads[axes:], fill)
        return _window_sums(_pad_ends(padded, [0] * axes, more), kernel, strides, dilations)

    return sums(value, 0.0) / sums(torch.ones_like(value[:1, :1]), counts)


def _global(function: Callable[..., Tensor]) -> Op:
    return lambda node, value: function(value, dim=tuple(range(2, value.ndim)), keepdim=True)


def _batch_normalization(
    node: ir.Node, value: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    epsilon = node.attributes.get_float("epsilon", EPSILON)
    return functional.batch_norm(value, mean, variance, scale, bias, False, 0.0, epsilon)


def _group_normalization(node: ir.Node, value: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return _normalized(node, value, node.attributes.get_int("num_groups", 1), scale, bias)


def _instance_normalization(node: ir.Node, value: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return _normalized(node, value, value.shape[1], scale, bias)


def _normalized(node: ir.Node, value: Tensor, groups: int, scale: Tensor, bias: Tensor) -> Tensor:
    """Return groups of channels normalised; PyTorch's own functions refuse groups of one value."""
    parts = value.reshape(value.shape[0], groups, -1)
    centred = parts - parts.mean(2, keepdim=True)
    variance = centred.square().mean(2, keepdim=True)
    result = centred * torch.rsqrt(variance + node.attributes.get_float("epsilon", EPSILON))
    shape = (-1, *[1] * (value.ndim - 2))
    return result.reshape(value.shape) * scale.reshape(shape) + bias.reshape(shape)


def _layer_normalization(node: ir.Node, value: Tensor, scale: Tensor, bias: Tensor | None = None) -> list[Tensor]:
    axes = list(range(node.attributes.get_int("axis", -1) % value.ndim, value.ndim))
    mean = value.mean(axes, keepdim=True)
    variance = (value - mean).square().mean(axes, keepdim=True)
    inverse = torch.rsqrt(variance + node.attributes.get_float("epsilon", EPSILON))
    result = (value - mean) * inverse * scale
    return [result if bias is None else result + bias, mean, inverse]


def _rms_normalization(node: ir.Node, value: Tensor, scale: Tensor) -> Tensor:
    axes = list(range(node.attributes.get_int("axis", -1) % value.ndim, value.ndim))
    square = value.square().mean(axes, keepdim=True)
    return value * torch.rsqrt(square + node.attributes.get_float("epsilon", EPSILON)) * scale


def _lp_pool(node: ir.Node, value: Tensor) -> Tensor:
    kernel, strides, dilations, pads, more = _pool_pads(node, value)
    axes, power = len(kernel), node.attributes.get_int("p", 2)
    ends = [p + m for p, m in zip(pads[axes:], more, strict=True)]
    total = _window_sums(_pad_ends(value.abs() ** power, pads[:axes], ends), kernel, strides, dilations)
    return total ** (1.0 / power)


OPS: dict[str, Op] = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "GlobalAveragePool": _global(torch.mean),
    "GlobalMaxPool": _global(torch.amax),
    "GroupNormalization": _group_normalization,
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
    "LpPool": _lp_pool,
    "MaxPool": _max_pool,
    "RMSNormalization": _rms_normalization,
}
