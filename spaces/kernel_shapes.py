"""Shapes in the graph that ONNX Runtime made of a file: standard ops by ONNX's own inference, the runtime's by the rules here.

The rules are those of the operators' documentation (ONNX Runtime, ContribOperators.md and the NCHWc ops of its layout
transformer). An op without a rule has outputs of unknown shape, and so has what follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

SMALL = 4096  # values of an initializer that inference may want to see: shapes, axes, pads
SHAPE_OPS = ("Concat", "Gather", "Slice", "Squeeze", "Unsqueeze", "Cast", "Add", "Sub", "Mul", "Div", "Reshape")
FLOAT, UINT8, INT8, INT64 = 1, 2, 3, 7  # onnx.TensorProto.DataType


@dataclass(frozen=True)
class Tensor:
    """Element type (`onnx.TensorProto.DataType`) and shape of a tensor; None where the shape is not known."""

    dtype: int
    shape: tuple[int, ...] | None


Attributes = Mapping[str, Any]
Rule = Callable[[Sequence[Tensor | None], Attributes], list[Tensor | None]]


def tensors(model: onnx.ModelProto, inputs: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return type and shape of all tensors of a graph by name, as far as they can be told.

    Args:
        model: as ONNX Runtime wrote it.
        inputs: the shapes to measure at, by input name.
    """
    import onnx

    graph = model.graph
    known = {
        port.name: Tensor(port.type.tensor_type.elem_type, tuple(inputs[port.name]) if port.name in inputs else None)
        for port in graph.input
    }
    known |= {value.name: Tensor(value.data_type, tuple(value.dims)) for value in graph.initializer}
    values = {value.name: value for value in graph.initializer if np.prod(value.dims, dtype=float) <= SMALL}
    filled = _blocked_channels(graph, known)
    for node in graph.node:
        before = [known.get(name) for name in node.input]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        rule = RULES.get(f"{node.domain}.{node.op_type}")
        if rule is not None:
            found = rule(before, attributes) if before and before[0] is not None else []
            found = [_filled(tensor, filled.get(name)) for name, tensor in zip(node.output, found, strict=False)]
        else:
            found = _standard(node, before, values, model.opset_import)
        known |= {name: tensor for name, tensor in zip(node.output, found, strict=False) if name and tensor is not None}
        values |= _computed(node, before, values, model.opset_import)
    return known


def _blocked_channels(graph: onnx.GraphProto, known: Mapping[str, Tensor]) -> dict[str, int]:
    """Return, by name of what was brought into the blocked layout, its channels with those that fill the last block.

    How long a block is depends on the processor; the convolutions that read the tensor have weights for all of it.
    """
    made = {name for node in graph.node if node.op_type == "ReorderInput" for name in node.output}
    convolutions = [node for node in graph.node if node.domain == BLOCKED and node.op_type == "Conv"]
    found = {}
    for node in convolutions:
        group = next((a.i for a in node.attribute if a.name == "group"), 1)
        weight = known.get(node.input[1])
        if node.input[0] in made and weight is not None and weight.shape is not None:
            found[node.input[0]] = weight.shape[1] * group if weight.shape[1] > 1 else weight.shape[0]
    return found


def _filled(tensor: Tensor | None, channels: int | None) -> Tensor | None:
    if tensor is None or tensor.shape is None or channels is None:
        return tensor
    return Tensor(tensor.dtype, (tensor.shape[0], channels, *tensor.shape[2:]))


