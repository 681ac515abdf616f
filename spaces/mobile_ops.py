"""What ONNX ops become in PyTorch where a converter for small devices has to know them again: whole ops, not their parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed  # registers the ops quantized_decomposed
from torch import Tensor
from torch.nn import functional

from . import torch_view
from .integer_ops import repeats, slope_per_channel
from .mobile_domains import MOVING
from .torch_ops import Op

if TYPE_CHECKING:
    import onnx_ir as ir

INT8 = (-128, 127)
WEIGHTS = (-127, 127)
ENDLESS = (-3.0e38, 3.0e38)  # of a Clip without an end
OFFSET = 128  # of a zero point as uint8 over the same as int8
PER_TENSOR = ("QuantizeLinear", "DequantizeLinear")
CONV_TRANSPOSE = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d}
REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
NUMBERED = (  # whose inputs behind the first are numbers that are known before
    *("Clip", "Expand", "Pad", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Tile", "Unsqueeze"),
    *(f"Reduce{name}" for name in REDUCTIONS),
)


def _quantise(node: ir.Node, value: Tensor, scale: np.ndarray, zero: np.ndarray) -> Tensor:
    own = torch.ops.quantized_decomposed.quantize_per_tensor
    found: Tensor = own(value, float(scale), int(zero) - OFFSET, *INT8, torch.int8)
    return found


def _dequantise(node: ir.Node, value: Tensor, scale: np.ndarray, zero: np.ndarray) -> Tensor:
    own = torch.ops.quantized_decomposed.dequantize_per_tensor
    found: Tensor = own(value, float(scale), int(zero) - OFFSET, *INT8, torch.int8)
    return found


def rounded_weight(weight: Tensor, scale: Tensor, zero: Tensor, axis: int) -> Tensor:
    """Return the weight that integers stand for; floats on the grid become integers by an op before.

    Args:
        weight: int8, or float32.
        scale: of each entry of the axis.
        zero: as many zeros.
        axis: of the output channels.
    """
    own = torch.ops.quantized_decomposed
    if weight.is_floating_point():
        weight = own.quantize_per_channel(weight, scale, zero, axis, *WEIGHTS, torch.int8)
    found: Tensor = own.dequantize_per_channel(weight, scale, zero, axis, *WEIGHTS, torch.int8)
    return found


def _clip(node: ir.Node, value: Tensor, low: np.ndarray | None = None, high: np.ndarray | None = None) -> Tensor:
    ends = [None if end is None else float(end) for end in (low, high)]
    if ends == [0.0, None]:
        return torch.relu(value)
    if ends == [None, None]:
        return value
    low_end, high_end = (limit if end is None else end for end, limit in zip(ends, ENDLESS, strict=True))
    return functional.hardtanh(value, low_end, high_end)  # which ExecuTorch makes a part of a convolution


def _gemm(node: ir.Node, value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    factors = [node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
    if factors != [1.0, 1.0] or node.attributes.get_int("transA", 0) != 0 or (bias is not None and bias.ndim > 1):
        return torch_view.OPS["Gemm"](node, value, weight, bias)  # type: ignore[return-value]
    return functional.linear(value, weight if node.attributes.get_int("transB", 0) else weight.T, bias)


def _pad(node: ir.Node, value: Tensor, pads: np.ndarray, constant: Any = None, axes: Any = None) -> Tensor:
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}.get(
        node.attributes.get_string("mode", "constant") or ""
    )
    sizes = [int(size) for size in pads]
    along = [int(axis) % value.ndim for axis in (range(value.ndim) if axes is None else axes)]
    ends = {axis: (first, last) for axis, first, last in zip(along, sizes, sizes[len(along) :], strict=False)}
    spatial = all(ends.get(axis, (0, 0)) == (0, 0) for axis in range(2))
    if mode is None or value.ndim != 4 or min(sizes) < 0 or (mode != "constant" and not spatial):
        return torch_view.OPS["Pad"](node, value, pads, constant, axes)  # type: ignore[return-value]
    sides = [side for axis in reversed(range(2 if spatial else 0, value.ndim)) for side in ends.get(axis, (0, 0))]
    fill = {"value": float(constant)} if mode == "constant" and constant is not None else {}
    return functional.pad(value, sides, mode=mode, **fill)


def _resize(node: ir.Node, value: Tensor, *numbers: Any) -> Tensor:
    attributes = node.attributes
    transform = attributes.get_string("coordinate_transformation_mode", "half_pixel")
    mode = attributes.get_string("mode", "nearest")
    before, axes = np.array(value.shape), [axis % value.ndim for axis in attributes.get_ints("axes", range(value.ndim))]
    factors = np.ones(value.ndim)
    given = [each for each in numbers[1:] if each is not None and each.size]
    factors[axes] = given[0] if numbers[1] is not None and numbers[1].size else given[0] / before[axes]
    after = np.floor(before * factors + 1e-6).astype(int)
    even = np.array_equal(after[:2], before[:2]) and np.allclose(after / before, factors, rtol=1e-6)
    if value.ndim != 4 or not even or attributes.get_int("antialias", 0) != 0:
        return torch_view.OPS["Resize"](node, value, *numbers)  # type: ignore[return-value]
    sizes = after[2:].tolist()
    if mode == "linear" and transform in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return functional.interpolate(value, sizes, mode="bilinear", align_corners=transform == "align_corners")
    rounding = attributes.get_string("nearest_mode", "round_prefer_floor")
    whole = mode == "nearest" and not np.any(after % before)
    if whole and all(repeats(transform, rounding, int(factor)) for factor in factors[2:]):
        return functional.interpolate(value, sizes, mode="nearest")
    return torch_view.OPS["Resize"](node, value, *numbers)  # type: ignore[return-value]


def _conv_transpose(node: ir.Node, value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    attributes, axes = node.attributes, weight.ndim - 2
    told = "output_shape" in attributes or attributes.get_string("auto_pad", "NOTSET") != "NOTSET"
    if axes not in CONV_TRANSPOSE or told or any(attributes.get_ints("output_padding", [0])):
        return torch_view.OPS["ConvTranspose"](node, value, weight, bias)  # type: ignore[return-value]
    strides, dilations = (list(attributes.get_ints(name, [1] * axes)) for name in ("strides", "dilations"))
    group = attributes.get_int("group", 1)
    full = CONV_TRANSPOSE[axes](value, weight, bias, strides, groups=group, dilation=dilations)
    pads = list(attributes.get_ints("pads", [0] * 2 * axes))
    for axis, (first, last) in enumerate(zip(pads[:axes], pads[axes:], strict=True), start=2):
        full = full.narrow(axis, first, full.shape[axis] - first - last)  # LiteRT's converter knows no padding of it
    return full


def _even_window(node: ir.Node, value: Tensor) -> tuple[list[int], list[int], list[int]] | None:
    """Return kernel, strides and paddings of a pooling in 2-D that pads alike at both ends; None for others."""
    attributes = node.attributes
    kernel = list(attributes.get_ints("kernel_shape"))
    pads = list(attributes.get_ints("pads", [0] * 2 * len(kernel)))
    even = pads[: len(kernel)] == pads[len(kernel) :] and all(2 * p <= k for p, k in zip(pads, kernel, strict=False))
    known = attributes.get_string("auto_pad", "NOTSET") == "NOTSET" and not attributes.get_int("ceil_mode", 0)
    dense = all(each == 1 for each in attributes.get_ints("dilations", [1]))
    if value.ndim != 4 or not (even and known and dense):
        return None
    return kernel, list(attributes.get_ints("strides", [1] * len(kernel))), pads[: len(kernel)]


def _max_pool(node: ir.Node, value: Tensor) -> Tensor:
    window = _even_window(node, value)
    if window is None:
        return torch_view.OPS["MaxPool"](node, value)  # type: ignore[return-value]
    return functional.max_pool2d(value, *window)


def _average_pool(node: ir.Node, value: Tensor) -> Tensor:
    window = _even_window(node, value)
    if window is None:
        return torch_view.OPS["AveragePool"](node, value)  # type: ignore[return-value]
    counted = bool(node.attributes.get_int("count_include_pad", 0))
    return functional.avg_pool2d(value, *window, count_include_pad=counted)


def _prelu(node: ir.Node, value: Tensor, slope: Tensor) -> Tensor:
    if value.ndim != 4 or not (slope.numel() == 1 or slope_per_channel(value.shape, slope.shape)):
        return torch_view.OPS["PRelu"](node, value, slope)  # type: ignore[return-value]
    return functional.prelu(value, slope.reshape(-1))


def _prelu_in_parts(node: ir.Node, value: Tensor, slope: Tensor) -> Tensor:
    """PRelu of what came from integers: XNNPACK's own takes their layout for another, and fails or computes something else."""
    if not _from_integers(node.inputs[0]):
        return _prelu(node, value, slope)
    positive = functional.relu(value)
    return positive + slope * (value - positive)


