"""Float layers and ops in the form that float kernels run faster: equal to ONNX Runtime's own, and only where that pays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate, LayerChoice

ROUNDED = Candidate({"up": LayerChoice(8, 32)})


def on_grid(*shape: int, seed: int = 0) -> np.ndarray:
    """Return weights [I, O, k, k] that 8 bits hold exactly, whose every output channel reaches to the end of its grid."""
    codes = np.random.default_rng(seed).integers(-126, 127, shape)
    codes[::2, :, 0, 0] = 127  # of each group
    return (codes / 1024).astype(np.float32)


@pytest.fixture(scope="module")
def check(capture, run, reference, optimized):
    """A function (channels, geometry, ...) that builds a float ConvTranspose, checks it, and returns the ops that run."""

    def built(outputs: int, kernel, group: int = 1, bias: bool = True, seed: int = 0, **geometry):
        size = [5, 6]
        for axis, k in enumerate(kernel):
            dilated = geometry.get("dilations", [1, 1])[axis] * (k - 1) + 1
            pads = geometry.get("pads", [0] * 4)
            step, more = geometry.get("strides", [1, 1])[axis], geometry.get("output_padding", [0, 0])[axis]
            size[axis] = (size[axis] - 1) * step + dilated + more - pads[axis] - pads[axis + 2]
        assume(min(size) > 0)
        attributes = ",".join(f"{k}={v}" for k, v in {"group": group, "kernel_shape": list(kernel), **geometry}.items())
        weights = {"w": on_grid(4, outputs // group, *kernel, seed=seed)}
        weights |= {"b": np.linspace(-1, 1, outputs, dtype=np.float32)} if bias else {}
        text = (
            "(float[1,4,5,6] x) => (float[n,c,h,w] y) { [up] a = ConvTranspose<"
            f"{attributes}>(x, w{', b' * bias})\n y = Tanh(a) }}"
        )
        graph = capture(text, **weights)
        x = np.random.default_rng(seed).uniform(-1, 1, (1, 4, 5, 6)).astype(np.float32)
        builder = Builder(graph, {"x": x}, rounding="plain")
        expected, found = reference(graph, x), run(builder.build(ROUNDED), x)
        assert found.shape == expected.shape and np.abs(found - expected).max() < 1e-5
        assert optimized(builder.build(Candidate())).ops["ConvTranspose"] == 1  # the reference stays as it came
        return optimized(builder.build(ROUNDED)).ops

    return built


@st.composite
def geometries(draw):
    kernel = [draw(st.integers(1, 5)) for _ in range(2)]
    strides = draw(st.sampled_from([[1, 1], [1, 1], [2, 2], [1, 2], [3, 1]]))
    return {
        "outputs": draw(st.sampled_from([3, 16, 32])),
        "kernel": kernel,
        "strides": strides,
        "pads": draw(
            st.sampled_from([[k // 2 for k in kernel * 2], [draw(st.integers(0, k - 1)) for k in kernel * 2]])
        ),
        "output_padding": [draw(st.integers(0, step - 1)) for step in strides],
        "bias": draw(st.booleans()),
        "seed": draw(st.integers(0, 99)),
    }


@settings(max_examples=40, deadline=None)
@given(geometry=geometries())
def test_any_float_transposed_convolution_gives_what_onnx_runtime_gives(geometry, check):
    ops = check(**geometry)
    kept = all(sum(geometry["pads"][axis::2]) >= k - 1 for axis, k in enumerate(geometry["kernel"]))
    assert (ops["ConvTranspose"] == 0) == (geometry["strides"] == [1, 1] and geometry["outputs"] == 32 and kept)


@pytest.mark.parametrize(
    "geometry",
    [
        {"outputs": 32, "kernel": (3, 3), "pads": [1] * 4, "group": 2},
        {"outputs": 32, "kernel": (3, 3), "pads": [1] * 4, "dilations": [2, 2]},
        {"outputs": 32, "kernel": (4, 4), "pads": [1, 1, 2, 2], "strides": [2, 2]},
        {"outputs": 32, "kernel": (2, 2), "pads": [2, 1, 0, 0]},
        {"outputs": 32, "kernel": (3, 3), "pads": [1, 1, 0, 1]},
        {"outputs": 16, "kernel": (3, 3), "pads": [1] * 4},
    ],
)
def test_other_float_transposed_convolutions_stay(geometry, check):
    assert check(**geometry)["ConvTranspose"] == 1


def test_a_transposed_convolution_that_is_only_stored_in_16_bits_stays(capture, optimized, noise):
    text = "(float[1,4,5,6] x) => (float[n,c,h,w] y) { [up] y = ConvTranspose<pads=[1,1,1,1]>(x, w) }"
    builder = Builder(capture(text, w=on_grid(4, 32, 3, 3)), {"x": noise(2, 4, 5, 6)})
    candidate = Candidate({"up": LayerChoice(16)})
    assert optimized(builder.build(candidate)).ops["ConvTranspose"] == 1
    assert optimized(builder.skeleton(candidate)).ops["ConvTranspose"] == 1


@pytest.fixture(scope="module")
def prelu(capture, weight, noise):
    """A function (slopes) that returns graph, builder and input of a PRelu between two convolutions."""

    def made(slopes: np.ndarray):
        graph = capture(
            "(float[1,4,8,9] x) => (float[n,c,h,w] y) { [first] a = Conv<pads=[1,1,1,1]>(x, w1)\n z = PRelu(a, s)\n"
            "[last] y = Conv<pads=[1,1,1,1]>(z, w2) }",
            w1=weight(16, 4, 3, 3), s=slopes, w2=weight(3, 16, 3, 3, seed=1),
        )  # fmt: skip
        x = noise(2, 4, 8, 9)
        return graph, Builder(graph, {"x": x}, rounding="plain"), x[:1]

    return made


SLOPES = np.linspace(-0.4, 1.4, 16, dtype=np.float32)


@pytest.mark.parametrize(
    ("slopes", "op"),
    [
        (np.full((1, 1, 1), 0.3, np.float32), "leaky"),
        (np.full((16, 1, 1), -0.3, np.float32), "leaky"),
        (SLOPES.reshape(16, 1, 1), "depthwise"),
        (SLOPES.reshape(1, 16, 1, 1), "depthwise"),
        (np.linspace(0, 1, 9, dtype=np.float32).reshape(1, 1, 9), "PRelu"),
    ],
)
def test_a_float_prelu_is_exact_in_ops_that_know_the_layout_of_convolutions(
    slopes, op, prelu, run, reference, optimized
):
    graph, builder, x = prelu(slopes)
    barely = LayerChoice(32, 32, sparsity=1e-6)  # no weight is zeroed, yet the candidate counts as compressed
    built = builder.build(Candidate({"last": barely}))
    assert np.abs(run(built, x) - reference(graph, x)).max() < 1e-5
    ops = optimized(built).ops
    assert ops["PRelu"] == (op == "PRelu") and ops["Conv"] == (4 if op == "depthwise" else 2)
    assert optimized(builder.build(Candidate())).ops["PRelu"] == 1
