"""Weights of few bits or with many zeros in a stock ONNX file: packed bytes, and functions of standard ops that unpack them.

A width below 8 is a sum of bit planes of 4, 2 and 1 bits; each plane is a uint8 tensor. A sparse weight is a bitmask and its
non-zero values, these of any width. The unpacking is an ONNX local function per width and form, inlined and folded by ONNX
Runtime when it opens the file, so that inference sees plain int8 or float weights.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

DOMAIN = "slimfront"
CALL_BYTES = 64  # that the mask's tensor and a longer call add to the file, about
_FLOAT, _INT8, _INT32, _BOOL = 1, 3, 6, 9  # ONNX's numbers of types


def planes(bits: int) -> tuple[int, ...]:
    """Return the widths of the bit planes of a code of ``bits``, most significant first: 7 -> (4, 2, 1)."""
    return tuple(width for width in (4, 2, 1) if bits & width)


def packed_bytes(count: int, bits: int) -> int:
    """Return the bytes that ``count`` values of 1-8, 16 or 32 bits take: each plane holds the count rounded up to 8."""
    return -(-count // 8) * bits if bits < 8 else count * bits // 8


def sparse_bytes(count: int, kept: int, bits: int) -> int:
    """Return the bytes of the sparse form: a bitmask of ``count`` and ``kept`` values of ``bits`` (one where there is none)."""
    return packed_bytes(count, 1) + packed_bytes(max(kept, 1), bits)


def is_sparse(count: int, kept: int, bits: int) -> bool:
    """Whether a layer with sparsity is stored as bitmask and values: where that takes fewer bytes than all values.

    Args:
        count: weights of the layer.
        kept: those of them that are not zero.
        bits: of each: 2-8, 16 or 32.
    """
    return sparse_bytes(count, kept, bits) + CALL_BYTES < packed_bytes(count, bits)


def sparse_widths(count: int, kept: int, bits: Collection[int]) -> frozenset[int]:
    """Return those of the widths at which a layer with sparsity is stored as bitmask and values."""
    return frozenset(width for width in bits if is_sparse(count, kept, width))


def stored_bytes(count: int, kept: int, bits: int) -> int:
    """Return the bytes of the weights of a layer with sparsity, in the form that is smaller."""
    return sparse_bytes(count, kept, bits) if is_sparse(count, kept, bits) else packed_bytes(count, bits)


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


def pack_sparse(mask: np.ndarray, values: np.ndarray, bits: int) -> list[np.ndarray]:
    """Pack the values where the mask is True: the mask's bits, then the values' bit planes (from 8 bits on: as they are).

    Args:
        mask: bool, of any shape.
        values: of the mask's shape: unsigned codes below 8 bits, else int8, float16 or float32.
        bits: 2-8, 16 or 32.
    """
    kept = values[mask] if mask.any() else np.zeros(1, values.dtype)  # something to gather from
    return [*pack(mask, 1), *(pack(kept, bits) if bits < 8 else [kept])]


def unpack_function(bits: int, opset: int) -> ir.Function:
    """Return the local function ``Unpack<bits>(plane..., shape, zero) -> int8``: codes ``step * u - zero``.

    ``zero`` is a uint8 tensor that broadcasts over ``shape``; ``step`` is that of `rounding.Grid`.
    """
    body = _Body(*_stored_names(bits), "shape", "zero")
    *stored, shape, zero = body.inputs
    steps = body.first(body.joined(stored, bits), shape)
    codes = body.codes(body.op("Reshape", steps, shape), zero)
    return body.function(f"Unpack{bits}", body.op("Cast", codes, to=_INT8), opset)


def sparse_function(bits: int, opset: int) -> ir.Function:
    """Return the local function ``Sparse<bits>`` that puts values where a bitmask says, and zero elsewhere.

    Below 8 bits it is ``(mask, plane..., shape, zero) -> int8``, the planes as in `unpack_function`; from 8 bits on
    ``(mask, values, shape)``: int8 values give int8, float16 and float32 ones give float32. The place of a weight among
    the values is the number of ones before its own in the mask.
    """
    names = _stored_names(bits)
    body = _Body("mask", *names, "shape", *(["zero"] if bits < 8 else []))
    mask, *stored = body.inputs[: len(names) + 1]
    shape = body.inputs[len(names) + 1]
    flat = body.first(body.plane(mask, 1, 0), shape)
    ones = body.op("Cast", flat, to=_INT32)
    places = body.op("Mul", body.op("CumSum", ones, body.constant(np.int64(0)), exclusive=1), ones)
    values = body.joined(stored, bits) if bits < 8 else stored[0]
    spread = body.op("Reshape", body.op("Gather", values, places), shape)
    there = body.op("Cast", body.op("Reshape", flat, shape), to=_BOOL)
    if bits > 8:
        spread = body.op("Cast", spread, to=_FLOAT)
        return body.function(f"Sparse{bits}", body.op("Where", there, spread, body.constant(np.float32(0))), opset)
    codes = body.codes(spread, body.inputs[-1]) if bits < 8 else body.op("Cast", spread, to=_INT32)
    codes = body.op("Where", there, codes, body.constant(np.int32(0)))  # of int32: the runtime has none of int8
    return body.function(f"Sparse{bits}", body.op("Cast", codes, to=_INT8), opset)


def bias_function(opset: int) -> ir.Function:
    """Return the local function ``Bias(bias, input_scale, weight_scale)``: the int32 bias that integer kernels take."""
    body = _Body("b", "x", "w")
    bias, input_scale, weight_scale = body.inputs
    scale = body.op("Mul", input_scale, weight_scale)
    integer = body.op("Cast", body.op("Round", body.op("Div", bias, scale)), to=_INT32)
    return body.function("Bias", body.op("DequantizeLinear", integer, scale, axis=0), opset)


def _stored_names(bits: int) -> list[str]:
    return [f"p{width}" for width in planes(bits)] if bits < 8 else ["values"]


class _Body:
    """The nodes of a local function that is being written."""

    def __init__(self, *inputs: str) -> None:
        import onnx_ir as ir

        self.inputs = [ir.Value(name=name) for name in inputs]
        self.nodes: list[ir.Node] = []

    def op(self, name: str, *args: ir.Value, **attributes: Any) -> ir.Value:
        """Add a node with one output and return that."""
        import onnx_ir as ir

        node = ir.node(name, list(args), attributes)
        self.nodes.append(node)
        return node.outputs[0]

    def constant(self, array: Any) -> ir.Value:
        """Return a constant of the array's type; of int64 for a list."""
        import onnx_ir as ir

        return self.op("Constant", value=ir.tensor(np.array(array, np.int64) if isinstance(array, list) else array))

    def plane(self, packed: ir.Value, width: int, left: int) -> ir.Value:
        """Return what a bit plane holds, uint8, shifted to the left; with what it was padded by."""
        row = self.op("Reshape", packed, self.constant([1, -1]))
        shifts = self.constant((np.arange(8 // width, dtype=np.uint8) * width)[:, None])
        shifted = self.op("BitShift", row, shifts, direction="RIGHT")
        part = self.op("BitwiseAnd", shifted, self.constant(np.array((1 << width) - 1, np.uint8)))
        if left:
            part = self.op("BitShift", part, self.constant(np.array(left, np.uint8)), direction="LEFT")
        return self.op("Reshape", part, self.constant([-1]))

    def joined(self, packed: Sequence[ir.Value], bits: int) -> ir.Value:
        """Return ``step * u`` of codes in bit planes, uint8; with what they were padded by."""
        from .rounding import Grid

        total, low = None, bits
        for plane, width in zip(packed, planes(bits), strict=True):
            low -= width
            part = self.plane(plane, width, low + (Grid(bits).step - 1))
            total = part if total is None else self.op("BitwiseOr", total, part)
        assert total is not None
        return total

    def first(self, flat: ir.Value, shape: ir.Value) -> ir.Value:
        """Return as many entries as the shape has."""
        count = self.op("ReduceProd", shape, keepdims=1)
        return self.op("Slice", flat, self.constant([0]), count)

    def codes(self, steps: ir.Value, zero: ir.Value) -> ir.Value:
        """Return ``steps - zero``, int32."""
        return self.op("Sub", self.op("Cast", steps, to=_INT32), self.op("Cast", zero, to=_INT32))

    def function(self, name: str, result: ir.Value, opset: int) -> ir.Function:
        """Return the function that gives ``result``, its values with short names."""
        import onnx_ir as ir

        for number, node in enumerate(self.nodes):
            node.name = ""
            node.outputs[0].name = f"_{number}"
        graph = ir.Graph(self.inputs, [result], nodes=self.nodes, opset_imports={"": opset}, name=name)
        return ir.Function(DOMAIN, name, graph=graph, attributes={})
