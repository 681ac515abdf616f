"""Candidates for LiteRT and ExecuTorch: what is written, what PyTorch makes of it, and that their own files compute the same."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.errors import BuildError, InputError
from slimfront.spaces.graph import serialized
from slimfront.spaces.mobile_torch import MobileModule
from slimfront.spaces.rules import EXECUTORCH, LITERT, OPENVINO, Rules
from slimfront.spaces.space import make_space, uniform

from . import recurrent_models
from .carrying import ALL, weights

NETWORK = (
    "(float[1,3,12,12] x) => (float[n,c,h,w] y) { [head] a = Conv<pads=[1,1,1,1]>(x, w0, b0)\n [act] b = Relu(a)\n"
    "[body] c = Conv<pads=[1,1,1,1]>(b, w1)\n [sum] d = Add(c, b)\n [pool] e = MaxPool<kernel_shape=[2,2], strides=[2,2]>(d)\n"
    "[low] f = Conv<pads=[1,1,1,1]>(e, w2, b2)\n [leak] k = LeakyRelu<alpha=0.1>(f)\n"
    "[up] g = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(k, w3, b3)\n"
    "[cat] h = Concat<axis=1>(g, b)\n [mix] i = Conv(h, w4)\n [shuffle] j = DepthToSpace<blocksize=2>(i)\n"
    "[tail] y = Conv<pads=[1,1,1,1]>(j, w5, b5) }"
)
DENSE = (
    "(float[2,5,8] x) => (float[n,t,c] y) { [in] a = MatMul(x, w0)\n [act] b = Relu(a)\n [flat] c = Reshape(b, rows)\n"
    "[gemm] d = Gemm(c, w1, b1)\n [out] e = Gemm<transB=1>(d, w2)\n [back] y = Reshape(e, again) }"
)
RUNTIMES = pytest.mark.parametrize("rules", [LITERT, EXECUTORCH], ids=["litert", "executorch"])
PACKAGES = {"litert": "litert_torch", "executorch": "executorch"}
NOISE_DB = 35.0  # that sums, rounded in another order, are at least from each other


@pytest.fixture(scope="module")
def graph(capture, weight):
    return capture(NETWORK, **weights(weight))


@pytest.fixture(scope="module")
def dense(capture, weight):
    return capture(
        DENSE,
        w0=weight(8, 16),
        w1=weight(16, 12, seed=1),
        b1=weight(12, 1)[:, 0],
        w2=weight(6, 12, seed=2),
        rows=np.array([10, 16]),
        again=np.array([2, 5, 6]),
    )


@pytest.fixture(scope="module")
def builders(graph, dense, noise) -> dict[str, dict[str, Builder]]:
    images = {"x": np.concatenate([noise(1, 3, 12, 12, seed=n) for n in range(4)])}
    rows = {"x": np.concatenate([noise(2, 5, 8, seed=n) for n in range(4)])}
    return {
        rules.runtime: {
            "images": Builder(graph, images, rules=rules),
            "rows": Builder(dense, rows, rules=rules),
        }
        for rules in (LITERT, EXECUTORCH)
    }


def chosen(rules: Rules, integer: set[str], every=ALL) -> Candidate:
    plain = LayerChoice(min(rules.stored[32]), 32)
    return Candidate({name: LayerChoice(8, 8) if name in integer else plain for name in every})


def decibels(found: np.ndarray, expected: np.ndarray) -> float:
    return float(10 * np.log10(np.ptp(expected) ** 2 / max(np.mean((found - expected) ** 2), 1e-20)))


def in_torch(built, x: np.ndarray, stored: bool = True) -> np.ndarray:
    with torch.no_grad():
        return MobileModule(built.model, built.shapes, stored)(torch.from_numpy(x))[0].numpy()


def opened(rules: Rules, data: bytes):
    from slimfront.objectives.runtimes import make_target

    return make_target(rules.runtime).open(data)


# --- what is written -------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.sets(st.sampled_from(ALL)))
def test_any_mixture_is_valid_in_onnx_and_the_same_in_pytorch(builders, run, noise, integer):
    """ONNX Runtime without optimisation computes each node as ONNX says."""
    for rules in (LITERT, EXECUTORCH):
        built = builders[rules.runtime]["images"].build(chosen(rules, integer))
        graph = serialized(built.model)
        onnx.checker.check_model(onnx.load_from_string(graph), full_check=True)
        x = noise(1, 3, 12, 12, seed=9)
        expected = run(graph, x, optimize=False)
        assert decibels(in_torch(built, x), expected) > 60
        assert decibels(in_torch(built, x, stored=False), expected) > 60


@RUNTIMES
def test_what_joins_tensors_reads_one_grid(rules, builders):
    built = builders[rules.runtime]["images"].build(chosen(rules, set(ALL)))
    model = onnx.load_from_string(serialized(built.model))
    writer = {name: node for node in model.graph.node for name in node.output}
    readers = {name: node for node in model.graph.node for name in node.input}
    cat = next(node for node in model.graph.node if node.op_type == "Concat")
    grids = {tuple(writer[name].input[1:]) for name in cat.input} | {tuple(readers[cat.output[0]].input[1:])}
    assert len(grids) == 1


@RUNTIMES
def test_an_activation_stands_between_its_layer_and_the_rounding(rules, builders):
    """So that it becomes part of the layer's kernel, on a grid that has no step below 0."""
    model = onnx.load_from_string(serialized(builders[rules.runtime]["images"].build(chosen(rules, set(ALL))).model))
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    kinds = [(one.op_type, two.op_type) for one, two in pairwise(model.graph.node)]
    assert ("Conv", "Relu") in kinds
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    rounding = next(node for node in model.graph.node if relu.output[0] in node.input)
    assert rounding.op_type == "QuantizeLinear" and constants[rounding.input[2]] >= 0