def _computed(
    node: onnx.NodeProto, inputs: Sequence[Tensor | None], values: Mapping[str, Any], opsets: Sequence[Any]
) -> dict[str, Any]:
    """Return the outputs of a node that computes with shapes, as stored values by name."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    if node.domain not in ("", "ai.onnx"):
        return {}
    if node.op_type == "Shape":
        shape = inputs[0].shape if inputs and inputs[0] is not None else None
        results = [None if shape is None else np.array(shape[_part(node)], np.int64)]
    elif node.op_type in SHAPE_OPS and all(not name or name in values for name in node.input):
        feeds = {name: onnx.numpy_helper.to_array(values[name]) for name in node.input if name}
        try:
            evaluator = ReferenceEvaluator(node, opsets={o.domain: o.version for o in opsets})
            results = [np.asarray(result) for result in evaluator.run(None, feeds)]
        except Exception:  # an op that the evaluator lacks: what follows stays unknown
            return {}
    else:
        return {}
    found = {name: result for name, result in zip(node.output, results, strict=True) if result is not None}
    return {name: onnx.numpy_helper.from_array(np.asarray(result), name) for name, result in found.items()}


def _part(node: onnx.NodeProto) -> slice:
    ends = {attribute.name: attribute.i for attribute in node.attribute}
    return slice(ends.get("start"), ends.get("end"))


def _standard(
    node: onnx.NodeProto, inputs: Sequence[Tensor | None], values: Mapping[str, Any], opsets: Sequence[Any]
) -> list[Tensor | None]:
    """Infer the outputs of a node of ONNX's own operator set."""
    import onnx

    if node.domain not in ("", "ai.onnx"):
        return []
    types = {}
    for name, tensor in zip(node.input, inputs, strict=True):
        if tensor is not None:
            types[name] = onnx.helper.make_tensor_type_proto(tensor.dtype, tensor.shape)
    version = next((o.version for o in opsets if o.domain in ("", "ai.onnx")), 21)
    try:
        schema = onnx.defs.get_schema(node.op_type, min(version, onnx.defs.onnx_opset_version()), "")
        data = {name: values[name] for name in node.input if name in values}
        found = onnx.shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=list(opsets))
    except Exception:  # what cannot be told stays unknown; a wrong graph would not have been opened
        return []
    return [_tensor(found[name]) if name in found else None for name in node.output]


def _tensor(kind: onnx.TypeProto) -> Tensor:
    tensor = kind.tensor_type
    if not tensor.HasField("shape") or any(not dim.HasField("dim_value") for dim in tensor.shape.dim):
        return Tensor(tensor.elem_type, None)
    return Tensor(tensor.elem_type, tuple(dim.dim_value for dim in tensor.shape.dim))


def _same(inputs: Sequence[Tensor | None], _: Attributes) -> list[Tensor | None]:
    return [inputs[0]]


def _float_of(inputs: Sequence[Tensor | None], _: Attributes) -> list[Tensor | None]:
    return [None if inputs[0] is None else Tensor(FLOAT, inputs[0].shape)]


def _reorder_output(inputs: Sequence[Tensor | None], attributes: Attributes) -> list[Tensor | None]:
    """The blocked layout is left: channels that filled the last block go, and may come last."""
    x = inputs[0]
    if x is None or x.shape is None:
        return [x]
    batch, _, *spatial = x.shape
    channels = int(attributes["channels"])
    last = attributes.get("channels_last", 0)
    return [Tensor(x.dtype, (batch, *spatial, channels) if last else (batch, channels, *spatial))]


def _reorder_input(inputs: Sequence[Tensor | None], attributes: Attributes) -> list[Tensor | None]:
    x = inputs[0]
    if x is None or x.shape is None or not attributes.get("channels_last", 0):
        return [x]
    batch, *spatial, channels = x.shape
    return [Tensor(x.dtype, (batch, channels, *spatial))]


