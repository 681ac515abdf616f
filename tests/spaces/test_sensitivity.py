"""Sensitivities: what one option of a layer or group alone costs at the output."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch.nn import functional

from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.changes import Differences, changes_of
from slimfront.spaces.errors import BuildError
from slimfront.spaces.gauss_newton import output_errors
from slimfront.spaces.offers import FormOffer, Offer
from slimfront.spaces.perturbation import measured_errors
from slimfront.spaces.sensitivity import Sensitivity, _curve, sensitivity
from slimfront.spaces.session import infer, open_session
from slimfront.spaces.space import make_space
from slimfront.spaces.torch_view import steps, unsupported

from .networks import HEAD, NETWORKS, TAIL

CHOSEN = (
    *("strided conv", "grouped conv", "depthwise conv", "transposed conv", "grouped transposed conv", "layer twice"),
    *("shared bias", "weights used in two ways", "tokens", "constant matrices", "constant on the left", "gemm", "sum"),
    *("group norm", "layer norm", "squeeze and excite", "window attention", "pixel shuffle"),
)


@pytest.fixture(scope="module")
def builder(capture, weight, noise) -> Builder:
    graph = capture(
        "(float[1,3,16,16] x) => (float[n,c,h,w] y) { [a] p = Conv<pads=[1,1,1,1]>(x, w0)\n q = Relu(p)\n"
        "[b] r = Conv<pads=[1,1,1,1]>(q, w1)\n s = Relu(r)\n [c] y = Conv<pads=[1,1,1,1]>(s, w2) }",
        w0=weight(32, 3, 3, 3), w1=weight(64, 32, 3, 3), w2=weight(3, 64, 3, 3),
    )  # fmt: skip
    return Builder(graph, {"x": noise(8, 3, 16, 16)})


@pytest.fixture(scope="module")
def measured(builder):
    reference = infer(open_session(builder.build(Candidate()).to_bytes()), builder.calibration, 1)

    def error(candidate: Candidate) -> float:
        output = infer(open_session(builder.build(candidate).to_bytes()), builder.calibration, 1)
        return float(np.square(output - reference).mean())

    return error


def test_predicted_errors_are_near_the_measured_ones(builder, measured):
    space = make_space(builder.graph, pruning_ratios=(0.0, 0.25, 0.5), sparsities=(0.0, 0.5))
    found = sensitivity(builder, space)
    for name in builder.graph.layers:
        for bits in (2, 4, 6):
            ratio = found.bits[name][bits] / measured(Candidate({name: LayerChoice(bits)}))
            assert 0.6 < ratio < 1.7, (name, bits)
    for name, ratios in space.ratios.items():
        for value in [value for value in ratios if value]:
            assert 0.5 < found.ratios[name][value] / measured(Candidate(groups={name: value})) < 2, (name, value)


def test_predicted_errors_of_a_form_are_near_the_measured_ones(capture, weight, noise):
    nearest = 'Resize<mode="nearest",coordinate_transformation_mode="asymmetric",nearest_mode="floor">'
    graph = capture(
        "(float[1,8,12,12] x) => (float[n,c,h,w] y) { [a] p = Conv<pads=[1,1,1,1]>(x, w0)\n q = Relu(p)\n"
        f"u = {nearest}(q, , f)\n [up] y = Conv<pads=[1,1,1,1]>(u, w1) }}",
        f=np.float32([1, 1, 2, 2]), w0=weight(16, 8, 3, 3), w1=weight(8, 16, 3, 3),
    )  # fmt: skip
    builder = Builder(graph, {"x": noise(8, 8, 12, 12)})
    space = make_space(graph, offers={"up": Offer(forms={"phases": FormOffer(16 / 9, {8: 0.5, 32: 0.9})})})
    reference = infer(open_session(builder.build(Candidate()).to_bytes()), builder.calibration, 1)
    for _ in range(2):  # once found, once from the cache
        found = sensitivity(builder, space)
        for bits in (2, 3, 4, 6):
            choice = LayerChoice(bits, form="phases")
            output = infer(open_session(builder.build(Candidate({"up": choice})).to_bytes()), builder.calibration, 1)
            assert 0.5 < found.error("up", choice) / float(np.square(output - reference).mean()) < 2, bits
    assert found.error("up", LayerChoice(32, form="phases")) == 0
    assert found.error("a", LayerChoice(4)) == found.bits["a"][4]


def test_errors_add_up(builder, measured):
    space = make_space(builder.graph, pruning_ratios=(0.0, 0.25, 0.5))
    found = sensitivity(builder, space)
    candidate = Candidate({"a": LayerChoice(4), "b": LayerChoice(3), "c": LayerChoice(4)}, {"b": 0.25})
    total = sum(found.error(axis.name, axis.of(candidate)) for axis in space.axes)
    assert 0.5 < total / measured(candidate) < 2


def test_what_is_not_compressed_costs_nothing(builder):
    space = make_space(builder.graph, pruning_ratios=(0.0, 0.25))
    found = sensitivity(builder, space)
    assert all(found.error(axis.name, axis.of(Candidate())) == 0 for axis in space.axes)


def test_gradients_tell_what_runs_tell(builder):
    """Two ways to the same errors: backward passes for all changes, and a run with each."""
    space = make_space(
        builder.graph, weight_bits=(3, 4, 8, 32), pruning_ratios=(0.0, 0.125, 0.5), sparsities=(0.0, 0.5)
    )
    changes = list(changes_of(space))
    asked = [partial(change.differences, builder) for change in changes]
    predicted = output_errors(builder.equalised, builder.calibration, asked, 16)
    measured = measured_errors(builder.equalised, builder.calibration, asked)
    assert {change.kind for change in changes} == {"bits", "sparsities", "ratios"}
    assert spearmanr(predicted, measured)[0] > 0.95
    assert np.all(np.abs(np.log(predicted / measured)) < np.log(2))


def test_a_linear_network_is_known_but_for_the_random_vectors(capture, weight, noise):
    """Where the output is linear in the weights the only error is that of the estimate: three standard deviations of it."""
    graph = capture(
        "(float[1,6,9,9] x) => (float[n,c,h,w] y) { [a] y = Conv(x, w, b) }", w=weight(24, 6, 3, 3), b=weight(24)
    )
    x, random = noise(8, 6, 9, 9), np.random.default_rng(1)
    change = random.standard_normal((24, 6, 3, 3)).astype(np.float32), random.standard_normal(24).astype(np.float32)
    exact = functional.conv2d(torch.from_numpy(x), *map(torch.from_numpy, change)).square().mean().item()
    asked = [lambda: Differences({"w": change[0]}, {"a": change[1]})]
    found = output_errors(graph, {"x": x}, asked, 32)
    assert found[0] == pytest.approx(exact, rel=3 * np.sqrt(2 / (8 * 32)))
    assert measured_errors(graph, {"x": x}, asked)[0] == pytest.approx(exact, rel=1e-4)


def test_where_an_op_has_no_gradient_each_change_is_run(capture, weight, noise):
    text = "(float[1,3,8,8] x) => (float[n,c,h,w] y) { [a] p = Conv(x, w) q = Relu(p) r = OP [b] y = Conv(r, v) }"
    weights, x = {"w": weight(16, 3, 1, 1), "v": weight(4, 16, 1, 1)}, {"x": noise(8, 3, 8, 8)}
    found = []
    for op in ("Identity(q)", 'Einsum<equation="nchw->nchw">(q)'):
        graph = capture(text.replace("OP", op), **weights)
        found.append(sensitivity(Builder(graph, x), make_space(graph, pruning_ratios=(0.0, 0.25))))
    passes, runs = found
    for name in passes.bits:
        for bits, error in runs.bits[name].items():
            assert 0.5 < passes.bits[name][bits] / error < 2, (name, bits)


def test_a_change_that_does_not_run_counts_as_one_that_costs_everything(capture, weight, noise):
    """A change sends a square root below zero."""
    x = noise(4, 3, 8, 8)
    graph = capture("(float[1,3,8,8] x) => (float[n,c,h,w] y) { p = Abs(x) [a] q = Conv(p, w) y = Sqrt(q) }",
        w=np.abs(weight(16, 3, 1, 1)))  # fmt: skip
    changes = [Differences({"w": factor * graph.constant("w")}, {"a": np.zeros(16)}) for factor in (-2.0, 0.0)]
    found = measured_errors(graph, {"x": x}, [partial(lambda change: change, change) for change in changes])
    assert found[0] > 10 * np.var(x) and found[1] == 0.0


def test_where_a_gradient_is_not_finite_each_change_is_run(capture, weight, noise):
    """The slope of a square root at zero, times zero."""
    graph = capture(
        "(float[1,3,8,8] x) => (float[n,c,h,w] y) { [a] p = Conv(x, w)\n q = Abs(p)\n r = Mul(q, m)\n y = Sqrt(r) }",
        w=weight(16, 3, 1, 1), m=np.float32(np.arange(16) % 2).reshape(16, 1, 1),
    )  # fmt: skip
    builder = Builder(graph, {"x": noise(4, 3, 8, 8)})
    space = make_space(graph, weight_bits=(2, 3, 32), activation_bits=(32,))
    asked = [partial(change.differences, builder) for change in changes_of(space)]
    with pytest.raises(BuildError, match="not finite"):
        output_errors(builder.equalised, builder.calibration, asked, 1)
    expected = measured_errors(builder.equalised, builder.calibration, asked)
    found = sensitivity(builder, space).bits["a"]
    assert found[2] == pytest.approx(expected[0], rel=1e-6)  # run itself
    assert 0.4 < found[3] / expected[1] < 2.5


def test_a_layer_without_matrix_costs_more_at_fewer_bits_and_channels(capture, weight, noise):
    graph = capture(
        "(float[1,4,8,8] x) => (float[n,c,h,w] y) { [a] p = Conv<pads=[1,1,1,1]>(x, w)\n q = Relu(p)\n"
        "[b] y = ConvTranspose<dilations=[2,2]>(q, v) }",
        w=weight(64, 4, 3, 3), v=weight(64, 3, 3, 3),
    )  # fmt: skip
    builder = Builder(graph, {"x": noise(4, 4, 8, 8)})
    found = sensitivity(builder, make_space(graph, activation_bits=(32,), pruning_ratios=(0.0, 0.25, 0.5)))
    assert found.bits["b"][2] > 4 * found.bits["b"][4] > 16 * found.bits["b"][6] > 0
    assert found.ratios["a"][0.5] > found.ratios["a"][0.25] > 0


def test_what_the_cache_gives_back_is_what_was_measured(builder):
    space = make_space(builder.graph, pruning_ratios=(0.0, 0.25), sparsities=(0.0, 0.5))
    first = sensitivity(builder, space)
    assert Sensitivity.from_json(json.loads(json.dumps(first.to_json()))) == first
    again = sensitivity(Builder(builder.graph, builder.calibration), space)
    assert again == first and set(first.sparsities["a"]) == {0.5}


def test_a_series_has_one_factor_or_never_falls():
    """Estimates that are off by chance follow the layer's own errors; a group's ratios are kept, but do not fall."""
    own = np.array([8.0, 4.0, 1.0])
    assert _curve(np.array([32.0, 4.0, 2.0]), own, exact=False) == pytest.approx(2.0 * own)
    assert _curve(np.array([np.nan, 12.0, np.nan]), own, exact=True) == pytest.approx(3.0 * own)
    assert _curve(np.array([1.0, 3.0, 2.0]), own, exact=True).tolist() == [1.0, 3.0, 3.0]
    assert _curve(np.zeros(3), own, exact=False).tolist() == [0.0, 0.0, 0.0]


NETWORKS_WITHOUT_PASSES = ("einsum", "indices of a maximum", "integers between", "integer vector")


@pytest.mark.parametrize("name", [*CHOSEN, *NETWORKS_WITHOUT_PASSES])
def test_errors_of_all_kinds_of_layers_are_near_those_of_built_candidates(name, capture, weight, noise):
    """Grouped, transposed, shared layers, matrix products, constants that are no layers: whatever way errors come."""
    made = NETWORKS[name]
    constants = {
        key: weight(*value, seed=number) if isinstance(value, tuple) else value
        for number, (key, value) in enumerate(made.constants.items())
    }
    constants |= {"wa": weight(8, 4, 3, 3), "ba": weight(8), "wz": weight(3, made.channels, 1, 1)}
    graph = capture(f"(float[2,4,8,8] x) => (float[a0,b0,c0,d0] y) {{ {HEAD} {made.middle} {TAIL} }}", **constants)
    builder = Builder(graph, {"x": noise(16, 4, 8, 8)})
    stepped = name in NETWORKS_WITHOUT_PASSES
    assert stepped == bool(unsupported(graph) + steps(graph)) or name == "indices of a maximum"
    space = make_space(graph, weight_bits=(4, 8, 32), activation_bits=(32,), pruning_ratios=(0.0, 0.25), step=1)
    found = sensitivity(builder, space)
    reference = infer(open_session(builder.build(Candidate()).to_bytes()), builder.calibration, graph.batch)
    for axis in space.axes:
        for option in axis.options:
            candidate = Candidate(groups={axis.name: option}) if axis.is_group else Candidate({axis.name: option})
            output = infer(open_session(builder.build(candidate).to_bytes()), builder.calibration, graph.batch)
            error = float(np.square(output - reference).mean())
            small = error < 1e-7 * float(np.var(reference))
            if not small and (not stepped or axis.is_group or option.weight_bits == 4):  # steps are no small changes
                assert 0.2 < found.error(axis.name, option) / error < 5, (axis.name, option)