@RUNTIMES
def test_integer_products_are_as_good_as_their_rounding(rules, builders, reference, run, noise):
    builder = builders[rules.runtime]["rows"]
    x = noise(2, 5, 8, seed=5)
    whole = builder.build(Candidate({name: LayerChoice(8, 8) for name in builder.graph.layers}))
    assert len(whole.integer_tensors) == 3
    expected = reference(builder.graph, x)
    assert decibels(run(serialized(whole.model), x, optimize=False), expected) > 30
    assert decibels(in_torch(whole, x), expected) > 30


# --- files ------------------------------------------------------------------------------------------------------------


@RUNTIMES
@pytest.mark.parametrize("integer", [set(), {"head", "low", "mix"}, set(ALL)], ids=["float", "some", "all"])
def test_files_compute_what_the_graph_says(rules, integer, builders, run, noise):
    pytest.importorskip(PACKAGES[rules.runtime])
    built = builders[rules.runtime]["images"].build(chosen(rules, integer))
    x = noise(1, 3, 12, 12, seed=9)
    data = built.to_bytes()
    assert len(data) == built.size_bytes
    expected = run(serialized(built.model), x, optimize=False)
    assert decibels(opened(rules, data).run(None, {"x": x})[0], expected) > (NOISE_DB if integer else 60)
    again = builders[rules.runtime]["images"].build(built.candidate)
    assert again.sha256 == built.sha256  # the same candidate gives the same bytes


@RUNTIMES
def test_files_of_products_compute_what_the_graph_says(rules, builders, run, noise):
    pytest.importorskip(PACKAGES[rules.runtime])
    builder = builders[rules.runtime]["rows"]
    built = builder.build(Candidate({name: LayerChoice(8, 8) for name in builder.graph.layers}))
    x = noise(2, 5, 8, seed=5)
    expected = run(serialized(built.model), x, optimize=False)
    assert decibels(opened(rules, built.to_bytes()).run(None, {"x": x})[0], expected) > NOISE_DB


def test_integer_layers_of_a_litert_file_run_in_integers(builders, tmp_path):
    pytest.importorskip("litert_torch")
    from slimfront.objectives.runtimes import make_target

    for integer in ({"head", "low", "mix"}, set(ALL)):
        built = builders["litert"]["images"].build(chosen(LITERT, integer))
        path = tmp_path / "model.tflite"
        built.save(path)
        _, reads = make_target("litert").inspected(path, built.shapes)
        assert reads is not None and built.integer_kernels == len(integer)
        assert built.fallbacks(reads) == []


