"""Multiply-adds against counting by hand."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.work import multiply_adds


def test_multiply_adds_of_every_kind_of_layer(tmp_path):
    shapes = {"w0": (8, 2, 3, 3), "w1": (8, 5, 2, 2), "w2": (16, 7)}
    weights = [
        numpy_helper.from_array(np.random.default_rng(0).standard_normal(shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], "grouped", pads=[1] * 4, strides=[2, 2], group=2),  # 8 x 4 x 4
        helper.make_node("ConvTranspose", ["a", "w1"], ["b"], "up", strides=[2, 2], group=1),  # 5 x 8 x 8
        helper.make_node("Reshape", ["b", "rows"], ["c"], "rows_of_16"),
        helper.make_node("MatMul", ["c", "w2"], ["y"], "mix"),
    ]
    graph = helper.make_graph(
        nodes,
        "kinds",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 20, 7])],
        [*weights, numpy_helper.from_array(np.array([1, 20, 16]), "rows")],
    )
    path = tmp_path / "kinds.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    grouped = (8 * 4 * 4) * (2 * 3 * 3)
    up = (8 * 4 * 4) * (5 * 2 * 2)
    mix = (20 * 7) * 16
    assert list(multiply_adds(capture_onnx(path)).values()) == [grouped, up, mix]
