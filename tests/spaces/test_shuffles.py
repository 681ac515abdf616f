"""Pixel shuffles of PyTorch's order become those of ONNX's own; that the outputs stay the same is checked by capture itself."""

from __future__ import annotations

import numpy as np
import pytest


def shuffle_mode(graph) -> str:
    node = next(node for node in graph.model.graph if node.op_type == "DepthToSpace")
    return node.attributes.get_string("mode", "DCR")


@pytest.mark.parametrize("between", ["z = Relu(a)", "z = LeakyRelu<alpha=0.1>(a)", "z = Identity(a)"])
@pytest.mark.parametrize("block", [2, 3])
def test_the_order_moves_into_the_convolution(between, block, capture, weight):
    channels = 5 * block * block
    w, b = weight(channels, 4, 3, 3), weight(channels)
    graph = capture(
        f'(float[1,4,6,6] x) => (float[n,c,h,w] y) {{ [k] a = Conv<pads=[1,1,1,1]>(x, w, b)\n {between}\n'
        f' y = DepthToSpace<blocksize={block},mode="CRD">(z) }}',
        w=w, b=b,
    )  # fmt: skip
    assert shuffle_mode(graph) == "DCR"
    found = graph.weight(graph.layers["k"])
    for channel in range(5):
        for position in range(block * block):
            assert np.array_equal(found[position * 5 + channel], w[channel * block * block + position])


@pytest.mark.parametrize(
    "body",
    [
        '[k] a = Conv(x, w)\n y = DepthToSpace<blocksize=2,mode="CRD">(a)\n z = Relu(a)',
        '[k] a = Conv(x, w)\n [l] z = Conv(x, w)\n y = DepthToSpace<blocksize=2,mode="CRD">(a)',
        '[k] a = Conv<group=2>(x, v)\n y = DepthToSpace<blocksize=2,mode="CRD">(a)\n z = Relu(x)',
        'a = InstanceNormalization(x, s, s)\n y = DepthToSpace<blocksize=2,mode="CRD">(a)\n z = Relu(x)',
    ],
    ids=["seen by others", "weights shared", "grouped", "no convolution"],
)
def test_the_order_stays_where_somebody_else_would_notice(body, capture, weight):
    graph = capture(
        f"(float[1,8,6,6] x) => (float[n,c,h,w] y, float[n,d,i,j] z) {{ {body} }}",
        w=weight(8, 8, 1, 1), v=weight(8, 4, 1, 1), s=weight(8) + 2,
    )  # fmt: skip
    assert shuffle_mode(graph) == "CRD"
