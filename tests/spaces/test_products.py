"""MatMul and Gemm in integers: what they compute, and that they really run in integers."""

from __future__ import annotations

import numpy as np
import pytest

from slimfront.spaces.build import Builder
from slimfront.spaces.kernels import FLOAT

W = {"w": (16, 12), "v": (12, 8)}
FORMS = {
    "matmul of rank 3": "(float[1,9,16] x) => (float[a,b,c] y) { [p] y = MatMul(x, w) }",
    "matmul of rank 2": "(float[9,16] x) => (float[a,b] y) { [p] y = MatMul(x, w) }",
    "matmul of rank 4": "(float[2,3,4,16] x) => (float[a,b,c,d] y) { [p] y = MatMul(x, w) }",
    "matmul and bias of rank 3": "(float[1,9,16] x) => (float[a,b,c] y) { [p] h = MatMul(x, w)\n y = Add(h, b) }",
    "bias and matmul of rank 3": "(float[1,9,16] x) => (float[a,b,c] y) { [p] h = MatMul(x, w)\n y = Add(b, h) }",
    "matmul and bias of rank 2": "(float[9,16] x) => (float[a,b] y) { [p] h = MatMul(x, w)\n y = Add(h, b) }",
    "two matmuls with biases": (
        "(float[1,9,16] x) => (float[a,b,c] y) { [p] h = MatMul(x, w)\n i = Add(h, b)\n r = Relu(i)\n"
        "[q] j = MatMul(r, v)\n y = Add(j, c) }"
    ),
    "two matmuls with gelu": (
        "(float[2,9,16] x) => (float[a,b,c] y) { [p] h = MatMul(x, w)\n i = Add(h, b)\n r = Gelu(i)\n"
        "[q] j = MatMul(r, v)\n y = Add(j, c) }"
    ),
    "matmuls around a reshape": (
        "(float[1,8,16] x) => (float[a,b,c] y) { [p] h = MatMul(x, w)\n i = Reshape(h, s)\n r = Relu(i)\n"
        "[q] j = MatMul(r, u)\n y = Add(j, c) }"
    ),
    "gemm": "(float[9,16] x) => (float[a,b] y) { [p] y = Gemm(x, w, b) }",
    "gemm transposed": "(float[9,16] x) => (float[a,b] y) { [p] y = Gemm<transB=1>(x, t, b) }",
    "gemm without bias": "(float[9,16] x) => (float[a,b] y) { [p] y = Gemm<transB=1>(x, t) }",
    "two gemms": (
        "(float[9,16] x) => (float[a,b] y) { [p] h = Gemm<transB=1>(x, t, b)\n r = Relu(h)\n [q] y = Gemm(r, v, c) }"
    ),
    "conv, flatten, gemm": (
        "(float[2,4,4,4] x) => (float[a,b] y) { [k] h = Conv(x, o)\n r = Relu(h)\n f = Flatten(r)\n [p] y = Gemm(f, w, b) }"
    ),
    "gemm, reshape, conv": (
        "(float[2,16] x) => (float[a,b,c,d] y) { [p] h = Gemm(x, w, b)\n r = Relu(h)\n i = Reshape(r, z)\n"
        "[k] y = Conv(i, n) }"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def captured(capture, weight):
    """A function (form) that returns its graph."""
    available = {
        "w": weight(12, 16).T.copy(),
        "t": weight(12, 16),
        "v": weight(8, 12).T.copy(),
        "u": weight(8, 24).T.copy(),
        "b": 0.5 * weight(12),
        "c": 0.5 * weight(8),
        "o": weight(1, 4, 1, 1),
        "n": weight(6, 3, 2, 2),
        "s": np.array([1, 4, 24]),
        "z": np.array([2, 3, 2, 2]),
    }

    def made(form: str):
        body = FORMS[form].split("{")[1]
        used = {
            name: array
            for name, array in available.items()
            if f" {name})" in body or f" {name}," in body or f"({name}," in body
        }
        return capture(FORMS[form], **used)

    return made


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("form", FORMS)
def test_matrix_products_run_in_integers(
    form, bits, captured, noise, run, reference, optimized, uniform_candidate, exact_bits
):
    graph = captured(form)
    shape = graph.inputs[0].shape
    x = noise(4 * shape[0], *shape[1:])
    built = Builder(graph, {"x": x}, rounding="plain").build(uniform_candidate(graph, min(bits, exact_bits), 8))
    expected = reference(graph, x[: shape[0]])
    found = run(built, x[: shape[0]])
    step = (expected.max() - expected.min()) / 255
    assert np.sqrt(np.mean((found - expected) ** 2)) < (1.0 if bits == 8 else 12) * step
    assert np.abs(run(built, x[: shape[0]], optimize=False) - found).max() < 2 * step
    look = optimized(built)
    ops = look.ops
    assert look.integer_kernels == built.integer_kernels == sum(len(layer.nodes) for layer in graph.layers.values())
    assert not look.lacking
    assert not any(ops[op] for op in FLOAT)


@pytest.mark.parametrize("bits", [3, 8, 16])
@pytest.mark.parametrize("form", ["matmul and bias of rank 3", "matmul and bias of rank 2", "gemm", "gemm transposed"])
def test_float_products_multiply_with_the_decoded_weights(
    form, bits, captured, noise, run, optimized, uniform_candidate
):
    graph = captured(form)
    shape = graph.inputs[0].shape
    x = noise(8 * shape[0], *shape[1:])
    builder = Builder(graph, {"x": x})
    built = builder.build(uniform_candidate(graph, bits))
    layer = graph.layers["p"]
    weight, bias = graph.weight(layer).astype(np.float16).astype(np.float32), 0.0
    if bits <= 8:
        rounded = builder.static.rounded(layer, bits)
        weight = rounded.codes * (rounded.scale[:, None] if layer.transposed else rounded.scale)
        bias = rounded.shift
    constant = graph.bias(layer) if layer.op == "Gemm" else graph.constant("b")
    expected = x[: shape[0]] @ (weight.T if layer.transposed else weight) + constant + bias
    assert np.allclose(run(built, x[: shape[0]]), expected, atol=1e-5)
    ops = optimized(built).ops
    assert set(ops) <= {"MatMul", "Gemm", "Add", "Reshape"}, "the decoding has to be folded when the file is opened"
