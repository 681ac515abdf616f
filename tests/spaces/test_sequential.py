"""Sequential repair: better than static on the calibration data, the same every time, from the cache the second time."""

from __future__ import annotations

import numpy as np
import pytest

from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.sequential import sequential_repair
from slimfront.spaces.stepwise import Stepwise

NETWORK = (
    "(float[1,4,12,12] x) => (float[n,c,h,w] y) { [k] a = Conv<pads=[1,1,1,1]>(x, w, b)\n r = Relu(a)\n"
    "[l] c = Conv<pads=[1,1,1,1]>(r, v, b)\n d = Add(c, r)\n s = Relu(d)\n [m] e = Conv<group=4,pads=[1,1,1,1]>(s, g)\n"
    "q = LeakyRelu<alpha=0.1>(e)\n [n] y = ConvTranspose<strides=[2,2],pads=[1,1,1,1]>(q, t, z) }"
)


@pytest.fixture(scope="module")
def graph(capture, weight):
    return capture(
        NETWORK, w=weight(16, 4, 3, 3), v=weight(16, 16, 3, 3), g=2 * weight(16, 4, 3, 3), t=2 * weight(16, 3, 3, 3),
        b=0.3 * weight(16), z=weight(3),
    )  # fmt: skip


@pytest.fixture(scope="module")
def x(noise):
    return noise(8, 4, 12, 12)


@pytest.fixture(scope="module")
def builder(graph, x):
    return Builder(graph, {"x": x})


@pytest.fixture(scope="module")
def error(graph, builder, x, run, reference):
    """A function (candidate) that returns the mean squared output error on the calibration data."""
    expected = np.concatenate([reference(graph, one[None]) for one in x])

    def measured(candidate: Candidate) -> float:
        built = builder.build(candidate)
        return float(np.mean((np.concatenate([run(built, one[None]) for one in x]) - expected) ** 2))

    return measured


@pytest.mark.parametrize("activation", [32, 8])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_sequential_repair_lowers_the_output_error(bits, activation, graph, error, uniform_candidate):
    static, sequential = (
        error(uniform_candidate(graph, bits, activation, repair)) for repair in ("static", "sequential")
    )
    assert sequential < static


def test_sequential_repair_is_not_worse_for_mixtures(graph, error):
    picked = [LayerChoice(3, 8), LayerChoice(8, 32), LayerChoice(4, 8), LayerChoice(5, 8)]
    layers = dict(zip(graph.layers, picked, strict=True))
    assert error(Candidate(layers, repair="sequential")) <= error(Candidate(layers))


def test_sequential_repair_is_the_same_from_the_cache_and_from_nothing(
    graph, x, builder, uniform_candidate, monkeypatch, tmp_path
):
    candidate = uniform_candidate(graph, 3, 8, "sequential")
    first = builder.build(candidate).to_bytes()
    assert Builder(graph, {"x": x}).build(candidate).to_bytes() == first
    monkeypatch.setenv("SLIMFRONT_CACHE", str(tmp_path))
    assert Builder(graph, {"x": x}).build(candidate).to_bytes() == first


def test_only_rounded_layers_are_repaired(graph, builder):
    candidate = Candidate({"k": LayerChoice(4), "m": LayerChoice(16)}, repair="sequential")
    assert set(sequential_repair(builder, candidate)) == {"k"}


def test_codes_stay_on_the_grid_and_dropped_taps_stay_away(graph, builder, uniform_candidate):
    from slimfront.spaces.rounding import Grid

    for bits in (2, 4, 8):
        for name, rounded in sequential_repair(builder, uniform_candidate(graph, bits, 32, "sequential")).items():
            grid, layer = Grid(bits), builder.equalised.layers[name]
            assert rounded.codes.shape == layer.shape and rounded.scale.shape == (layer.channels,)
            zero = rounded.zero if layer.op == "Conv" else rounded.zero[None]
            zero = zero.reshape(*zero.shape, *[1] * (4 - zero.ndim))
            steps = (rounded.codes + zero) / grid.step
            assert np.array_equal(steps, np.round(steps)) and steps.min() >= grid.lowest and steps.max() <= grid.highest