@RUNTIMES
def test_ops_with_options_keep_their_meaning(rules, capture, weight, run, noise):
    """Forms of ops that converters know, and the general ones, are what ONNX computes."""
    pytest.importorskip(PACKAGES[rules.runtime])
    text = (
        "(float[1,4,9,7] x) => (float[n,c,h,w] y) { a = Conv<pads=[1,0,2,1]>(x, w)\n b = PRelu(a, slope)\n"
        'c = Pad<mode="reflect">(b, pads)\n d = Resize<mode="linear">(c, , , size)\n e = Clip(d, low, high)\n'
        "f = ConvTranspose<strides=[2,2], pads=[1,1,0,1]>(e, v)\n g = AveragePool<kernel_shape=[2,2], strides=[2,2]>(f)\n"
        'h = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(g, , scale)\n'
        "s = Shape(h)\n i = Reshape(h, flat)\n j = Softmax<axis=1>(i)\n k = Reshape(j, s)\n"
        "l = ReduceMean<keepdims=1>(k, axes)\n y = Sub(k, l) }"
    )
    graph = capture(
        text,
        w=weight(6, 4, 3, 3),
        v=weight(6, 4, 4, 4, seed=1),
        slope=weight(6, 1, 1),
        pads=np.array([0, 0, 1, 2, 0, 0, 2, 1]),
        size=np.array([1, 6, 17, 13]),
        low=np.float32(-0.4),
        high=np.float32(0.9),
        scale=np.array([1, 1, 2, 3], np.float32),
        flat=np.array([0, -1]),
        axes=np.array([2, 3]),
    )
    builder = Builder(graph, {"x": noise(4, 4, 9, 7)}, rules=rules)
    x = noise(1, 4, 9, 7, seed=3)
    built = builder.build(Candidate())
    expected = run(serialized(built.model), x)
    assert decibels(in_torch(built, x), expected) > 90
    assert decibels(opened(rules, built.to_bytes()).run(None, {"x": x})[0], expected) > 70


def test_inputs_stand_in_the_order_of_their_names_and_sizes_are_worked_out(capture, weight):
    graph = capture(
        "(float[2,4] b, float[2,4] a) => (float[n,m] y) { s = Shape(b)\n c = Sub(a, b)\n d = MatMul(c, w)\n y = Reshape(d, s) }",
        w=weight(4, 4),
    )
    built = Builder(graph, {"a": np.ones((2, 4), np.float32), "b": np.zeros((2, 4), np.float32)}, rules=LITERT).build(
        Candidate()
    )
    module = MobileModule(built.model, built.shapes)
    assert module.inputs == ["a", "b"]
    ones, zeros = torch.ones(2, 4), torch.zeros(2, 4)
    assert torch.equal(module(ones, zeros)[0], -module(zeros, ones)[0])
    targets = {str(node.target) for node in module.exported().graph.nodes}
    assert not any("sym_size" in target for target in targets)


# --- what a space offers, and bad input ------------------------------------------------------------------------------


def test_spaces_offer_the_bits_that_files_store(graph):
    for rules, floats in ((LITERT, {8, 32}), (EXECUTORCH, {32})):
        space = make_space(graph, rules=rules)
        assert {choice.weight_bits for choice in space.choices["head"] if choice.activation_bits == 8} == {8}
        assert {choice.weight_bits for choice in space.choices["head"] if choice.activation_bits == 32} == floats
    with pytest.raises(InputError, match=r"weight_bits \[4\].*litert store weight_bits \[8\] with 8"):
        make_space(graph, weight_bits=(4,), rules=LITERT)
    with pytest.raises(InputError, match=r"'head'.*weight_bits 4 would be no smaller"):
        make_space(graph, fixed={"head": {"weight_bits": 4, "activation_bits": 8}}, rules=LITERT)


def test_uniform_candidates_take_the_bits_that_files_store(graph):
    candidate, notes = uniform(graph, {"weight_bits": 4, "activation_bits": 8}, LITERT)
    assert {(choice.weight_bits, choice.activation_bits) for choice in candidate.layers.values()} == {(8, 8)}
    assert any("litert store more bits" in note and "head 8" in note for note in notes)
    assert uniform(graph, {"weight_bits": 4, "activation_bits": 8}, OPENVINO)[0].layers["head"].weight_bits == 4


@RUNTIMES
def test_a_candidate_with_other_bits_is_not_built(rules, builders):
    with pytest.raises(BuildError, match=r"'head'.*in 8 bits: weight_bits 4"):
        builders[rules.runtime]["images"].build(Candidate({"head": LayerChoice(4, 8)}))


@RUNTIMES
def test_an_op_without_a_form_is_named(rules, capture, weight, noise):
    pytest.importorskip(PACKAGES[rules.runtime])
    graph = capture(
        "(float[1,4,6,6] x) => (float[n,c,h,w] y) { a = Conv(x, w)\n y = Hardmax(a) }", w=weight(4, 4, 1, 1)
    )
    with pytest.raises(BuildError, match=r"no form in PyTorch for Hardmax"):
        Builder(graph, {"x": noise(2, 4, 6, 6)}, rules=rules).build(Candidate()).to_bytes()


