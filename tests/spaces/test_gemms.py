"""Gemms of every form are layers, and every candidate of them computes what the model does."""

from __future__ import annotations

import numpy as np
import pytest

from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.capture import capture_onnx

ROWS, INPUTS, OUTPUTS = 6, 8, 6  # as many rows as outputs: a C of [M, 1] has as many numbers as one of [N]
ADDED = {"one": (), "row": (OUTPUTS,), "row of two": (1, OUTPUTS), "column": (ROWS, 1), "whole": (ROWS, OUTPUTS)}


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
    "attributes", ["alpha=0.5", "beta=2.0", "beta=0.0", "transA=1", "alpha=0.5,beta=2.0,transA=1,transB=1", "transB=0"]
)
@pytest.mark.parametrize("added", ["", *ADDED])
def test_a_gemm_of_any_form_is_a_layer_and_computes_the_same(
    onnx_file, weight, noise, run, reference, attributes, added
):
    weights = {"w": weight(*((OUTPUTS, INPUTS) if "transB=1" in attributes else (INPUTS, OUTPUTS)))}
    weights |= {"c": weight(*ADDED[added])} if added else {}
    path = onnx_file(text(attributes, added), **weights, v=weight(OUTPUTS, OUTPUTS, seed=1))
    graph = capture_onnx(path)
    assert {name: layer.op for name, layer in graph.layers.items()} == {"first": "Gemm", "second": "Gemm"}
    x = noise(*graph.inputs[0].shape)
    expected = run(path, x)
    np.testing.assert_allclose(reference(graph, x), expected, rtol=1e-5, atol=1e-5)
    builder = Builder(graph, {"x": x})
    for activation_bits in (8, 32):
        candidate = Candidate(dict.fromkeys(graph.layers, LayerChoice(8, activation_bits)))
        found = run(builder.build(candidate), x)
        assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


# a model of one weight "w" [8, 6], and the names of the layers that it has
MODELS = {
    "one weight, scaled in several ways": (
        "n = Neg(x)\n [a] p = Gemm<alpha=0.5,beta=3.0>(x, w, z)\n [b] q = Gemm<alpha=2.0>(x, w)\n"
        "[c] r = Gemm<alpha=2.0>(n, w)\n [d] s = Gemm(x, w)\n t = Add(p, q)\n u = Add(r, s)\n y = Add(t, u)",
        {"a": 1, "b": 2, "d": 1},
    ),
    "factors that differ little": (
        "[a] p = Gemm<alpha=1000000.0>(x, w)\n [b] q = Gemm<alpha=1000001.0>(x, w)\n y = Add(p, q)",
        {"a": 1, "b": 1},
    ),
    "names that are taken": (
        "w_times_2 = Neg(w)\n a_product = Neg(z)\n [a] p = Gemm<alpha=2.0,beta=2.0>(x, w, z)\n"
        "q = MatMul(x, w_times_2)\n r = Add(p, q)\n y = Add(r, a_product)",
        {"a": 1},
    ),
    "a C that is infinite and is not read": (
        "l = Log(z)\n m = Log(l)\n [a] y = Gemm<beta=0.0>(x, w, m)",
        {"a": 1},
    ),
    "the output itself": ("[a] y = Gemm<alpha=0.5,beta=0.5>(x, w, z)", {"a": 1}),
}


@pytest.mark.parametrize("name", MODELS)
def test_layers_keep_their_names_and_outputs_their_values(onnx_file, weight, noise, run, reference, name):
    nodes, layers = MODELS[name]
    source = f"(float[N,{INPUTS}] x, float[N,{OUTPUTS}] z) => (float[N,{OUTPUTS}] y) {{\n{nodes} }}"
    path = onnx_file(source, w=weight(INPUTS, OUTPUTS))
    graph = capture_onnx(path, {"x": (ROWS, INPUTS), "z": (ROWS, OUTPUTS)})
    found = {name: len(layer.nodes) for name, layer in graph.layers.items() if layer.op == "Gemm"}
    assert found == layers
    assert [value.name for value in graph.model.graph.outputs] == ["y"]
    feed = {"x": noise(ROWS, INPUTS), "z": noise(ROWS, OUTPUTS)}
    np.testing.assert_allclose(reference(graph, feed), run(path, feed), rtol=1e-3, atol=1e-3)


def test_products_of_other_types_and_in_branches_are_left_alone(onnx_file, weight, noise, run, reference):
    source = (
        f"(float[{ROWS},{INPUTS}] x) => (float[{ROWS},{OUTPUTS}] y) {{\n"
        " d = Cast<to=11>(x)\n e = Gemm<alpha=0.5,beta=0.5>(d, v, d_c)\n f = Cast<to=1>(e)\n"
        " s = ReduceMax<keepdims=0>(x)\n big = Cast<to=9>(s)\n"
        f" g = If(big) <then_branch = one () => (float[{ROWS},{OUTPUTS}] t) {{ t = Gemm<alpha=2.0>(x, w) }},"
        f" else_branch = two () => (float[{ROWS},{OUTPUTS}] o) {{ m = Neg(x)\n o = Gemm<alpha=2.0>(m, w) }}>\n"
        " y = Add(f, g) }"
    )
    double = weight(INPUTS, OUTPUTS, seed=2).astype(np.float64)
    path = onnx_file(source, w=weight(INPUTS, OUTPUTS), v=double, d_c=np.ones((ROWS, OUTPUTS)))
    graph = capture_onnx(path)
    assert not graph.layers
    x = noise(ROWS, INPUTS)
    np.testing.assert_allclose(reference(graph, x), run(path, x), rtol=1e-5, atol=1e-5)


def test_what_is_plain_keeps_what_it_says(onnx_file, weight):
    """A run is known by the graph of its model: it can go on."""
    said = "alpha=1.0,beta=1.0,transA=0,transB=0"
    graph = capture_onnx(onnx_file(text(said), w=weight(INPUTS, OUTPUTS), c=weight(OUTPUTS), v=weight(6, 6, seed=1)))
    first = next(node for node in graph.model.graph if node.name == "first")
    assert set(first.attributes) == {"alpha", "beta", "transA", "transB"}
