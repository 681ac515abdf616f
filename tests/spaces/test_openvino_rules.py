"""Candidates for OpenVINO: which tensors lie on grids, how nodes and weights are written, and that OpenVINO runs them so."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfront.spaces.activations import rounded_tensors
from slimfront.spaces.attribution import stored_bytes
from slimfront.spaces.build import Builder, Built
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.errors import BuildError, InputError
from slimfront.spaces.openvino_domains import CARRYING
from slimfront.spaces.rules import OPENVINO
from slimfront.spaces.sensitivity import sensitivity
from slimfront.spaces.space import make_space, uniform

from .carrying import ALL, weights

NETWORK = (
    "(float[1,3,12,12] x) => (float[n,c,h,w] y) { [head] a = Conv<pads=[1,1,1,1]>(x, w0, b0)\n [act] b = Relu(a)\n"
    "[body] c = Conv<pads=[1,1,1,1]>(b, w1)\n [sum] d = Add(c, b)\n [pool] e = MaxPool<kernel_shape=[2,2], strides=[2,2]>(d)\n"
    "[low] f = Conv<pads=[1,1,1,1]>(e, w2, b2)\n [up] g = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(f, w3, b3)\n"
    "[cat] h = Concat<axis=1>(g, b)\n [mix] i = Conv(h, w4)\n [shuffle] j = DepthToSpace<blocksize=2>(i)\n"
    "[tail] y = Conv<pads=[1,1,1,1]>(j, w5, b5) }"
)


@pytest.fixture(scope="module")
def graph(capture, weight):
    return capture(NETWORK, **weights(weight))


@pytest.fixture(scope="module")
def builder(graph, noise):
    return Builder(graph, {"x": np.concatenate([noise(1, 3, 12, 12, seed=n) for n in range(4)])}, rules=OPENVINO)


def built(builder: Builder, bits: int = 8, layers=ALL, activation_bits: int = 8) -> Built:
    return builder.build(Candidate({name: LayerChoice(bits, activation_bits) for name in layers}))


def nodes_of(model: Built, op: str) -> list[onnx.NodeProto]:
    return [node for node in onnx.load_from_string(model.to_bytes()).graph.node if node.op_type == op]


def opened(model: Built):
    from slimfront.objectives.openvino import OpenVino

    pytest.importorskip("openvino")
    return OpenVino().open(model.to_bytes())


# --- which nodes read integers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "carried"),
    [
        (ALL, {"pool", "cat", "shuffle"}),
        (("low",), {"pool"}),
        (("mix",), {"cat"}),
        (("tail",), {"shuffle"}),
        (("head", "body", "up"), set()),
    ],
)
def test_what_moves_values_to_an_integer_layer_moves_integers(layers, carried, graph):
    candidate = Candidate({name: LayerChoice(8, 8) for name in layers})
    assert OPENVINO.integer_nodes(graph, candidate) == {*layers, *carried}


@settings(max_examples=40, deadline=None)
@given(st.sets(st.sampled_from(ALL)))
def test_a_carrier_is_in_integers_if_and_only_if_some_reader_is(graph, layers):
    found = OPENVINO.integer_nodes(graph, Candidate({name: LayerChoice(8, 8) for name in layers}))
    for node in graph.model.graph:
        behind = [use.node for value in node.outputs for use in value.uses()]
        if node.op_type in CARRYING:
            assert (node.name in found) == any(reader.name in found for reader in behind)
        else:
            assert (node.name in found) == (node.name in layers)


def test_a_layer_without_an_integer_kernel_is_named(capture, weight):
    text = "(float[1,4,9,9] x) => (float[n,c,h,w] y) { [up] y = ConvTranspose<group=2, strides=[2,2]>(x, w) }"
    builder = Builder(capture(text, w=weight(4, 2, 3, 3)), {"x": weight(2, 4, 9, 9)}, rules=OPENVINO)
    with pytest.raises(BuildError, match="'up'"):
        builder.build(Candidate({"up": LayerChoice(8, 8)}))
    assert not OPENVINO.has_integer_kernel(builder.graph, builder.graph.layers["up"])


# --- how it is written -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("activation_bits", [8, 32])
def test_a_file_is_valid_and_holds_the_codes(bits, activation_bits, builder, run, noise):
    """The same weights written by hand, as the float network computes with them."""
    model = built(builder, bits, activation_bits=activation_bits)
    onnx.checker.check_model(onnx.load_from_string(model.to_bytes()), full_check=True)
    x = noise(1, 3, 12, 12, seed=9)
    expected = builder.to_torch(model.candidate)(*_torch(x)).detach().numpy()
    assert np.abs(run(model, x, optimize=False) - expected).max() < 1e-3 * np.abs(expected).max()


def _torch(x):
    import torch

    return (torch.from_numpy(x),)


def test_files_shrink_with_the_bits(builder):
    sizes = [built(builder, bits).size_bytes for bits in (2, 4, 8)]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_the_bytes_of_each_layer_go_with_its_weights(bits, builder):
    found = stored_bytes(built(builder, bits), builder.graph)
    for name, layer in builder.graph.layers.items():
        weights = layer.parameters * bits / 8
        assert weights - 40 <= found[name] <= weights + 700, "scales, biases and shapes"


def test_all_that_a_concat_joins_lies_on_one_grid(builder):
    lowering = builder.lower(Candidate({name: LayerChoice(8, 8) for name in ALL}))
    lowering.run()
    assert lowering.grids["g"] == lowering.grids["b"], "b is read by body as well"
    low, high = (f(builder.statistics.range(name)[i] for name in ("b", "g", "h")) for i, f in ((0, min), (1, max)))
    scale, zero = lowering.grids["b"]
    assert scale == pytest.approx((high - low) / 255, rel=1e-5) and zero == round(-low / scale)


def test_readers_in_float_get_the_integers_that_are_there_but_for_the_models_own_ends(builder, capture, weight, noise):
    model = built(builder, layers=("body",))
    (total,) = nodes_of(model, "Add")
    decoded = {node.output[0] for node in nodes_of(model, "DequantizeLinear")}
    assert set(total.input) & decoded, "the sum reads what body reads"
    text = "(float[1,4,9,9] x) => (float[n,c,h,w] y) { [k] a = Conv(x, w)\n [s] y = Add(a, x) }"
    ends = Builder(capture(text, w=weight(4, 4, 1, 1)), {"x": noise(2, 4, 9, 9)}, rules=OPENVINO)
    (total,) = nodes_of(built(ends, layers=("k",)), "Add")
    assert "x" in total.input, "the model's input is in float anyway"


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
def test_a_transposed_convolution_is_a_convolution_and_a_shuffle(
    stride, kernel, capture, weight, noise, run, reference
):
    if kernel < stride:
        pytest.skip("leaves gaps")
    text = (
        f"(float[1,6,7,5] x) => (float[n,c,h,w] y) "
        f"{{ [up] y = ConvTranspose<strides=[{stride},{stride}], pads=[1,0,0,1], output_padding=[{stride - 1},0]>(x, w, b) }}"
    )
    graph = capture(text, w=weight(6, 5, kernel, kernel), b=weight(5, 1)[:, 0])
    x = noise(3, 6, 7, 5)
    model = built(Builder(graph, {"x": x}, rules=OPENVINO), layers=("up",))
    assert not nodes_of(model, "ConvTranspose")
    expected = reference(graph, x[:1])
    assert np.abs(run(model, x[:1]) - expected).max() < 0.03 * np.abs(expected).max()


def test_weights_are_stored_in_16_bits_and_beyond_them_is_an_error(builder, run, noise, capture, weight):
    model = built(builder, 16, activation_bits=32)
    x = noise(1, 3, 12, 12, seed=3)
    assert np.abs(run(model, x) - run(builder.build(Candidate()), x)).max() < 1e-2
    large = capture(
        "(float[1,2,4,4] x) => (float[n,c,h,w] y) { [k] y = Conv(x, w) }", w=np.full((2, 2, 1, 1), 1e6, np.float32)
    )
    with pytest.raises(BuildError, match="float16"):
        built(Builder(large, {"x": weight(1, 2, 4, 4)}, rules=OPENVINO), 16, ("k",), 32)


def test_weights_at_zero_are_not_offered_and_an_error_in_a_candidate(builder):
    space = make_space(builder.graph, sparsities=(0.0, 0.5), rules=OPENVINO)
    assert {choice.sparsity for choices in space.choices.values() for choice in choices} == {0.0}
    with pytest.raises(BuildError, match="sparsity must be 0"):
        builder.build(Candidate({"body": LayerChoice(8, 8, 0.5)}))


def test_sequential_repair_and_training_see_the_same_grids(builder, run, noise):
    candidate, _ = uniform(builder.graph, {"weight_bits": 4, "activation_bits": 8, "repair": "sequential"}, OPENVINO)
    x = noise(1, 3, 12, 12, seed=5)
    expected = builder.to_torch(candidate)(*_torch(x)).detach().numpy()
    difference = np.abs(run(builder.build(candidate), x) - expected)
    assert np.median(difference) < 1e-3 * np.abs(expected).max(), "but for what values between two integers become"


def test_the_tensors_that_are_rounded_are_known_with_the_layers_that_are_why(builder):
    found = {tensor.name: set(tensor.layers) for tensor in rounded_tensors(builder)}
    assert found == {
        "x": {"head"},
        "b": {"body", "mix"},
        "d": {"low"},
        "f": {"up"},
        "g": {"mix"},
        "i": {"tail"},
    }


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_only_channels_are_joined_in_integers(axis, capture, weight):
    channels = 8 if axis == 1 else 4
    text = (
        f"(float[1,4,8,8] x) => (float[n,c,h,w] y) {{ [a] p = Conv(x, v)\n [j] q = Concat<axis={axis}>(p, p)\n"
        "[m] r = MaxPool<kernel_shape=[2,2]>(q)\n [k] y = Conv(r, w) }"
    )
    graph = capture(text, v=weight(4, 4, 1, 1), w=weight(4, channels, 1, 1, seed=1))
    assert OPENVINO.has_integer_kernel(graph, graph.layers["k"]) == (axis == 1)


def test_a_range_that_is_much_larger_is_not_joined_with_others(capture, weight, noise, run, reference):
    """What another layer reads of the small tensor stays as fine as it was."""
    text = (
        "(float[1,4,8,8] x) => (float[n,c,h,w] y, float[n,d,h,w] z) { [a] p = Conv(x, v)\n [r] q = Relu(p)\n"
        "[s] t = Mul(x, fifty)\n [j] u = Concat<axis=1>(q, t)\n [b] y = Conv(u, w)\n [c] z = Conv(q, v) }"
    )
    weights = {"v": weight(4, 4, 1, 1), "w": weight(4, 8, 1, 1), "fifty": np.float32(50)}
    graph = capture(text, **weights)
    lowering = Builder(graph, {"x": noise(4, 4, 8, 8)}, rules=OPENVINO).lower(Candidate({"b": LayerChoice(8, 8)}))
    lowering.run()
    assert set(lowering.grids) == {"u"} and "j" not in lowering.integer


def test_zeros_are_padded_before_a_tensor_is_rounded(capture, weight, noise, run):
    """OpenVINO pads with zeros of the integers, whatever the zero point is."""
    text = (
        "(float[1,4,8,8] x) => (float[n,c,h,w] y) { [a] p = Conv(x, v)\n [q] q = Pad(p, pads)\n"
        "[k] y = Conv<pads=[1,1,1,1]>(q, w) }"
    )
    pads = np.array([0, 0, 0, 0, 0, 4, 0, 0])
    graph = capture(text, v=weight(4, 4, 1, 1), w=weight(4, 8, 3, 3), pads=pads)
    model = built(Builder(graph, {"x": noise(4, 4, 8, 8)}, rules=OPENVINO), layers=("k",))
    x = noise(1, 4, 8, 8, seed=3)
    expected = run(model, x, optimize=False)
    assert np.abs(opened(model).run(None, {"x": x})[0] - expected).max() < 0.02 * np.abs(expected).max()


def test_what_a_study_holds_and_uniform_candidates_keep_to_the_rules(builder):
    candidate, notes = uniform(builder.graph, {"weight_bits": 4, "sparsity": 0.5}, OPENVINO)
    assert not any(choice.sparsity for choice in candidate.layers.values())
    assert notes == [f"no sparse form, so sparsity is 0: {', '.join(ALL)}"]
    with pytest.raises(InputError, match=r"'body'.*sparsity must be 0"):
        make_space(builder.graph, fixed={"body": {"weight_bits": 4, "sparsity": 0.5}}, rules=OPENVINO)
    with pytest.raises(BuildError, match="sparsity must be 0"):
        builder.skeleton(Candidate({"body": LayerChoice(8, 8, 0.5)}))


@pytest.mark.parametrize("layer", ALL)
def test_what_rounding_a_layers_inputs_costs_is_what_a_run_shows(layer, capture, weight, noise, run):
    """Every tensor is read by one layer: all else in float, the output is off by what the sensitivities say."""
    found = _apart(capture, weight, noise)
    candidate = Candidate({layer: LayerChoice(8, 8)})
    x = found.calibration["x"]
    exact = np.concatenate([run(found.build(Candidate({layer: LayerChoice(8)})), each[None]) for each in x])
    rounded = np.concatenate([run(found.build(candidate), each[None], optimize=False) for each in x])
    space = make_space(found.graph, rules=OPENVINO)
    told = sensitivity(found, space).activations[layer]
    assert told == pytest.approx(float(np.mean((rounded - exact) ** 2)), rel=0.5)


def _apart(capture, weight, noise) -> Builder:
    """A chain of the layers' names, of convolutions and an activation that is smooth."""
    steps, read = [], "x"
    for name in ALL:
        steps.append(
            f"[{name}] {name}_a = Conv<pads=[1,1,1,1]>({read}, {name}_w)\n [{name}_s] {name}_b = Sigmoid({name}_a)"
        )
        read = f"{name}_b"
    shapes = {name: (6, 3 if name == ALL[0] else 6, 3, 3) for name in ALL}
    text = f"(float[1,3,10,10] x) => (float[n,c,h,w] y) {{ {' '.join(steps)} y = Identity({read}) }}"
    weights = {f"{name}_w": weight(*shape, seed=number) for number, (name, shape) in enumerate(shapes.items())}
    return Builder(capture(text, **weights), {"x": noise(6, 3, 10, 10)}, rules=OPENVINO)