@RUNTIMES
def test_a_runtime_that_is_not_installed_names_the_extra(rules, builders, monkeypatch: pytest.MonkeyPatch):
    import sys

    for name in ("litert_torch", "executorch.backends.xnnpack.partition.xnnpack_partitioner"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=rf"slimfront\[{rules.runtime}\]"):
        builders[rules.runtime]["images"].build(Candidate()).to_bytes()


JOINED = (
    "(float[1,4,6,6] x) => (float[n,c,h,w] y) { [one] a = Conv(x, w0)\n %s\n [two] b = Conv(x, w1)\n"
    "[cat] c = Concat<axis=1>(%s)\n [out] y = Conv(c, w2) }"
)


@RUNTIMES
@pytest.mark.parametrize(
    ("middle", "order", "loud"),
    [
        ("[s] d = Sigmoid(a)", "d, b", 1.0),
        ("[s] d = Sigmoid(a)", "b, d", 1.0),
        ("[s] d = Clip(a, lo, hi)", "d, b", 1.0),
        ("[s] d = Relu(a)", "d, b", 8.0),
    ],
    ids=["sigmoid first", "sigmoid last", "clip", "one much larger"],
)
def test_joined_tensors_keep_their_values_and_files_run(
    rules, middle, order, loud, capture, weight, reference, run, noise
):
    pytest.importorskip(PACKAGES[rules.runtime])
    text = JOINED % (middle, order)
    more = {"lo": np.float32(-0.3), "hi": np.float32(0.5)} if "Clip" in middle else {}
    graph = capture(text, w0=weight(4, 4, 1, 1), w1=loud * weight(4, 4, 1, 1, seed=1), w2=weight(2, 8, 1, 1), **more)
    builder = Builder(graph, {"x": np.concatenate([noise(1, 4, 6, 6, seed=n) for n in range(4)])}, rules=rules)
    built = builder.build(Candidate({name: LayerChoice(8, 8) for name in graph.layers}))
    x = noise(1, 4, 6, 6, seed=2)
    expected = run(serialized(built.model), x, optimize=False)
    assert decibels(expected, reference(graph, x)) > 30
    assert decibels(opened(rules, built.to_bytes()).run(None, {"x": x})[0], expected) > NOISE_DB


BESIDE = (  # %s: what of the integers stands beside floats, and what joins them
    "(float[1,4,10,6] x) => (float[n,c,h,w] y) { [in] a = Conv(x, w0)\n [act] b = LeakyRelu<alpha=0.5>(a)\n"
    "[low] c = Conv(x, w1)\n [on] d = Relu(c)\n %s\n [out] y = Conv(e, w2) }"
)


@RUNTIMES
@pytest.mark.parametrize("integer", [["low"], ["low", "in"]], ids="-".join)
@pytest.mark.parametrize(
    ("joins", "channels"),
    [
        ("e = Concat<axis=1>(d, b)", 10),
        ("e = Concat<axis=1>(b, d)", 10),
        ("t = Transpose<perm=[0,1,3,2]>(d)\n u = Transpose<perm=[0,1,3,2]>(t)\n e = Concat<axis=1>(u, b)", 10),
        ("e = Max(d, b)", 5),
    ],
    ids=["concat", "concat, last", "moved", "max"],
)
def test_integers_beside_floats_leave_them_as_they_are(
    rules, joins, channels, integer, capture, weight, run, noise, reference
):
    pytest.importorskip(PACKAGES[rules.runtime])
    weights = {"w0": 4.0 * weight(5, 4, 1, 1), "w1": weight(5, 4, 1, 1, seed=1), "w2": weight(2, channels, 1, 1)}
    graph = capture(BESIDE % joins, **weights)
    builder = Builder(graph, {"x": np.concatenate([noise(1, 4, 10, 6, seed=n) for n in range(4)])}, rules=rules)
    built = builder.build(Candidate({name: LayerChoice(8, 8) for name in integer}))
    x = noise(1, 4, 10, 6, seed=2)
    expected = run(serialized(built.model), x, optimize=False)
    assert decibels(expected, reference(graph, x)) > 30
    assert decibels(opened(rules, built.to_bytes()).run(None, {"x": x})[0], expected) > 45