OPS: dict[str, Op] = {
    **torch_view.OPS,
    "AveragePool": _average_pool,
    "Clip": _clip,
    "ConvTranspose": _conv_transpose,
    "DequantizeLinear": _dequantise,
    "Gemm": _gemm,
    "MaxPool": _max_pool,
    "PRelu": _prelu,
    "Pad": _pad,
    "QuantizeLinear": _quantise,
    "Resize": _resize,
}
EXECUTORCH_OPS = {**OPS, "PRelu": _prelu_in_parts}


def _on_own_grids(op: Op) -> Op:
    """Return an op that LiteRT's converter leaves in float where nothing rounds what it gives.

    The converter puts all that such an op reads on the grid of one input that came from integers, and what is off it is lost.
    It does not see that through a product: twice a number and half of that is exact.
    """

    def apart(node: ir.Node, *given: Any) -> Any:
        if _is_rounded(node.outputs[0]):
            return op(node, *given)
        values = (
            2.0 * value * 0.5 if isinstance(value, Tensor) and _from_integers(source) else value
            for value, source in zip(given, node.inputs, strict=True)
        )
        return op(node, *values)

    return apart


def _is_rounded(value: ir.Value) -> bool:
    """Whether all that read a tensor round it."""
    readers = [usage.node.op_type for usage in value.uses()]
    return set(readers) == {"QuantizeLinear"} and not value.is_graph_output()


def _from_integers(value: ir.Value | None) -> bool:
    """Whether a tensor is integers in float, perhaps moved."""
    writer = None if value is None else value.producer()
    if writer is None or writer.op_type == "DequantizeLinear":
        return writer is not None
    return writer.op_type in MOVING and _from_integers(writer.inputs[0])


LITERT_OPS = {**OPS, **{name: _on_own_grids(OPS[name]) for name in ("Concat", "Max", "Min", "Where")}}
