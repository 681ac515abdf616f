"""Gemms as products of rows with a constant weight, and at most one number added for each output: the form that layers have.

What else an ONNX Gemm can say (operator Gemm: alpha, beta, transA, a C that is computed or of any shape that broadcasts) is said
by the constants, or by nodes before and behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir


def plain_gemms(model: ir.Model) -> ir.Model:
    """Return a model whose Gemms with constant weights are plain; its outputs stay what they are."""
    from onnxscript.rewriter import RewriteRule, RewriteRuleSet, rewrite

    def bare(op: Any, x: ir.Value, weight: ir.Value) -> Any:
        return op.Gemm(x, weight, _allow_other_attributes=True, _allow_other_inputs=False, _outputs=["y"])

    def added(op: Any, x: ir.Value, weight: ir.Value, c: ir.Value) -> Any:
        return op.Gemm(x, weight, c, _allow_other_attributes=True, _outputs=["y"])

    scaled = _Scaled()

    def plain(op: Any, **found: ir.Value) -> Any:
        return _plain(op, scaled, **found)

    rules = [RewriteRule(pattern, plain, _is_not_plain) for pattern in (bare, added)]
    return rewrite(model, pattern_rewrite_rules=RewriteRuleSet(rules))


class _Scaled:
    """Constants times a number, one for all nodes that read the same."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, float], ir.Value] = {}

    def __call__(self, op: Any, value: ir.Value, factor: float) -> ir.Value:
        import onnx_ir as ir

        assert value.const_value is not None
        if factor == 1.0:
            return value
        key = (value.name or "", factor)
        if key not in self._found:
            array = np.float32(factor) * value.const_value.numpy()
            self._found[key] = op.initializer(ir.tensor(array), name=f"{value.name}_times_{factor:g}")
        return self._found[key]


def _is_not_plain(context: Any, weight: ir.Value, y: ir.Value, c: ir.Value | None = None, **_: Any) -> bool:
    if weight.const_value is None:
        return False
    return _said(y) != (1.0, 1.0, 0) or not (c is None or _is_row(c))


def _said(y: ir.Value) -> tuple[float, float, int]:
    """Return alpha, beta and transA of the Gemm that writes a value."""
    attributes = y.producer().attributes  # type: ignore[union-attr]
    return (
        attributes.get_float("alpha", 1.0) or 0.0,
        attributes.get_float("beta", 1.0) or 0.0,
        attributes.get_int("transA", 0) or 0,
    )


def _is_row(c: ir.Value) -> bool:
    """Whether C is constant, with one number for each output or one for all."""
    return c.const_value is not None and c.const_value.size == ([*c.const_value.shape] or [1])[-1]


def _plain(op: Any, scaled: _Scaled, x: ir.Value, weight: ir.Value, y: ir.Value, c: ir.Value | None = None) -> Any:
    import onnx_ir as ir

    alpha, beta, turned = _said(y)
    x = op.Transpose(x, perm=[1, 0]) if turned else x
    weight = scaled(op, weight, alpha)
    order = y.producer().attributes.get_int("transB", 0)  # type: ignore[union-attr]
    if c is None:
        return op.Gemm(x, weight, transB=order)
    if c.const_value is not None:
        c = scaled(op, c, beta)
    elif beta != 1.0:
        c = op.Mul(c, op.initializer(ir.tensor(np.float32(beta)), name=f"{y.name}_beta"))
    return op.Gemm(x, weight, c, transB=order) if _is_row(c) else op.Add(op.Gemm(x, weight, transB=order), c)