def _pooled(
    shape: Sequence[int], kernel: Sequence[int], attributes: Attributes, ceil: bool = False
) -> tuple[int, ...] | None:
    """Return the spatial sizes after a window was moved over them (ONNX operators Conv and MaxPool)."""
    count = len(shape)
    strides = attributes.get("strides") or [1] * count
    dilations = attributes.get("dilations") or [1] * count
    pads = attributes.get("pads") or [0] * 2 * count
    if attributes.get("auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER"):
        return tuple(-(-size // stride) for size, stride in zip(shape, strides, strict=True))
    sizes = []
    for axis, size in enumerate(shape):
        room = size + pads[axis] + pads[count + axis] - (dilations[axis] * (kernel[axis] - 1) + 1)
        sizes.append((-(-room // strides[axis]) if ceil else room // strides[axis]) + 1)
    return tuple(sizes)


def _convolved(x: Tensor | None, weight: Tensor | None, attributes: Attributes, last: bool) -> Tensor | None:
    if x is None or weight is None or x.shape is None or weight.shape is None:
        return x and Tensor(x.dtype, None)
    spatial = x.shape[1:-1] if last else x.shape[2:]
    kernel = attributes.get("kernel_shape") or weight.shape[2:]
    after = _pooled(spatial, kernel, attributes) or ()
    outputs = weight.shape[0]
    return Tensor(x.dtype, (x.shape[0], *after, outputs) if last else (x.shape[0], outputs, *after))


def _conv(inputs: Sequence[Tensor | None], attributes: Attributes) -> list[Tensor | None]:
    return [_convolved(inputs[0], inputs[1], attributes, last=False)]


def _nhwc_conv(inputs: Sequence[Tensor | None], attributes: Attributes) -> list[Tensor | None]:
    return [_convolved(inputs[0], inputs[1], attributes, last=True)]


def _integer_conv(inputs: Sequence[Tensor | None], attributes: Attributes) -> list[Tensor | None]:
    return [_convolved(inputs[0], inputs[3], attributes, last=bool(attributes.get("channels_last", 0)))]


def _pool(inputs: Sequence[Tensor | None], attributes: Attributes, last: bool = False) -> list[Tensor | None]:
    x = inputs[0]
    if x is None or x.shape is None:
        return [x]
    spatial = x.shape[1:-1] if last else x.shape[2:]
    after = _pooled(spatial, attributes["kernel_shape"], attributes, bool(attributes.get("ceil_mode", 0))) or ()
    return [Tensor(x.dtype, (x.shape[0], *after, x.shape[-1]) if last else (*x.shape[:2], *after))]


def _nhwc_pool(inputs: Sequence[Tensor | None], attributes: Attributes) -> list[Tensor | None]:
    return _pool(inputs, attributes, last=bool(attributes.get("channels_last", 1)))


def _global_pool(inputs: Sequence[Tensor | None], attributes: Attributes) -> list[Tensor | None]:
    x = inputs[0]
    if x is None or x.shape is None:
        return [x]
    if attributes.get("channels_last", 0):
        return [Tensor(x.dtype, (x.shape[0], *[1] * (len(x.shape) - 2), x.shape[-1]))]
    return [Tensor(x.dtype, (*x.shape[:2], *[1] * (len(x.shape) - 2)))]


def _upsampled(inputs: Sequence[Tensor | None], attributes: Attributes) -> list[Tensor | None]:
    x = inputs[0]
    if x is None or x.shape is None:
        return [x]
    return [Tensor(x.dtype, tuple(size * s for size, s in zip(x.shape, attributes["scales"], strict=True)))]


def _broadcast(first: Tensor | None, second: Tensor | None) -> list[Tensor | None]:
    if first is None or second is None or first.shape is None or second.shape is None:
        return [first and Tensor(first.dtype, None)]
    return [Tensor(first.dtype, np.broadcast_shapes(first.shape, second.shape))]


def _integer_pair(inputs: Sequence[Tensor | None], _: Attributes) -> list[Tensor | None]:
    """QLinearAdd and QLinearMul: (a, scale, zero, b, scale, zero, ...)."""
    return _broadcast(inputs[0], inputs[3])


def _integer_concat(inputs: Sequence[Tensor | None], attributes: Attributes) -> list[Tensor | None]:
    """QLinearConcat: (scale, zero, then tensor, scale, zero of each)."""
    parts = inputs[2::3]
    if any(part is None or part.shape is None for part in parts):
        return [Tensor(UINT8, None)]
    shapes = [list(part.shape) for part in parts if part is not None and part.shape is not None]
    axis = int(attributes["axis"])
    shapes[0][axis] = sum(shape[axis] for shape in shapes)
    return [Tensor(UINT8, tuple(shapes[0]))]


def _product(first: Tensor | None, second: Tensor | None, attributes: Attributes, dtype: int) -> list[Tensor | None]:
    if first is None or second is None or first.shape is None or second.shape is None:
        return [Tensor(dtype, None)]
    a, b = list(first.shape), list(second.shape)
    if attributes.get("transA", 0):
        a[-2:] = a[:-3:-1]
    if attributes.get("transB", 0):
        b[-2:] = b[:-3:-1]
    if len(a) < 2 or len(b) < 2:
        return [Tensor(dtype, None)]
    return [Tensor(dtype, (*np.broadcast_shapes(tuple(a[:-2]), tuple(b[:-2])), a[-2], b[-1]))]


def _matmul(inputs: Sequence[Tensor | None], attributes: Attributes) -> list[Tensor | None]:
    return _product(inputs[0], inputs[1], attributes, FLOAT)


def _integer_matmul(inputs: Sequence[Tensor | None], attributes: Attributes) -> list[Tensor | None]:
    return _product(inputs[0], inputs[3], attributes, UINT8)


def _integer_gemm(inputs: Sequence[Tensor | None], attributes: Attributes) -> list[Tensor | None]:
    return _product(inputs[0], inputs[3], attributes, UINT8 if len(inputs) > 7 and inputs[7] is not None else FLOAT)


def _dynamic_lstm(inputs: Sequence[Tensor | None], attributes: Attributes) -> list[Tensor | None]:
    """DynamicQuantizeLSTM: (x, weights, ...) to all states, the last ones and the last cells."""
    x, weight = inputs[:2]
    if x is None or weight is None or x.shape is None or weight.shape is None:
        return [Tensor(FLOAT, None)] * 3
    (steps, batch, _), directions, hidden = x.shape, weight.shape[0], int(attributes["hidden_size"])
    last = Tensor(FLOAT, (directions, batch, hidden))
    return [Tensor(FLOAT, (steps, directions, batch, hidden)), last, last]


CONTRIB, BLOCKED = "com.microsoft", "com.microsoft.nchwc"

RULES: dict[str, Rule] = {
    f"{BLOCKED}.ReorderInput": _reorder_input,
    f"{BLOCKED}.ReorderOutput": _reorder_output,
    f"{BLOCKED}.Conv": _conv,
    f"{BLOCKED}.MaxPool": _pool,
    f"{BLOCKED}.AveragePool": _pool,
    f"{BLOCKED}.GlobalMaxPool": _global_pool,
    f"{BLOCKED}.GlobalAveragePool": _global_pool,
    f"{BLOCKED}.Upsample": _upsampled,
    f"{CONTRIB}.FusedConv": _conv,
    f"{CONTRIB}.NhwcFusedConv": _nhwc_conv,
    f"{CONTRIB}.QLinearConv": _integer_conv,
    ".QLinearConv": _integer_conv,
    f"{CONTRIB}.NhwcMaxPool": _nhwc_pool,
    f"{CONTRIB}.QLinearAveragePool": lambda inputs, a: _pool(inputs, a, last=bool(a.get("channels_last", 0))),
    f"{CONTRIB}.QLinearGlobalAveragePool": _global_pool,
    f"{CONTRIB}.QLinearAdd": _integer_pair,
    f"{CONTRIB}.QLinearMul": _integer_pair,
    f"{CONTRIB}.QLinearConcat": _integer_concat,
    f"{CONTRIB}.QLinearLeakyRelu": _same,
    f"{CONTRIB}.QLinearSigmoid": _same,
    f"{CONTRIB}.QLinearSoftmax": _same,
    f"{CONTRIB}.MatMulIntegerToFloat": _matmul,
    f"{CONTRIB}.DynamicQuantizeMatMul": _matmul,
    f"{CONTRIB}.DynamicQuantizeLSTM": _dynamic_lstm,
    f"{CONTRIB}.FusedMatMul": _matmul,
    f"{CONTRIB}.FusedGemm": _matmul,
    f"{CONTRIB}.QGemm": _integer_gemm,
    ".QLinearMatMul": _integer_matmul,
    f"{CONTRIB}.Gelu": _same,
    f"{CONTRIB}.FastGelu": _same,
    f"{CONTRIB}.BiasGelu": _same,
    f"{CONTRIB}.QuickGelu": _same,
    f"{CONTRIB}.BiasSoftmax": _same,
    f"{CONTRIB}.SkipLayerNormalization": _same,
    f"{CONTRIB}.DequantizeLinear": _float_of,
    f"{CONTRIB}.QuantizeLinear": lambda inputs, _: [inputs[0] and Tensor(UINT8, inputs[0].shape)],
}
