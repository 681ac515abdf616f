"""What the ops that compute tie and freeze: elementwise ops, layers, normalisation and statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .integer_ops import constant_input
from .recurrent import CELL, LENGTHS, PEEPHOLES, STATE, B, R, W, X, joined_weight
from .sizes import is_given

if TYPE_CHECKING:
    import onnx_ir as ir

    from .ties import Ties


def _elementwise(ties: Ties, node: ir.Node) -> None:
    for index, value in enumerate(node.inputs):
        if value is not None:
            ties.same(ties.name(node, index), node.outputs[0].name or "")


def _first_only(ties: Ties, node: ir.Node) -> None:
    """The other inputs are scalars."""
    ties.same(*ties.ends(node))


# --- layers ---------------------------------------------------------------------------------------------------------


def _convolution(ties: Ties, node: ir.Node) -> None:
    x, y = ties.ends(node)
    weight = ties.name(node, 1)
    if not ties.constant(weight):
        ties.unknown(node, "has computed weights")
        return
    transposed = node.op_type == "ConvTranspose"
    group = node.attributes.get_int("group", 1) or 1
    reads, writes = ties.units(x, 1), ties.units(y, 1)
    ties.same_axis(x, 0, y, 0)
    for name in (x, y, weight):
        ties.freeze(name, range(2, len(ties.shape(name))), "slides over them")
    if is_given(node, 2):
        _vector(ties, ties.name(node, 2), writes)
    over_all, within = (reads, writes) if transposed else (writes, reads)  # as the weight's axes 0 and 1 count them
    ties.tie(over_all, ties.units(weight, 0))
    if group == 1:
        ties.tie(within, ties.units(weight, 1))
    elif ties.shape(x)[1] == group:  # depthwise: a group is one input channel and goes with its outputs
        ties.tie(np.repeat(reads, len(writes) // group), writes)
        ties.freeze(weight, (1,), "has them in every group")
    else:
        _same_positions(ties, over_all, group)
        _same_positions(ties, within, group)
        if len(ties.units(weight, 1)):
            ties.tie(within, np.tile(ties.units(weight, 1), group))


def _same_positions(ties: Ties, units: np.ndarray, group: int) -> None:
    """The groups of a convolution stay of one size: the same positions go in each."""
    ties.together(units.reshape(group, -1).T)


def _vector(ties: Ties, name: str, units: np.ndarray) -> None:
    """Tie a tensor that has one entry for each unit to them."""
    for axis, size in enumerate(ties.shape(name)):
        if size == len(units) and size > 1:
            ties.tie(ties.units(name, axis), units)


def _gemm(ties: Ties, node: ir.Node) -> None:
    a, b, y = ties.name(node, 0), ties.name(node, 1), node.outputs[0].name or ""
    rows, columns = (1, 0) if node.attributes.get_int("transA", 0) else (0, 1)
    _product(ties, (a, columns), (b, 1 if node.attributes.get_int("transB", 0) else 0))
    ties.same_axis(a, rows, y, 0)
    ties.same_axis(b, 0 if node.attributes.get_int("transB", 0) else 1, y, 1)
    if is_given(node, 2):
        ties.same(ties.name(node, 2), y)


def _matmul(ties: Ties, node: ir.Node) -> None:
    a, b, y = ties.name(node, 0), ties.name(node, 1), node.outputs[0].name or ""
    rank_a, rank_b, rank = len(ties.shape(a)), len(ties.shape(b)), len(ties.shape(y))
    if rank_a < 2 or rank_b < 2:
        ties.unknown(node)
        return
    _product(ties, (a, rank_a - 1), (b, rank_b - 2))
    ties.same_axis(a, rank_a - 2, y, rank - 2)
    ties.same_axis(b, rank_b - 1, y, rank - 1)
    for name, own in ((a, rank_a), (b, rank_b)):
        for back in range(3, own + 1):
            if ties.shape(name)[-back] == ties.shape(y)[-back] > 1:
                ties.same_axis(name, own - back, y, rank - back)


def _recurrent(ties: Ties, node: ir.Node) -> None:
    """A hidden unit of all directions: its row of every gate, its column of R, its biases and states."""
    x, w, r = (ties.name(node, index) for index in (X, W, R))
    if any(ties.constant(name) for name in (w, r)) or joined_weight(node) is None:
        ties.unknown(node, "has weights of its own kind")
        return
    units = ties.units(r, 2)
    ties.freeze(w, (0,), "has them in every direction")
    ties.freeze(r, (0,), "has them in every direction")
    for name in (w, r, *(ties.name(node, index) for index in (B, PEEPHOLES) if is_given(node, index))):
        ties.tie(ties.units(name, 1), np.tile(units, ties.shape(name)[1] // ties.shape(r)[2]))
    ties.same_axis(x, 2, w, 2)
    ties.freeze(x, (0,), "runs along them")
    states = [node.outputs[0].name or "", *(value.name or "" for value in node.outputs[1:])]
    states += [ties.name(node, index) for index in (STATE, CELL) if is_given(node, index)]
    for name in filter(None, states):
        rank = len(ties.shape(name))
        ties.freeze(name, range(rank - 2), "runs along them")
        ties.tie(ties.units(name, rank - 1), units)
        ties.same_axis(name, rank - 2, x, 1)
    if is_given(node, LENGTHS):
        ties.freeze(ties.name(node, LENGTHS), (0,), "reads lengths there")


def _product(ties: Ties, first: tuple[str, int], second: tuple[str, int]) -> None:
    """Tie what a product sums over; of two computed tensors nothing there can go unnoticed."""
    if ties.constant(first[0]) or ties.constant(second[0]):
        ties.same_axis(*first, *second)
    else:
        for name, axis in (first, second):
            ties.freeze(name, (axis,), "sums over them")


# --- normalisation and statistics -----------------------------------------------------------------------------------


def _batch_norm(ties: Ties, node: ir.Node) -> None:
    x, y = ties.ends(node)
    ties.same(x, y)
    for index in range(1, len(node.inputs)):
        _vector(ties, ties.name(node, index), ties.units(x, 1))


def _instance_norm(ties: Ties, node: ir.Node) -> None:
    _batch_norm(ties, node)
    x, _ = ties.ends(node)
    ties.freeze(x, range(2, len(ties.shape(x))), "takes statistics over them")


def _group_norm(ties: Ties, node: ir.Node) -> None:
    """GroupNormalization: whole normalisation groups go."""
    _instance_norm(ties, node)
    units = ties.units(ties.ends(node)[0], 1)
    groups = node.attributes.get_int("num_groups", 1) or 1
    ties.together(units.reshape(groups, -1))
    if groups == 1:
        ties.freeze_units(units, "takes statistics over all of them")


def _over_axes(default_axis: int, onward: bool) -> Callable[[Ties, ir.Node], None]:
    """Ops that mix the entries of an axis (or of all axes from it on) and keep them: Softmax, LayerNormalization."""

    def rule(ties: Ties, node: ir.Node) -> None:
        x, y = ties.ends(node)
        rank = len(ties.shape(x))
        axis = (node.attributes.get_int("axis", default_axis) or 0) % rank
        ties.same(x, y)
        ties.freeze(x, range(axis, rank) if onward else (axis,), "takes statistics over them")
        for index, value in enumerate(node.inputs[1:], start=1):
            if value is not None:
                ties.same(ties.name(node, index), y)

    return rule


def _reduce(ties: Ties, node: ir.Node) -> None:
    given = constant_input(node, 1)
    if given is None and is_given(node, 1):
        ties.unknown(node)
        return
    axes = node.attributes.get_ints("axes", []) if given is None else given.tolist()
    if not axes and node.attributes.get_int("noop_with_empty_axes"):
        _first_only(ties, node)
    else:
        _reduced(ties, node, axes or range(len(ties.shape(ties.name(node, 0)))))


def _arg_reduce(ties: Ties, node: ir.Node) -> None:
    _reduced(ties, node, [node.attributes.get_int("axis", 0) or 0])


def _reduced(ties: Ties, node: ir.Node, axes: Iterable[int]) -> None:
    x, y = ties.ends(node)
    rank = len(ties.shape(x))
    reduced = {axis % rank for axis in axes}
    ties.freeze(x, sorted(reduced), "takes statistics over them")
    keeps = node.attributes.get_int("keepdims", 1)
    for number, axis in enumerate(axis for axis in range(rank) if axis not in reduced):
        ties.same_axis(x, axis, y, axis if keeps else number)


ELEMENTWISE = (
    "Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Mean", "Sum", "Mod", "Where", "PRelu", "And", "Or", "Xor",
    "Not", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "BitShift", "BitwiseAnd", "BitwiseOr",
    "BitwiseXor", "BitwiseNot",
)  # fmt: skip
FIRST_ONLY = (
    "Identity", "Cast", "CastLike", "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "ThresholdedRelu",
    "HardSigmoid", "HardSwish", "Mish", "Softplus", "Softsign", "Sigmoid", "Tanh", "Gelu", "Swish", "Erf",
    "Exp", "Log", "Sqrt", "Reciprocal", "Abs", "Neg", "Sign", "Floor", "Ceil", "Round", "Clip", "Shrink", "Sin",
    "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Dropout", "IsNaN",
    "IsInf",
)  # fmt: skip
REDUCTIONS = (
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceProd",
    "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp",
)  # fmt: skip
RULES: Mapping[str, Callable[[Any, Any], None]] = (
    dict.fromkeys(ELEMENTWISE, _elementwise)
    | dict.fromkeys(FIRST_ONLY, _first_only)
    | dict.fromkeys(REDUCTIONS, _reduce)
    | dict.fromkeys(("ArgMax", "ArgMin"), _arg_reduce)
    | dict.fromkeys(("Conv", "ConvTranspose"), _convolution)
    | dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "LpNormalization"), _over_axes(-1, onward=False))
    | dict.fromkeys(("LayerNormalization", "RMSNormalization"), _over_axes(-1, onward=True))
    | {
        "Gemm": _gemm,
        "MatMul": _matmul,
        "LSTM": _recurrent,
        "GRU": _recurrent,
        "BatchNormalization": _batch_norm,
        "InstanceNormalization": _instance_norm,
        "GroupNormalization": _group_norm,
    }
)
