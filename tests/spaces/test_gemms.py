"""Gemms of every form are layers, and every candidate of them computes what the model does."""

from __future__ import annotations

import numpy as np
import pytest

from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.capture import capture_onnx

ROWS, INPUTS, OUTPUTS = 6, 8, 6  # as many rows as outputs: a C of [M, 1] has as many numbers as one of [N]
ADDED = {"one": (), "row": (OUTPUTS,), "row_of_two": (1, OUTPUTS), "column": (ROWS, 1), "whole": (ROWS, OUTPUTS)}


def text(attributes: str, added: str = "c") -> str:
    """Return a product in a row with one whose attributes are plain, as ONNX's text."""
    turned = "transA=1" in attributes
    shape = f"{INPUTS},{ROWS}" if turned else f"{ROWS},{INPUTS}"
    inputs = "x, w, c" if added else "x, w"
    return (
        f"(float[{shape}] x) => (float[{ROWS},{OUTPUTS}] y) {{\n"
        f"[first] h = Gemm<{attributes}>({inputs})\n r = Relu(h)\n [second] y = Gemm(r, v) }}"
    )


@pytest.mark.parametrize(
    "attributes", ["alpha=0.5", "beta=2.0", "transA=1", "alpha=0.5,beta=2.0,transA=1,transB=1", "transB=0"]
)
@pytest.mark.parametrize("added", ["", *ADDED])
def test_a_gemm_of_any_form_is_a_layer_and_computes_the_same(
    onnx_file, weight, noise, run, reference, attributes, added
):
    weights = {"w": weight(*((OUTPUTS, INPUTS) if "transB=1" in attributes else (INPUTS, OUTPUTS)))}
    weights |= {"c": weight(*ADDED[added])} if added else {}
    path = onnx_file(text(attributes, added), **weights, v=weight(OUTPUTS, OUTPUTS, seed=1))
    graph = capture_onnx(path)
    assert [layer.op for layer in graph.layers.values()] == ["Gemm", "Gemm"]
    x = noise(*graph.inputs[0].shape)
    expected = run(path, x)
    np.testing.assert_allclose(reference(graph, x), expected, rtol=1e-5, atol=1e-5)
    builder = Builder(graph, {"x": x})
    for activation_bits in (8, 32):
        candidate = Candidate(dict.fromkeys(graph.layers, LayerChoice(8, activation_bits)))
        found = run(builder.build(candidate), x)
        assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_weights_that_two_products_read_scaled_differently_stay_apart(onnx_file, weight, noise, run, reference):
    source = (
        f"(float[{ROWS},{INPUTS}] x, float[{ROWS},{OUTPUTS}] z) => (float[{ROWS},{OUTPUTS}] y) {{\n"
        "n = Neg(x)\n [a] p = Gemm<alpha=0.5,beta=3.0>(x, w, z)\n [b] q = Gemm<alpha=2.0>(x, w)\n [c] r = Gemm<alpha=2.0>(n, w)\n"
        "[d] s = Gemm(x, w)\n t = Add(p, q)\n u = Add(r, s)\n y = Add(t, u) }"
    )
    path = onnx_file(source, w=weight(INPUTS, OUTPUTS))
    graph = capture_onnx(path)
    assert sorted(len(layer.nodes) for layer in graph.layers.values()) == [1, 1, 2]
    feed = {"x": noise(ROWS, INPUTS), "z": noise(ROWS, OUTPUTS)}
    np.testing.assert_allclose(reference(graph, feed), run(path, feed), rtol=1e-5, atol=1e-5)