@RUNTIMES
@pytest.mark.parametrize("integer", [["in"], ["in", "out"]], ids="-".join)
@pytest.mark.parametrize("slopes", [(5, 1, 1), (1,)], ids=["of channels", "one"])
def test_slopes_behind_integers_are_those_of_their_channels(rules, integer, slopes, capture, weight, run, noise):
    """On pictures whose sides and channels differ: an exchange of axes shows."""
    pytest.importorskip(PACKAGES[rules.runtime])
    graph = capture(
        "(float[1,3,10,6] x) => (float[n,c,h,w] y) { [in] a = Conv(x, w0)\n b = PRelu(a, s)\n [out] y = Conv(b, w1) }",
        w0=weight(5, 3, 1, 1),
        w1=weight(2, 5, 1, 1),
        s=np.linspace(-0.5, 0.8, int(np.prod(slopes)), dtype=np.float32).reshape(slopes),
    )
    builder = Builder(graph, {"x": np.concatenate([noise(1, 3, 10, 6, seed=n) for n in range(4)])}, rules=rules)
    built = builder.build(Candidate({name: LayerChoice(8, 8) for name in integer}))
    x = noise(1, 3, 10, 6, seed=2)
    expected = run(serialized(built.model), x, optimize=False)
    assert decibels(opened(rules, built.to_bytes()).run(None, {"x": x})[0], expected) > 45


@RUNTIMES
def test_a_grouped_deconvolution_is_built_with_any_choice(rules, capture, weight, run, noise):
    graph = capture(
        "(float[1,4,5,5] x) => (float[n,c,h,w] y) { [up] y = ConvTranspose<group=2, strides=[2,2], output_padding=[1,1], "
        "pads=[1,1,1,1]>(x, w) }",
        w=weight(4, 3, 3, 3),
    )
    pytest.importorskip(PACKAGES[rules.runtime])
    builder = Builder(graph, {"x": noise(4, 4, 5, 5)}, rules=rules)
    x = noise(1, 4, 5, 5, seed=2)
    for bits in rules.stored[32]:
        built = builder.build(Candidate({"up": LayerChoice(bits, 32)}))
        expected = run(serialized(built.model), x, optimize=False)
        assert decibels(opened(rules, built.to_bytes()).run(None, {"x": x})[0], expected) > 60


@pytest.fixture(scope="module")
def recurrent_builder(capture, noise):
    """A function (case, rules) that returns a builder, and one batch of inputs."""

    def of(case, rules):
        shape = (recurrent_models.STEPS, case.batch, recurrent_models.INPUTS)
        graph = capture(recurrent_models.text(case), **recurrent_models.constants(case))
        samples = 2 * noise(4 * shape[0], *shape[1:], seed=3)
        return Builder(graph, {"x": samples}, rules=rules), 2 * noise(*shape)

    return of


@pytest.mark.parametrize("bits", [8, 32])
@pytest.mark.parametrize("name", recurrent_models.CASES)
def test_recurrent_layers_are_the_same_in_pytorch(name, bits, recurrent_builder, run):
    builder, x = recurrent_builder(recurrent_models.CASES[name], LITERT)
    built = builder.build(Candidate({"core": LayerChoice(bits, 32)} if bits == 8 else {}))
    assert decibels(in_torch(built, x, stored=False), run(serialized(built.model), x, optimize=False)) > 100


@pytest.mark.parametrize(
    ("rules", "name"), [(LITERT, "bidirectional gru"), (EXECUTORCH, "lstm")], ids=["litert", "executorch"]
)
def test_files_of_recurrent_layers_compute_what_the_graph_says(rules, name, recurrent_builder, run):
    pytest.importorskip(PACKAGES[rules.runtime])
    builder, x = recurrent_builder(recurrent_models.CASES[name], rules)
    built = builder.build(Candidate({"core": LayerChoice(8, 32)} if rules is LITERT else {}))
    data = built.to_bytes()
    assert decibels(opened(rules, data).run(None, {"x": x})[0], run(serialized(built.model), x)) > NOISE_DB
    weights = builder.graph.weight(builder.graph.layers["core"])
    if rules is LITERT:
        codes = builder.static_layer(built.candidate, "core").codes
        assert np.ascontiguousarray(codes[0][:, : recurrent_models.INPUTS]).tobytes() in data
    else:
        assert np.ascontiguousarray(weights[0][:, recurrent_models.INPUTS :]).tobytes() in data


def test_slopes_of_rows_are_not_taken_for_those_of_channels(capture, weight, run, noise):
    """A PRelu whose slopes lie along the height, where there are as many rows as channels."""
    graph = capture(
        "(float[1,4,4,4] x) => (float[n,c,h,w] y) { a = Conv(x, w)\n y = PRelu(a, s) }",
        w=weight(4, 4, 1, 1),
        s=np.array([[[0.1], [0.5], [0.9], [0.3]]], np.float32),
    )
    built = Builder(graph, {"x": noise(4, 4, 4, 4)}, rules=LITERT).build(Candidate())
    x = noise(1, 4, 4, 4, seed=3)
    assert decibels(in_torch(built, x), run(serialized(built.model), x)) > 90
