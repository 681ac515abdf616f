"""Ops that float kernels run faster in another form, exactly the same function: fixed rules of the build.

A candidate with nothing compressed stays as it came. Not here, since they were found to be no slower as they are: DepthToSpace,
nearest Resize (which knows the blocked layout of the convolutions), ConvTranspose of a stride above 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .integer_ops import constant_input, slope_per_channel

if TYPE_CHECKING:
    import onnx_ir as ir

    from .lowering import Lowering


def float_op(lowering: Lowering, node: ir.Node) -> bool:
    """Write a float node in its faster form; False where it has none."""
    return node.op_type in FLOAT_OPS and lowering.candidate.rewritten and FLOAT_OPS[node.op_type](lowering, node)


def _prelu(lowering: Lowering, node: ir.Node) -> bool:
    """PRelu of one slope is LeakyRelu, which the convolution before it takes up.

    With a slope for each channel it is slope * x + (1 - slope) * relu(x), two depthwise convolutions in the layout of the
    convolution before it, where the op itself would leave that layout.
    """
    slope = constant_input(node, 1)
    if slope is None or node.inputs[0] is None:
        return False
    source, target = node.inputs[0].name or "", node.outputs[0].name or ""
    if lowering.reads_integer(source):
        return False  # ONNX Runtime would run its integer kernels, where the candidate says float
    if np.all(slope == slope.flat[0]):
        result = lowering.emitter.op("LeakyRelu", lowering.float_value(source), alpha=float(slope.flat[0]))
        lowering.set_float(target, result)
        return True
    writer = node.inputs[0].producer()
    if not slope_per_channel(lowering.graph.shapes[source], slope.shape) or writer is None or writer.op_type != "Conv":
        return False
    x = lowering.float_value(source)
    parts = [
        _scaled(lowering, x, slope.reshape(-1)),
        _scaled(lowering, lowering.emitter.op("Relu", x), 1 - slope.reshape(-1)),
    ]
    lowering.set_float(target, lowering.emitter.op("Add", *parts))
    return True


def _scaled(lowering: Lowering, value: ir.Value, factors: np.ndarray) -> ir.Value:
    weight = lowering.emitter.constant(factors.astype(np.float32).reshape(-1, 1, 1, 1))
    return lowering.emitter.op("Conv", value, weight, group=len(factors), kernel_shape=[1, 1])


FLOAT_OPS: Mapping[str, Callable[[Any, Any], bool]] = {"PRelu": _prelu}
