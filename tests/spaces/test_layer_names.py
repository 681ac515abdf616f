"""Layers keep the names of the user's file, also where capture rewrites their nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from slimfront.spaces.capture import capture_onnx


def test_a_convolution_whose_zero_bias_is_dropped_keeps_its_name(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = {"w": random.standard_normal((4, 4, 3, 3)), "b": np.zeros(4), "v": random.standard_normal((4, 4, 3, 3))}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["a"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"], name="between"),
        helper.make_node("Conv", ["r", "v"], ["y"], name="second", pads=[1, 1, 1, 1]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 6, 6]) for name in ("x", "y")]
    initializers = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), tmp_path / "m.onnx")
    assert list(capture_onnx(tmp_path / "m.onnx").layers) == ["first", "second"]
