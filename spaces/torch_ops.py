"""What each ONNX op computes, in PyTorch: elementwise ops, matrix products, softmaxes and reductions.

An op is a function of the node, whose attributes it reads, and of the node's inputs, None where one is absent (ONNX
operators, opset 21 and later). It returns one output, or several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    import onnx_ir as ir

Op = Callable[..., "Tensor | Sequence[Tensor]"]


def whole_numbers(value: Tensor | None) -> list[int]:
    """Return a tensor's values as Python integers; of an input that is absent, none."""
    return [] if value is None else [int(each) for each in value.reshape(-1).tolist()]


def _plain(function: Callable[..., Tensor]) -> Op:
    """Return the op of a function of tensors that needs no attribute."""
    return lambda node, *inputs: function(*inputs)


def _with_floats(function: Callable[..., Tensor], **defaults: float) -> Op:
    """Return the op of a function of tensors and of attributes, in the order given."""

    def op(node: ir.Node, *inputs: Tensor) -> Tensor:
        return function(*inputs, *(node.attributes.get_float(name, value) for name, value in defaults.items()))

    return op


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Op:
    """Return the op of a function of two tensors, for any number of them."""

    def op(node: ir.Node, first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = function(first, other)
        return first

    return op


def _divide(dividend: Tensor, divisor: Tensor) -> Tensor:
    whole = not (dividend.is_floating_point() or divisor.is_floating_point())
    return torch.div(dividend, divisor, rounding_mode="trunc" if whole else None)


def _mod(node: ir.Node, dividend: Tensor, divisor: Tensor) -> Tensor:
    return torch.fmod(dividend, divisor) if node.attributes.get_int("fmod", 0) else torch.remainder(dividend, divisor)


def _clip(node: ir.Node, value: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    return value if low is None and high is None else torch.clamp(value, low, high)


def _gelu(node: ir.Node, value: Tensor) -> Tensor:
    return functional.gelu(value, approximate=node.attributes.get_string("approximate", "none"))


def _shrink(value: Tensor, bias: float, lambd: float) -> Tensor:
    zero = torch.zeros_like(value)
    return torch.where(value < -lambd, value + bias, torch.where(value > lambd, value - bias, zero))


def _cast(node: ir.Node, value: Tensor) -> Tensor:
    import onnx_ir as ir

    name = ir.DataType(node.attributes["to"].as_int()).numpy().name
    return value.to(getattr(torch, "bool" if name.startswith("bool") else name))


def _gemm(node: ir.Node, left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    left = left.T if node.attributes.get_int("transA", 0) else left
    right = right.T if node.attributes.get_int("transB", 0) else right
    product = node.attributes.get_float("alpha", 1.0) * (left @ right)
    return product if bias is None else product + node.attributes.get_float("beta", 1.0) * bias


def _softmax(function: Callable[..., Tensor]) -> Op:
    return lambda node, value: function(value, dim=node.attributes.get_int("axis", -1))


def _lp_normalization(node: ir.Node, value: Tensor) -> Tensor:
    norm = value.norm(p=node.attributes.get_int("p", 2), dim=node.attributes.get_int("axis", -1), keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(value), value / torch.where(norm == 0, torch.ones_like(norm), norm))


def _reduced(function: Callable[[Tensor, list[int], bool], Tensor]) -> Op:
    """Return the op of a function of a tensor, its axes, and whether they are kept with a size of 1."""

    def op(node: ir.Node, value: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = whole_numbers(axes)
        if not chosen and node.attributes.get_int("noop_with_empty_axes", 0) == 1:
            return function(value[None], [0], False)  # of single values
        keep = node.attributes.get_int("keepdims", 1) == 1
        return function(value, chosen or list(range(value.ndim)), keep).to(value.dtype)

    return op


def _product(value: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % value.ndim for axis in axes), reverse=True):
        value = value.prod(axis, keepdim=keep)
    return value


def _extreme(function: Callable[..., Tensor]) -> Op:
    """Return the op ArgMax or ArgMin."""

    def op(node: ir.Node, value: Tensor) -> Tensor:
        axis = node.attributes.get_int("axis", 0)
        last = bool(node.attributes.get_int("select_last_index", 0))
        found = function(value.flip(axis) if last else value, axis, bool(node.attributes.get_int("keepdims", 1)))
        return value.shape[axis] - 1 - found if last else found

    return op


UNARY = (
    "abs acos acosh asin asinh atan atanh ceil cos cosh erf exp floor isnan log neg reciprocal relu round sigmoid sign sin "
    "sinh sqrt tan tanh"
)
BINARY: dict[str, Callable[..., Tensor]] = {
    "Add": torch.add,
    "And": torch.logical_and,
    "Div": _divide,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "MatMul": torch.matmul,
    "Mul": torch.mul,
    "Or": torch.logical_or,
    "Pow": torch.pow,
    "Sub": torch.sub,
    "Xor": torch.logical_xor,
}
NAMES = {"Isnan": "IsNaN"}  # of ONNX, where it writes a function of torch in another way

OPS: dict[str, Op] = {
    **{NAMES.get(name.capitalize(), name.capitalize()): _plain(getattr(torch, name)) for name in UNARY.split()},
    **{name: _plain(function) for name, function in BINARY.items()},
    "Cast": _cast,
    "CastLike": _plain(lambda value, like: value.to(like.dtype)),
    "Celu": _with_floats(functional.celu, alpha=1.0),
    "Clip": _clip,
    "Elu": _with_floats(functional.elu, alpha=1.0),
    "Gelu": _gelu,
    "Gemm": _gemm,
    "HardSigmoid": _with_floats(lambda x, alpha, beta: torch.clamp(alpha * x + beta, 0, 1), alpha=0.2, beta=0.5),
    "HardSwish": _plain(functional.hardswish),
    "Identity": lambda node, value: value,
    "LeakyRelu": _with_floats(functional.leaky_relu, alpha=0.01),
    "LogSoftmax": _softmax(torch.log_softmax),
    "LpNormalization": _lp_normalization,
    "Max": _folded(torch.maximum),
    "Mean": lambda node, *values: sum(values[1:], values[0]) / len(values),
    "Min": _folded(torch.minimum),
    "Mish": _plain(functional.mish),
    "Mod": _mod,
    "Not": _plain(torch.logical_not),
    "PRelu": _plain(lambda value, slope: torch.where(value < 0, slope * value, value)),
    "Selu": _with_floats(
        lambda x, alpha, gamma: gamma * functional.elu(x, alpha),
        alpha=1.67326319217681884765625,
        gamma=1.0507009873554805,
    ),
    "Shrink": _with_floats(_shrink, bias=0.0, lambd=0.5),
    "Softmax": _softmax(torch.softmax),
    "Softplus": _plain(functional.softplus),
    "Softsign": _plain(functional.softsign),
    "Sum": _folded(torch.add),
    "Swish": _with_floats(lambda value, alpha: value * torch.sigmoid(alpha * value), alpha=1.0),
    "ThresholdedRelu": _with_floats(lambda x, alpha: torch.where(x > alpha, x, torch.zeros_like(x)), alpha=1.0),
    "Where": _plain(torch.where),
    "ArgMax": _extreme(torch.argmax),
    "ArgMin": _extreme(torch.argmin),
    "ReduceL1": _reduced(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "ReduceL2": _reduced(lambda x, axes, keep: torch.linalg.vector_norm(x, dim=axes, keepdim=keep)),
    "ReduceLogSum": _reduced(lambda x, axes, keep: x.sum(axes, keep).log()),
    "ReduceLogSumExp": _reduced(torch.logsumexp),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceMin": _reduced(torch.amin),
    "ReduceProd": _reduced(_product),
    "ReduceSum": _reduced(lambda x, axes, keep: x.sum(axes, keep)),
    "ReduceSumSquare": _reduced(lambda x, axes, keep: x.square().sum(axes, keep)),
}
