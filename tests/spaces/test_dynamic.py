"""Layers whose inputs are put on a grid at each inference: what they compute, in which kernels, and where they are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slimfront.objectives.node_features import NodeFeatures, structures
from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import DYNAMIC, Candidate, LayerChoice
from slimfront.spaces.errors import BuildError, InputError
from slimfront.spaces.fake_quantise import on_own_grid
from slimfront.spaces.kernels import read_kernels
from slimfront.spaces.offers import FormOffer, Offer
from slimfront.spaces.rules import ONNX_RUNTIME, OPENVINO
from slimfront.spaces.session import open_session
from slimfront.spaces.skeleton import structure
from slimfront.spaces.space import make_space
from slimfront.spaces.weights import per_channel

from .recurrent_models import CASES, INPUTS, STEPS, constants, expected, text

PRODUCTS = {
    "gemm": "(float[9,16] x) => (float[a,b] y) { [p] y = Gemm(x, w, b) }",
    "gemm turned": "(float[9,16] x) => (float[a,b] y) { [p] y = Gemm<transB=1>(x, t, b) }",
    "gemm without bias": "(float[9,16] x) => (float[a,b] y) { [p] y = Gemm<transB=1>(x, t) }",
    "matmul of rank 2": "(float[9,16] x) => (float[a,b] y) { [p] y = MatMul(x, w) }",
    "matmul of rank 3 and its bias": "(float[2,9,16] x) => (float[a,b,c] y) { [p] h = MatMul(x, w)\n y = Add(h, b) }",
}
NEEDED = {"gemm": "wb", "gemm turned": "tb", "gemm without bias": "t", "matmul of rank 2": "w"}


@pytest.fixture(scope="module")
def products(capture, weight):
    """A function (name) that returns the graph of one of the products."""
    values = {"w": weight(12, 16).T.copy(), "t": weight(12, 16), "b": 0.5 * weight(12)}
    return lambda name: capture(PRODUCTS[name], **{key: values[key] for key in NEEDED.get(name, "wb")})


def on_grid(x: np.ndarray) -> np.ndarray:
    """Return a tensor on the grid of 256 steps that spans it and 0."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = np.float32((high - low) / 255)
    zero = np.rint(np.clip(-low / scale, 0, 255))
    return ((np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale).astype(np.float32)


@pytest.mark.parametrize("bits", [3, 7, 8])
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_reads_its_inputs_on_the_grid_that_they_span(
    name, bits, products, noise, run, skip_saturated, optimized
):
    skip_saturated(bits)
    graph = products(name)
    shape = graph.inputs[0].shape
    builder = Builder(graph, {"x": noise(4 * shape[0], *shape[1:])})
    candidate = Candidate({"p": LayerChoice(bits, 8, form=DYNAMIC)})
    layer, found = graph.layers["p"], builder.static_layer(candidate, "p")
    weight = found.codes * per_channel(layer, found.scale)
    matrix = weight.T if layer.transposed else weight
    built = builder.build(candidate)
    for factor in (0.2, 5.0):  # far from the calibration data: there is no range to leave
        x = factor * noise(*shape, seed=9)
        wanted = on_grid(x) @ matrix + found.shift + (graph.constant("b") if "b" in NEEDED.get(name, "wb") else 0)
        assert np.allclose(run(built, x), wanted, atol=1e-4 * factor)
    assert not optimized(built).lacking


def test_the_kernels_are_the_runtimes_dynamic_ones(products, noise, tmp_path):
    path = tmp_path / "optimized.onnx"
    for name in PRODUCTS:
        shape = products(name).inputs[0].shape
        builder = Builder(products(name), {"x": noise(4 * shape[0], *shape[1:])})
        built = builder.build(Candidate({"p": LayerChoice(4, 8, form=DYNAMIC)}))
        open_session(built.to_bytes(), optimized_path=path)
        kernels = [kernel for kernel in read_kernels(path, {"x": shape}) if kernel.is_product]
        assert [kernel.short_op for kernel in kernels] == ["DynamicQuantizeMatMul"]
        assert kernels[0].integer and kernels[0].multiply_adds == int(np.prod(shape)) * 12


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.op == "LSTM"])
@pytest.mark.parametrize("bits", [4, 7])
def test_an_lstm_in_integers_is_near_the_one_with_its_rounded_weights(name, bits, capture, noise, run, optimized):
    """Beyond the weights' rounding it loses what eight bits for inputs and states lose, about 1 % of the outputs' range."""
    case = CASES[name]
    graph = capture(text(case), **constants(case))
    builder = Builder(graph, {"x": 2 * noise(8 * STEPS, case.batch, INPUTS, seed=3)})
    x = 2 * noise(STEPS, case.batch, INPUTS)
    candidate = Candidate({"core": LayerChoice(bits, 8, form=DYNAMIC)})
    built, plain = builder.build(candidate), builder.build(Candidate({"core": LayerChoice(bits)}))
    found = run(built, x)
    error, rounding = np.abs(found - run(plain, x)), np.abs(run(plain, x) - expected(case, x, {}))
    assert 0 < error.max() < 0.03 * np.ptp(found)
    assert bits > 4 or error.mean() < rounding.mean()
    seen = optimized(built)
    assert seen.ops["DynamicQuantizeLSTM"] == 1 and not seen.lacking
    assert set(seen.ops) <= {"DynamicQuantizeLSTM", "Transpose", "Reshape", "Gemm"}
    trainee = builder.to_torch(candidate)(torch.from_numpy(x)).detach().numpy()
    assert np.abs(trainee - found).max() < 0.03 * np.ptp(found)


