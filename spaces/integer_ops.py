"""The ops that may run between integer layers: when they can, what they cost, and how they are written.

Costs are milliseconds for 2**20 elements on one core (AVX512-VNNI), integer and float; only their ratios matter, to choose
the domain (`domains`). "Requantising" ops stand between Q/DQ nodes and fuse into an integer kernel of ONNX Runtime; "raw" ops
work on the uint8 tensor itself, with the quantisation of their input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from . import nhwc
from .graph import Graph

if TYPE_CHECKING:
    import onnx_ir as ir

    from .lowering import Lowering


@dataclass(frozen=True)
class IntegerOp:
    """An op's integer form."""

    costs: tuple[float, float]
    accepts: Callable[[Graph, Any], bool]
    emit: Callable[[Any, Any], None]


def constant_input(node: ir.Node, index: int) -> np.ndarray | None:
    """Return a constant input's values, or None where it is absent or computed."""
    value = node.inputs[index] if index < len(node.inputs) else None
    return None if value is None or value.const_value is None else value.const_value.numpy()


# --- when an op can run in integers ---------------------------------------------------------------------------------


def _float_data(graph: Graph, node: ir.Node) -> bool:
    value = node.inputs[0]
    return value is not None and not value.is_initializer() and (value.dtype is None or value.dtype.name == "FLOAT")


def _data_first(graph: Graph, node: ir.Node) -> bool:
    """The data is the first input; all others are constant."""
    others = [value for value in node.inputs[1:] if value is not None]
    return _float_data(graph, node) and all(value.const_value is not None for value in others)


def _all_computed(graph: Graph, node: ir.Node) -> bool:
    return all(value is not None and not value.is_initializer() for value in node.inputs) and _float_data(graph, node)


def _four_axes(graph: Graph, node: ir.Node) -> bool:
    return _float_data(graph, node) and len(graph.shapes[node.inputs[0].name or ""]) == 4  # type: ignore[union-attr]


def _scalar_factor(graph: Graph, node: ir.Node) -> bool:
    return _float_data(graph, node) and _factor(node) is not None


def _product(graph: Graph, node: ir.Node) -> bool:
    return _all_computed(graph, node) or _scalar_factor(graph, node)


def _clip_bounds(graph: Graph, node: ir.Node) -> bool:
    return _data_first(graph, node) and (constant_input(node, 1) is not None or constant_input(node, 2) is not None)


def _zero_pad(graph: Graph, node: ir.Node) -> bool:
    value = constant_input(node, 2)
    return _data_first(graph, node) and (value is None or float(value) == 0.0)


def _nearest(graph: Graph, node: ir.Node) -> bool:
    return _four_axes(graph, node) and nearest_factors(graph, node) is not None


def _average_pool(graph: Graph, node: ir.Node) -> bool:
    pads = node.attributes.get_ints("pads", [0])
    return (
        _four_axes(graph, node)
        and (not any(pads) or bool(node.attributes.get_int("count_include_pad", 0)))
        and not node.attributes.get_int("ceil_mode", 0)
        and node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
        and all(d == 1 for d in node.attributes.get_ints("dilations", [1]))
    )


def _prelu(graph: Graph, node: ir.Node) -> bool:
    slope = constant_input(node, 1)
    if slope is None or not _float_data(graph, node):
        return False
    shape = graph.shapes[node.inputs[0].name or ""]  # type: ignore[union-attr]
    return bool(np.all(slope == slope.flat[0])) or slope_per_channel(shape, slope.shape)


def slope_per_channel(shape: Sequence[int], slope: Sequence[int]) -> bool:
    """Whether a PRelu of an image of this shape, with slopes of that shape, has one slope for each channel."""
    return len(shape) == 4 and math.prod(slope) == shape[1] and tuple(slope[-2:]) == (1, 1)


def _max_pool(graph: Graph, node: ir.Node) -> bool:
    return _four_axes(graph, node) and sum(1 for v in node.outputs if v.name and v.uses()) <= 1