# --- what OpenVINO makes of it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_openvino_runs_all_of_it_in_integers_at_any_width(bits, builder, noise, run):
    model = built(builder, bits)
    session = opened(model)
    assert model.fallbacks(session.integer_products()) == []
    x = noise(1, 3, 12, 12, seed=4)
    expected = run(model, x, optimize=False)
    assert np.abs(session.run(None, {"x": x})[0] - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("bits", [3, 8, 16])
def test_openvino_unpacks_weights_once_when_it_opens_a_file(bits, builder):
    """No kernel works on what is stored: the same kernels as without compression."""
    pytest.importorskip("openvino")
    ops = [
        Counter(kernel.short_op for kernel in opened(model).kernels())
        for model in (builder.build(Candidate()), built(builder, bits, activation_bits=32))
    ]
    assert ops[0] == ops[1]


@pytest.mark.parametrize("layers", [ALL, ("body", "mix"), ("up",)])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_skeleton_runs_the_kernels_of_the_real_file(layers, bits, builder):
    pytest.importorskip("openvino")
    candidate = Candidate({name: LayerChoice(bits, 8) for name in layers})
    real, bare = (
        Counter(kernel.key for kernel in opened(model).kernels())
        for model in (builder.build(candidate), builder.skeleton(candidate))
    )
    assert real == bare
