"""Reshapes to a computed shape: told where the sizes that are known tell it, left alone where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from slimfront.spaces.capture import capture_onnx


def text(shape: str, nodes: str) -> str:
    """Return a convolution, and a Reshape of what it gives to the shape "s" that the nodes compute."""
    return (
        f"(float[{shape}] x) => (float[a,b,c] y) {{\n"
        f"[conv] h = Conv<pads=[1,1,1,1]>(x, w)\n{nodes}\n[fold] y = Reshape(h, s) }}"
    )


FOLDED = "t = Shape(h)\n u = Slice(t, zero, two)\n s = Concat<axis=0>(u, rest)"  # [N, C, -1]
MIXED = "t = Shape(h)\n n = Slice(t, zero, one)\n m = Mul(n, four)\n s = Concat<axis=0>(m, one, rest)"  # [4 N, 1, -1]
NUMBERS = {"zero": 0, "one": 1, "two": 2, "four": 4, "rest": -1}


@pytest.mark.parametrize(("nodes", "told"), [(FOLDED, [0, 6, -1]), (MIXED, None)])
def test_a_shape_is_told_where_one_axis_alone_is_left_over(onnx_file, weight, noise, run, reference, nodes, told):
    constants = {name: np.array([value], np.int64) for name, value in NUMBERS.items() if name in nodes}
    path = onnx_file(text("N,3,8,8", nodes), w=weight(6, 3, 3, 3), **constants)
    graph = capture_onnx(path, (2, 3, 8, 8))
    (fold,) = (node for node in graph.model.graph if node.op_type == "Reshape")
    found = fold.inputs[1].const_value
    assert (None if found is None else found.numpy().tolist()) == told
    assert ("Shape" in [node.op_type for node in graph.model.graph]) == (told is None)
    for batch in (1, 2, 5):
        x = noise(batch, 3, 8, 8, seed=batch)
        assert np.array_equal(reference(graph, x), run(path, x))