def test_the_grid_in_pytorch_is_the_runtimes():
    import onnx

    for seed, offset in enumerate((0.0, 3.0, -3.0)):
        x = (np.random.default_rng(seed).standard_normal((7, 5)) + offset).astype(np.float32)
        model = onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["": 21]> g (float[7,5] x) => (float[7,5] y) '
            "{ q, s, z = DynamicQuantizeLinear(x)\n y = DequantizeLinear(q, s, z) }"
        )
        wanted = open_session(model.SerializeToString()).run(None, {"x": x})[0]
        assert np.allclose(on_own_grid(torch.from_numpy(x)).numpy(), wanted, atol=1e-6)


def test_a_candidate_in_another_form_has_another_key_and_the_native_one_the_old():
    native, dynamic = (Candidate({"p": LayerChoice(8, 8, form=form)}) for form in ("native", DYNAMIC))
    assert native.key != dynamic.key and native == Candidate.from_json(native.to_json())
    assert native.to_json()["layers"]["p"] == {"weight_bits": 8, "activation_bits": 8}
    assert dynamic == Candidate.from_json(dynamic.to_json())
    assert structure(dynamic).choice("p").form == DYNAMIC


def test_float_activations_cannot_be_dynamic():
    with pytest.raises(InputError, match="form 'dynamic' needs activation_bits 8, but got activation_bits 32"):
        LayerChoice(8, 32, form=DYNAMIC)


def test_what_cannot_be_dynamic_says_so(capture, weight, noise, products):
    image = capture("(float[1,4,8,8] x) => (float[a,b,c,d] y) { [k] y = Conv(x, w) }", w=weight(6, 4, 1, 1))
    gru = capture(text(CASES["gru"]), **constants(CASES["gru"]))
    for graph, name, op in ((image, "k", "Conv"), (gru, "core", "GRU")):
        builder = Builder(graph, {"x": noise(*graph.inputs[0].shape)})
        with pytest.raises(
            InputError, match=rf"layer '{name}' \({op}\) cannot take form 'dynamic'; it can take native"
        ):
            builder.build(Candidate({name: LayerChoice(8, 8, form=DYNAMIC)}))
    graph = products("gemm")
    builder = Builder(graph, {"x": noise(9, 16)}, rules=OPENVINO)
    with pytest.raises(BuildError, match="layer 'p': openvino has no Gemm that finds the grid of its inputs"):
        builder.build(Candidate({"p": LayerChoice(8, 8, form=DYNAMIC)}))
    with pytest.raises(InputError, match="openvino has no Gemm that finds the grid of its inputs"):
        make_space(graph, fixed={"p": {"weight_bits": 8, "activation_bits": 8, "form": DYNAMIC}}, rules=OPENVINO)


def test_a_space_offers_it_where_it_was_measured_to_be_faster(capture):
    graph = capture(text(CASES["lstm"]), **constants(CASES["lstm"]))
    offers = {"core": Offer(forms={DYNAMIC: FormOffer(1.0, {8: 0.5})})}
    space = make_space(graph, weight_bits=(4, 8, 32), sparsities=(0.0, 0.5), offers=offers, saturation_safe=True)
    core = space.choices["core"]
    assert {choice for choice in core if choice.form == DYNAMIC} == {
        LayerChoice(4, 8, zeros, DYNAMIC) for zeros in (0.0, 0.5)
    }
    assert all(choice.form == "native" for choice in space.choices["head"])
    assert space.relative("core", LayerChoice(4, 8, form=DYNAMIC)) == (1.0, 0.5)
    assert not space.formed
    without = make_space(graph, weight_bits=(4, 8, 32), activation_bits=(32,), offers=offers)
    assert all(choice.form == "native" for choice in without.choices["core"])


def test_a_held_layer_may_be_dynamic_and_a_glob_leaves_out_those_that_cannot(capture):
    case = CASES["gru"]
    graph = capture(text(case), **constants(case))
    fixed = {"*": {"weight_bits": 8, "activation_bits": 8, "form": DYNAMIC}}
    space = make_space(graph, fixed=fixed)
    assert space.choices["core"] == (LayerChoice(8, 32),)
    assert space.choices["head"] == (LayerChoice(8, 8, form=DYNAMIC),)


def test_the_features_of_a_node_tell_its_three_states_apart(products):
    graph = products("gemm")
    choices = [LayerChoice(8, 8), LayerChoice(8, 32), LayerChoice(8, 8, form=DYNAMIC)]
    features = NodeFeatures(graph, {}, ONNX_RUNTIME)
    found = structures(graph, [Candidate({"p": choice}) for choice in choices], ONNX_RUNTIME)
    (product,) = (rows for name, rows in zip(features.names, features.of(found), strict=True) if name == "p")
    assert np.array_equal(product[:, :, 0] != 0, np.eye(3, dtype=bool))
