"""Pixel shuffles in the channel order that runs fast: of each block, position first (DCR), not channel first (CRD)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

ELEMENTWISE = (
    "Relu",
    "LeakyRelu",
    "Clip",
    "Sigmoid",
    "Tanh",
    "HardSwish",
    "HardSigmoid",
    "Elu",
    "Gelu",
    "Softplus",
    "Cast",
)


def reorder_shuffles(model: ir.Model) -> None:
    """Turn each DepthToSpace of PyTorch's order (CRD) that follows a convolution into ONNX's own (DCR), in place.

    The convolution's output channels are permuted to make good for it, so the model's outputs stay the same. In DCR order a
    channels-last shuffle moves whole channel vectors (ONNX operator DepthToSpace, attribute ``mode``).
    """
    for node in model.graph:
        if node.op_type != "DepthToSpace" or node.attributes.get_string("mode", "DCR") != "CRD":
            continue
        convolution = _writer(model, node)
        if convolution is None:
            continue
        block = node.attributes.get_int("blocksize", 1) or 1
        for value in convolution.inputs[1:]:
            if value is not None:
                _permute(value, block)
        node.attributes.pop("mode")


def _writer(model: ir.Model, shuffle: ir.Node) -> ir.Node | None:
    """Return the convolution whose output channels nobody but the shuffle sees."""
    outputs = set(model.graph.outputs)
    node: ir.Node | None = shuffle
    while node is not None:
        value = node.inputs[0]
        if value is None or len(value.uses()) != 1 or value in outputs:
            return None
        node = value.producer()
        if node is not None and node.op_type == "Conv":
            constants = [v for v in node.inputs[1:] if v is not None]
            alone = all(v.const_value is not None and len(v.uses()) == 1 and v not in outputs for v in constants)
            return node if alone and node.attributes.get_int("group", 1) == 1 else None
        if node is None or node.op_type not in ELEMENTWISE:
            return None
    return None


def _permute(value: ir.Value, block: int) -> None:
    import onnx_ir as ir

    assert value.const_value is not None
    array = value.const_value.numpy()
    split = array.reshape(-1, block * block, *array.shape[1:])  # [C, block * block, ...]
    value.const_value = ir.tensor(np.ascontiguousarray(np.swapaxes(split, 0, 1).reshape(array.shape)), name=value.name)
