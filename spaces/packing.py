"""Weights of 2 to 7 bits in a stock ONNX file: packed bytes, and the function of standard ops that unpacks them.

A width is a sum of bit planes of 4, 2 and 1 bits; each plane is a uint8 tensor. The unpacking is an ONNX local function per
width, inlined and folded by ONNX Runtime when it opens the file, so that inference sees plain int8 weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

DOMAIN = "slimfront"


def planes(bits: int) -> tuple[int, ...]:
    """Return the widths of the bit planes of a code of ``bits``, most significant first: 7 -> (4, 2, 1)."""
    return tuple(width for width in (4, 2, 1) if bits & width)


def packed_bytes(count: int, bits: int) -> int:
    """Return the bytes that ``count`` codes of ``bits`` take: each plane holds the count rounded up to 8."""
    return -(-count // 8) * bits if bits < 8 else count


def pack(steps: np.ndarray, bits: int) -> list[np.ndarray]:
    """Pack unsigned codes 0 .. 2**bits - 1 into one uint8 array for each bit plane.

    Byte ``j`` of a plane of width ``w`` holds codes ``j, j + n, j + 2 n, ...`` (n bytes in all), lowest bits first.
    """
    flat = steps.reshape(-1).astype(np.uint8)
    flat = np.concatenate([flat, np.zeros(-flat.size % 8, np.uint8)])
    result, low = [], bits
    for width in planes(bits):
        low -= width
        plane = (flat >> low) & ((1 << width) - 1)
        parts = plane.reshape(8 // width, -1)
        shifts = (np.arange(8 // width, dtype=np.uint8) * width)[:, None]
        result.append(np.bitwise_or.reduce(parts << shifts, axis=0).astype(np.uint8))
    return result


def unpack_function(bits: int, opset: int) -> ir.Function:
    """Return the local function ``Unpack<bits>(plane..., shape, zero) -> int8``: codes ``step * u - zero``.

    ``zero`` is a uint8 tensor that broadcasts over ``shape``; ``step`` is that of `rounding.Grid`.
    """
    import onnx_ir as ir

    from .rounding import Grid

    widths = planes(bits)
    inputs = [ir.Value(name=f"p{width}") for width in widths] + [ir.Value(name="shape"), ir.Value(name="zero")]
    shape, zero = inputs[-2:]
    nodes: list[ir.Node] = []

    def op(name: str, *args: ir.Value, **attributes: object) -> ir.Value:
        node = ir.node(name, list(args), attributes)  # type: ignore[arg-type]
        nodes.append(node)
        return node.outputs[0]

    def constant(array: np.ndarray) -> ir.Value:
        return op("Constant", value=ir.tensor(array))

    total, low = None, bits
    for plane, width in zip(inputs, widths, strict=False):
        low -= width
        row = op("Reshape", plane, constant(np.array([1, -1], np.int64)))
        shifts = constant((np.arange(8 // width, dtype=np.uint8) * width)[:, None])
        part = op(
            "BitwiseAnd", op("BitShift", row, shifts, direction="RIGHT"), constant(np.array((1 << width) - 1, np.uint8))
        )
        left = low + (Grid(bits).step - 1)
        if left:
            part = op("BitShift", part, constant(np.array(left, np.uint8)), direction="LEFT")
        part = op("Reshape", part, constant(np.array([-1], np.int64)))
        total = part if total is None else op("BitwiseOr", total, part)
    assert total is not None
    count = op("ReduceProd", shape, keepdims=1)
    flat = op("Slice", total, constant(np.array([0], np.int64)), count)
    codes = op("Cast", op("Reshape", flat, shape), to=ir.DataType.INT32)
    codes = op("Sub", codes, op("Cast", zero, to=ir.DataType.INT32))
    result = op("Cast", codes, to=ir.DataType.INT8)
    graph = ir.Graph(inputs, [result], nodes=nodes, opset_imports={"": opset}, name=f"Unpack{bits}")
    _name_values(graph)
    return ir.Function(DOMAIN, f"Unpack{bits}", graph=graph, attributes={})


def bias_function(opset: int) -> ir.Function:
    """Return the local function ``Bias(bias, input_scale, weight_scale)``: the int32 bias that integer kernels take."""
    import onnx_ir as ir

    bias, input_scale, weight_scale = (ir.Value(name=name) for name in ("b", "x", "w"))
    scale = ir.node("Mul", [input_scale, weight_scale])
    steps = ir.node("Div", [bias, scale.outputs[0]])
    rounded = ir.node("Round", [steps.outputs[0]])
    integer = ir.node("Cast", [rounded.outputs[0]], {"to": ir.DataType.INT32})
    value = ir.node("DequantizeLinear", [integer.outputs[0], scale.outputs[0]], {"axis": 0})
    nodes = [scale, steps, rounded, integer, value]
    inputs = [bias, input_scale, weight_scale]
    graph = ir.Graph(inputs, [value.outputs[0]], nodes=nodes, opset_imports={"": opset}, name="Bias")
    _name_values(graph)
    return ir.Function(DOMAIN, "Bias", graph=graph, attributes={})


def _name_values(graph: ir.Graph) -> None:
    number = 0
    for node in graph:
        node.name = ""
        for value in node.outputs:
            value.name = f"_{number}"
            number += 1