def test_matrix_products_and_shared_weights_are_repaired_too(capture, weight, noise, run, reference, optimized):
    graph = capture(
        "(float[2,6,8] x) => (float[n,l,c] y) { [p] a = MatMul(x, w)\n c = Add(a, b)\n r = Relu(c)\n [q] d = MatMul(r, v)\n"
        "s = Relu(d)\n [t] e = MatMul(s, v)\n y = Add(e, r) }",
        w=weight(16, 8).T.copy(), v=weight(16, 16), b=weight(16),
    )  # fmt: skip
    x = noise(32, 6, 8)
    builder = Builder(graph, {"x": x})
    expected = np.concatenate([reference(graph, x[i : i + 2]) for i in range(0, 32, 2)])
    errors = []
    for repair in ("static", "sequential"):
        built = builder.build(Candidate({"p": LayerChoice(4, 8), "q": LayerChoice(4, 8)}, repair=repair))
        found = np.concatenate([run(built, x[i : i + 2]) for i in range(0, 32, 2)])
        errors.append(np.mean((found - expected) ** 2))
        look = optimized(built)
        assert look.integer_kernels == built.integer_kernels == 3 and not look.lacking
    assert errors[1] < 1.05 * errors[0]


def test_a_stepwise_run_equals_the_whole_model(graph, x, reference):
    feeds = [{"x": x[:1]}, {"x": x[1:2]}]
    steps = Stepwise(graph, feeds)
    weight, bias = graph.weight(graph.layers["l"]), graph.bias(graph.layers["l"])
    steps.replace("l", graph.layers["l"].weight, weight, bias)
    import onnx_ir as ir

    from slimfront.spaces.session import open_session

    inner = ir.to_proto(graph.with_outputs(["r", "s", "q"])).SerializeToString()
    expected = [open_session(inner).run(None, feed) for feed in feeds]
    for index, node in enumerate(("l", "m", "n")):
        for found, outputs in zip(steps.inputs_of(node), expected, strict=True):
            assert np.allclose(found, outputs[index], atol=1e-5)


def test_a_stepwise_run_rounds_the_tensors_that_integers_hold(graph, x, builder, uniform_candidate, run):
    """With all weights as built, the inputs of the last layer are those that the integer file computes."""
    lowering = builder.lower(uniform_candidate(graph, 8, 8))
    lowering.run()
    steps = Stepwise(builder.equalised, [{"x": x[:1]}], lowering.grids, lowering.integer, lowering.whole)
    for name in ("k", "l", "m"):
        (found,) = steps.inputs_of(name)
        source = {"k": "x", "l": "r", "m": "s"}[name]
        scale, zero = lowering._quantised[source].scale, lowering._quantised[source].zero
        codes = found / np.float32(scale) + zero
        assert np.allclose(codes, np.round(codes), atol=1e-2)
        assert codes.min() > -0.01 and codes.max() < 255.01


@pytest.mark.parametrize("repair", ["static", "sequential"])
@pytest.mark.parametrize("count", [1, 7])
def test_an_input_that_never_changes_is_no_trouble(repair, count, capture, weight, noise, run):
    graph = capture(
        "(float[1,6,8,8] x, float[1,16] t) => (float[n,c,h,w] y) { [k] a = Conv<pads=[1,1,1,1]>(x, w)\n"
        "[p] b = Gemm(t, v)\n s = Reshape(b, shape)\n z = Add(a, s)\n r = Relu(z)\n [l] y = Conv(r, u) }",
        w=weight(8, 6, 3, 3), v=weight(16, 8), u=weight(4, 8, 1, 1), shape=np.array([1, 8, 1, 1]),
    )  # fmt: skip
    data = {"x": noise(count, 6, 8, 8), "t": np.repeat(noise(1, 16), count, axis=0)}
    built = Builder(graph, data).build(
        Candidate({"k": LayerChoice(8), "p": LayerChoice(8), "l": LayerChoice(8)}, repair=repair)
    )
    one = {name: array[:1] for name, array in data.items()}
    expected = run(Builder(graph, data).build(Candidate()), one)
    assert np.sqrt(np.mean((run(built, one) - expected) ** 2)) < 0.02 * np.ptp(expected)
