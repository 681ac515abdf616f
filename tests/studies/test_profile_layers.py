"""The times of a profile are told apart by layer, whatever the runtime calls its kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slimfront.objectives.kernel_profile import KernelProfile
from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate
from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.kernel_shapes import FLOAT, Tensor
from slimfront.spaces.kernels import Kernel
from slimfront.studies.profile import layer_times


def kernel(node: str, output: str, op: str, read: str, weight: bool) -> Kernel:
    image, weights = Tensor(FLOAT, (1, 16, 16, 16)), Tensor(FLOAT, (16, 16, 3, 3))
    inputs, constants = ((image, weights), (False, True)) if weight else ((image,), (False,))
    return Kernel(node, output, op, inputs, (image,), constants, (), (read, "w")[: len(inputs)], (output,))


@pytest.mark.parametrize("style", ["plain", "blocked layout", "fused"])
def test_kernels_go_to_their_layers_whatever_the_runtime_calls_them(style: str, tiny_model: Path):
    graph = capture_onnx(tiny_model)
    built = Builder(graph, {}).build(Candidate())
    convs = [node.outputs[0].name or "" for node in built.model.graph if node.op_type == "Conv"]
    relus = [node.outputs[0].name or "" for node in built.model.graph if node.op_type == "Relu"]
    last = next(node.outputs[0].name or "" for node in built.model.graph if node.outputs[0].is_graph_output())
    outputs = {"plain": convs, "fused": [*relus, last], "blocked layout": ["t0", "t1", "t2"]}[style]
    nodes = [f"{name}_nchwc" for name in (*relus, convs[-1])] if style == "blocked layout" else [""] * 3
    reads = ["x", *outputs]
    kernels = [kernel(nodes[i], outputs[i], "Conv", reads[i], True) for i in range(3)]
    kernels.append(kernel("", "out", "ReorderOutput", outputs[-1], False))
    slow, usual = [9.0] * 4, [0.1, 0.2, 0.3, 0.05]
    profiled = KernelProfile(kernels, np.array([usual, slow, usual]), np.ones(3))
    times = layer_times(profiled, built, graph)
    assert times == pytest.approx({"conv0": 0.1, "conv1": 0.2, "conv2": 0.3, "": 0.05})
