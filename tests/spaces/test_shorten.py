"""Residual blocks that are left out: what went past them is what the rest reads."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch.nn.functional import conv2d

from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.session import infer, open_session
from slimfront.spaces.shorten import residual_blocks, shortened

HEAD = '<ir_version: 8, opset_import: ["": 21]> g (float[1,3,8,8] x) => (float[n,c,h,w] y) {\n'


@pytest.fixture
def network(tmp_path):
    """Return a function that captures a network whose convolutions w0, w1, ... are 3x3, from 3 channels to 3."""

    def make(text: str):
        model, random = onnx.parser.parse_model(HEAD + text + " }"), np.random.default_rng(0)
        for number in range(text.count("Conv")):
            weight = random.standard_normal((3, 3, 3, 3)).astype(np.float32) / 5.0
            model.graph.initializer.append(numpy_helper.from_array(weight, f"w{number}"))
        onnx.save(model, tmp_path / "network.onnx")
        return capture_onnx(tmp_path / "network.onnx")

    return make


def conv(number: int, source: str, name: str) -> str:
    return f"[conv{number}] {name} = Conv<pads=[1,1,1,1]>({source}, w{number}) "


def outputs(graph, inputs):
    return infer(open_session(graph.to_bytes()), {"x": inputs}, 1)


def test_without_its_block_a_network_is_as_if_the_block_gave_zero(residual_model, tmp_path, pictures):
    graph = capture_onnx(residual_model)
    (block,) = residual_blocks(graph)
    assert [name for name in block.nodes if name in graph.layer_of_node] == ["b", "c"]
    short = shortened(graph, [block])
    assert list(short.layers) == ["a", "d", "e"]
    model = onnx.load(residual_model)
    for constant in model.graph.initializer:
        if constant.name in ("wc", "bc"):
            constant.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(constant)), constant.name))
    onnx.save(model, tmp_path / "zero.onnx")
    zero = capture_onnx(tmp_path / "zero.onnx")
    assert outputs(short, pictures(2, 0)) == pytest.approx(outputs(zero, pictures(2, 0)), abs=1e-5)
    assert list(graph.layers) == ["a", "b", "c", "d", "e"], "the graph itself stays"


def test_blocks_behind_each_other_and_within_each_other(network):
    graph = network(
        conv(0, "x", "a")
        + conv(1, "a", "b")
        + "[first] s = Add(a, b) "
        + conv(2, "s", "c")
        + "[second] t = Add(c, s) [around] u = Add(t, a) r = Relu(u) "
        + conv(3, "r", "y")
    )
    first, second = residual_blocks(graph)
    assert (first.name, second.name) == ("first", "second"), "and not the one around them"
    inputs = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    weights = {name: torch.tensor(graph.weight(layer)) for name, layer in graph.layers.items()}

    def conv_of(number: int, tensor: torch.Tensor) -> torch.Tensor:
        return conv2d(tensor, weights[f"conv{number}"], padding=1)

    a = conv_of(0, torch.from_numpy(inputs))
    for without, s in (([first, second], a), ([second], a + conv_of(1, a))):
        expected = conv_of(3, (s + a).relu())
        assert outputs(shortened(graph, without), inputs) == pytest.approx(expected.numpy(), abs=1e-5)
    t = conv_of(2, a) + a
    assert outputs(shortened(graph, [first]), inputs) == pytest.approx(conv_of(3, (t + a).relu()).numpy(), abs=1e-5)


def test_free_axes_hide_no_block(residual_model, tmp_path):
    model = onnx.load(residual_model)
    for axis, name in enumerate(("n", "c", "h", "w")):
        if axis != 1:
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    onnx.save(model, tmp_path / "free.onnx")
    graph = capture_onnx(tmp_path / "free.onnx", {"x": (1, 3, 16, 16)})
    assert len(residual_blocks(graph)) == 1


@pytest.mark.parametrize(
    "text",
    [
        conv(0, "x", "a") + conv(1, "a", "b") + conv(2, "x", "c") + "d = Mul(b, c) s = Add(a, d) " + conv(3, "s", "y"),
        conv(0, "x", "a") + conv(1, "a", "b") + "s = Add(a, b) t = Mul(s, b) " + conv(2, "t", "y"),
        conv(0, "x", "a") + conv(1, "x", "b") + "s = Add(a, b) " + conv(2, "s", "y"),
        conv(0, "x", "a") + "b = Relu(a) s = Add(a, b) " + conv(1, "s", "y"),
        conv(0, "x", "a") + "y = Add(x, a)",
    ],
    ids=["reads another", "is read elsewhere", "two branches", "no layer", "is the output"],
)
def test_other_sums_are_no_blocks(network, text):
    assert residual_blocks(network(text)) == []