def nearest_factors(graph: Graph, node: ir.Node) -> tuple[int, int] | None:
    """Return the whole factors (height, width) of a Resize that repeats each pixel, or None where it is another."""
    mode = node.attributes.get_string("mode", "nearest")
    before = graph.shapes[node.inputs[0].name or ""]  # type: ignore[union-attr]
    after = graph.shapes[node.outputs[0].name or ""]
    if mode != "nearest" or len(before) != 4 or before[:2] != after[:2] or "axes" in node.attributes:
        return None
    if any(a % b for b, a in zip(before, after, strict=True)):
        return None
    scales = constant_input(node, 2)
    if scales is not None and scales.size and not np.array_equal(scales, np.array(after) / np.array(before)):
        return None
    transform = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    rounding = node.attributes.get_string("nearest_mode", "round_prefer_floor")
    factors = (after[2] // before[2], after[3] // before[3])
    return factors if all(repeats(transform or "", rounding or "", factor) for factor in factors) else None


def repeats(transform: str, rounding: str, factor: int) -> bool:
    """Whether output pixel i of a nearest Resize reads input pixel i // factor (ONNX operator Resize)."""
    i = np.arange(8 * factor)
    source = {"asymmetric": i / factor, "half_pixel": (i + 0.5) / factor - 0.5}.get(transform)
    if source is None:
        return False
    index = {
        "floor": np.floor(source),
        "round_prefer_floor": np.ceil(source - 0.5),
        "round_prefer_ceil": np.floor(source + 0.5),
    }.get(rounding)
    return index is not None and np.array_equal(np.clip(index, 0, 7), i // factor)


def _factor(node: ir.Node) -> float | None:
    """Return the positive scalar that a Mul or Div multiplies with, or None."""
    for index in (1, 0) if node.op_type == "Mul" else (1,):
        values = constant_input(node, index)
        if values is not None and values.size == 1 and float(values.reshape(-1)[0]) > 0:
            return float(values.reshape(-1)[0]) if node.op_type == "Mul" else 1 / float(values.reshape(-1)[0])
    return None


# --- how it is written ----------------------------------------------------------------------------------------------


def _requantised(lowering: Lowering, node: ir.Node) -> None:
    """Q/DQ around the op itself: ONNX Runtime fuses it into its integer kernel."""
    inputs = [lowering.dequantised(value.name or "") for value in node.inputs if value is not None]
    result = lowering.emitter.op(node.op_type, *inputs, attributes=node.attributes)
    lowering.quantise(node.outputs[0].name or "", result)


def _raw(lowering: Lowering, node: ir.Node) -> None:
    """The op on the uint8 tensor itself."""
    quant = lowering.quantised(node.inputs[0].name or "")  # type: ignore[union-attr]
    others = [None if value is None else lowering.any_value(value) for value in node.inputs[1:]]
    results = lowering.emitter.ops(node.op_type, [quant.value, *others], len(node.outputs), attributes=node.attributes)
    for value, result in zip(node.outputs, results, strict=True):
        lowering.set_quantised(value.name or "", replace(quant, value=result))


def _pad(lowering: Lowering, node: ir.Node) -> None:
    quant = lowering.quantised(node.inputs[0].name or "")  # type: ignore[union-attr]
    pads = lowering.any_value(node.inputs[1])  # type: ignore[arg-type]
    zero = lowering.emitter.constant(np.array(quant.zero, np.uint8))
    axes = [lowering.any_value(value) for value in node.inputs[3:] if value is not None]
    result = lowering.emitter.op("Pad", quant.value, pads, zero, *axes, attributes=node.attributes)
    lowering.set_quantised(node.outputs[0].name or "", replace(quant, value=result))


def _clip(lowering: Lowering, node: ir.Node) -> None:
    """Relu and Clip: nothing to do where the quantised range ends there anyway, else a clip of the uint8 values."""
    quant = lowering.quantised(node.inputs[0].name or "")  # type: ignore[union-attr]
    low, high = clip_range(node)
    steps = np.clip(np.rint(np.array([low, high]) / quant.scale + quant.zero), 0, 255).astype(np.uint8)
    if steps[0] > 0 or steps[1] < 255:
        bounds = [lowering.emitter.constant(step) for step in steps]
        quant = replace(quant, value=lowering.emitter.op("Clip", quant.value, *bounds))
    lowering.set_quantised(node.outputs[0].name or "", quant)


def clip_range(node: ir.Node) -> tuple[float, float]:
    """Return the bounds of a Relu or Clip node."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    low, high = constant_input(node, 1), constant_input(node, 2)
    return (-np.inf if low is None else float(low)), (np.inf if high is None else float(high))


def _mul(lowering: Lowering, node: ir.Node) -> None:
    factor = _factor(node)
    if factor is None:
        _requantised(lowering, node)
        return
    data = next(value for value in node.inputs if value is not None and value.const_value is None)
    quant = lowering.quantised(data.name or "")
    lowering.set_quantised(node.outputs[0].name or "", replace(quant, scale=quant.scale * factor))


def _depth_to_space(lowering: Lowering, node: ir.Node) -> None:
    block = node.attributes.get_int("blocksize", 2) or 2
    mode = node.attributes.get_string("mode", "DCR") or "DCR"
    source = node.inputs[0].name or ""  # type: ignore[union-attr]
    quant = lowering.quantised(source)
    sizes = lowering.sizes(source)
    result = nhwc.depth_to_space(lowering.emitter, quant.value, sizes, (block, block), mode)
    lowering.set_quantised(node.outputs[0].name or "", replace(quant, value=result))


def _resize(lowering: Lowering, node: ir.Node) -> None:
    source = node.inputs[0].name or ""  # type: ignore[union-attr]
    factors = nearest_factors(lowering.graph, node)
    assert factors is not None
    quant = lowering.quantised(source)
    result = nhwc.repeat(lowering.emitter, quant.value, lowering.sizes(source), factors)
    lowering.set_quantised(node.outputs[0].name or "", replace(quant, value=result))


def _average(lowering: Lowering, node: ir.Node) -> None:
    """AveragePool as the depthwise convolution that it is."""
    kernel = tuple(node.attributes.get_ints("kernel_shape", []) or [])
    source = node.inputs[0].name or ""  # type: ignore[union-attr]
    channels = lowering.graph.shapes[source][1]
    attributes = {
        "group": channels,
        "kernel_shape": list(kernel),
        "strides": list(node.attributes.get_ints("strides", [1, 1]) or [1, 1]),
        "pads": list(node.attributes.get_ints("pads", [0, 0, 0, 0]) or [0, 0, 0, 0]),
    }
    ones = np.ones((channels, 1, *kernel), np.int8)
    result = lowering.depthwise(source, ones, np.full(channels, 1 / np.prod(kernel), np.float32), attributes)
    lowering.quantise(node.outputs[0].name or "", result)


def _prelu_form(lowering: Lowering, node: ir.Node) -> None:
    """PRelu: LeakyRelu where all slopes agree, else slope * x + (1 - slope) * relu(x) as two depthwise convolutions."""
    slope = constant_input(node, 1)
    assert slope is not None
    source, target = node.inputs[0].name or "", node.outputs[0].name or ""  # type: ignore[union-attr]
    if np.all(slope == slope.flat[0]):
        value = lowering.emitter.op("LeakyRelu", lowering.dequantised(source), alpha=float(slope.flat[0]))
        lowering.quantise(target, value)
        return
    quant = lowering.quantised(source)
    zero = lowering.emitter.constant(np.array(quant.zero, np.uint8))
    top = lowering.emitter.constant(np.array(255, np.uint8))
    positive = replace(quant, value=lowering.emitter.op("Clip", quant.value, zero, top))
    slopes = slope.reshape(-1).astype(np.float32)
    low, high = (0 - quant.zero) * quant.scale, (255 - quant.zero) * quant.scale
    parts = []
    for part, factors, ends in ((quant, slopes, (low, high)), (positive, 1 - slopes, (0.0, high))):
        corners = np.outer(factors, ends)
        value = lowering.scaled_channels(part, factors)
        parts.append(lowering.requantise(value, float(min(corners.min(), 0)), float(max(corners.max(), 0))))
    total = lowering.emitter.op("Add", *(lowering.dequantise(part) for part in parts))
    lowering.quantise(target, total)


OPS: dict[str, IntegerOp] = {
    "Add": IntegerOp((0.15, 0.10), _all_computed, _requantised),
    "Mul": IntegerOp((0.25, 0.32), _product, _mul),
    "Div": IntegerOp((0.0, 0.1), _scalar_factor, _mul),
    "LeakyRelu": IntegerOp((0.35, 0.30), _float_data, _requantised),
    "Sigmoid": IntegerOp((0.26, 0.30), _float_data, _requantised),
    "Concat": IntegerOp((0.20, 0.59), _all_computed, _requantised),
    "GlobalAveragePool": IntegerOp((0.04, 0.07), _four_axes, _requantised),
    "AveragePool": IntegerOp((0.08, 0.20), _average_pool, _average),
    "PRelu": IntegerOp((0.40, 0.30), _prelu, _prelu_form),
    "Relu": IntegerOp((0.0, 0.05), _float_data, _clip),
    "Clip": IntegerOp((0.0, 0.05), _clip_bounds, _clip),
    "MaxPool": IntegerOp((0.05, 0.08), _max_pool, _raw),
    "Pad": IntegerOp((0.04, 0.15), _zero_pad, _pad),
    "DepthToSpace": IntegerOp((0.40, 3.7), _four_axes, _depth_to_space),
    "Resize": IntegerOp((0.30, 1.5), _nearest, _resize),
    "Slice": IntegerOp((0.10, 0.50), _data_first, _raw),
    "Split": IntegerOp((0.10, 0.80), _data_first, _raw),
    "Transpose": IntegerOp((0.10, 0.30), _data_first, _raw),
    "Reshape": IntegerOp((0.01, 0.01), _data_first, _raw),
    "Squeeze": IntegerOp((0.01, 0.01), _data_first, _raw),
    "Unsqueeze": IntegerOp((0.01, 0.01), _data_first, _raw),
    "Flatten": IntegerOp((0.01, 0.01), _data_first, _raw),
}
