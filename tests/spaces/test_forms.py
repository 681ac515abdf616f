"""Forms: each equals the layer that it stands for, wherever it is offered; rounded, pruned and repaired as any other layer."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import DYNAMIC, FORM_NAMES, NATIVE, Candidate, LayerChoice
from slimfront.spaces.errors import InputError
from slimfront.spaces.forms import FORMS, formed, valid_forms
from slimfront.spaces.groups import fitting
from slimfront.spaces.space import make_space

NEAREST = 'mode="nearest",coordinate_transformation_mode="asymmetric",nearest_mode="floor"'
FORMED = list(FORMS)


def upsampled(kernel, pads, factors, channels=(3, 4), bias=True, seed=0, **changed):
    """Return the text and the constants of a nearest upsampling and the Conv behind it."""
    random = np.random.default_rng(seed)
    constants = {
        "f": np.float32([1, 1, *factors]),
        "w": random.standard_normal((channels[1], channels[0], *kernel)).astype(np.float32),
    }
    if bias:
        constants["b"] = random.standard_normal(channels[1]).astype(np.float32)
    changed |= {} if pads is None else {"pads": list(pads)}
    attributes = ",".join(f"{key}={value}" for key, value in changed.items())
    text = (
        f"(float[1,{channels[0]},5,6] x) => (float[n,c,h,w] y) {{ u = Resize<{NEAREST}>(x, , f)\n"
        f"[up] y = Conv<{attributes}>(u, w{', b' * bias}) }}"
    )
    return text, constants


@pytest.fixture(scope="module")
def equal(run, reference):
    """A function (graph, name, form, x) that asserts that a graph with a formed layer gives the same."""

    def check(graph, name: str, form: str, x: np.ndarray) -> None:
        assert form in valid_forms(graph, graph.layers[name])
        expected = reference(graph, x)
        found = run(ir.to_proto(formed(graph, {name: form}).model).SerializeToString(), x)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < 1e-4 * max(float(np.ptp(expected)), 1.0)

    return check


def test_every_name_has_a_form():
    assert (NATIVE, *FORMS, DYNAMIC) == FORM_NAMES


@st.composite
def geometries(draw):
    kernel = [draw(st.sampled_from([1, 2, 3, 5])) for _ in range(2)]
    pads = [draw(st.integers(0, k - 1)) for k in kernel * 2]
    factors = draw(st.sampled_from([(2, 2), (3, 3), (1, 2), (2, 1), (4, 4), (3, 2)]))
    return {
        "kernel": kernel,
        "pads": pads,
        "factors": factors,
        "bias": draw(st.booleans()),
        "seed": draw(st.integers(0, 99)),
    }


@settings(max_examples=60, deadline=None)
@given(geometry=geometries())
def test_phases_equal_any_upsampled_convolution(geometry, capture, equal, noise):
    text, constants = upsampled(**geometry)
    equal(capture(text, **constants), "up", "phases", noise(1, 3, 5, 6, seed=geometry["seed"]))


@pytest.mark.parametrize("transform", ["asymmetric", "half_pixel"])
@pytest.mark.parametrize("factors", [(2, 2), (3, 3), (1, 2)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_common_upsampled_convolutions_have_phases(kernel, factors, transform, capture, equal, noise):
    text, constants = upsampled((kernel, kernel), [kernel // 2] * 4, factors)
    if transform == "half_pixel":
        text = text.replace(NEAREST, 'mode="nearest"')
    graph = capture(text, **constants)
    equal(graph, "up", "phases", noise(2, 3, 5, 6)[:1])
    layer = formed(graph, {"up": "phases"}).layers["up"]
    assert (layer.op, layer.strides) == ("ConvTranspose", factors)
    assert layer.shape == (3, 4, *(kernel + factor - 1 for factor in factors))


@pytest.mark.parametrize(
    "changed",
    [
        {"pads": [1] * 4, "strides": [2, 2]},
        {"pads": [1] * 4, "dilations": [2, 1]},
        {"pads": [3, 0, 0, 0]},
    ],
)
def test_other_convolutions_have_no_phases(changed, capture):
    text, constants = upsampled((3, 3), factors=(2, 2), **changed)
    graph = capture(text, **constants)
    assert valid_forms(graph, graph.layers["up"]) == (NATIVE,)


def test_pads_that_the_runtime_chooses_are_followed(capture, equal, noise):
    text, constants = upsampled((2, 3), None, (2, 2), auto_pad='"SAME_UPPER"')
    equal(capture(text, **constants), "up", "phases", noise(1, 3, 5, 6))


@pytest.mark.parametrize(
    "before",
    [
        'u = Resize<mode="linear">(x, , f)',
        "u = Relu(x)",
        'u = Resize<mode="nearest",coordinate_transformation_mode="asymmetric",nearest_mode="ceil">(x, , f)',
        f"u = Resize<{NEAREST}>(x, , g)",
        f"v = Resize<{NEAREST}>(x, , f)\n u = Relu(v)",
    ],
)
def test_convolutions_behind_other_ops_have_no_phases(before, capture):
    text, constants = upsampled((3, 3), [1] * 4, (2, 2))
    body = text.replace(f"u = Resize<{NEAREST}>(x, , f)", before)
    used = {key: value for key, value in {**constants, "g": np.float32([1, 1, 1, 1])}.items() if f" {key}" in body}
    graph = capture(body, **used)
    assert valid_forms(graph, graph.layers["up"]) == (NATIVE,)


def test_grouped_convolutions_have_no_phases(capture, weight):
    text, constants = upsampled((3, 3), [1] * 4, (2, 2), channels=(4, 4), group=2)
    graph = capture(text, **{**constants, "w": weight(4, 2, 3, 3)})
    assert valid_forms(graph, graph.layers["up"]) == (NATIVE,)


def test_an_upsampling_to_a_size_has_phases_only_where_its_input_has_one_size(capture, weight):
    text = (
        "(float[1,3,{0}] x) => (float[n,c,h,w] y) {{ u = Resize<" + NEAREST + ">(x, , , s)\n"
        "[up] y = Conv<pads=[1,1,1,1]>(u, w) }}"
    )
    constants = {"s": np.array([1, 3, 10, 12]), "w": weight(4, 3, 3, 3)}
    fixed = capture(text.format("5,6"), **constants)
    assert valid_forms(fixed, fixed.layers["up"]) == (NATIVE, "phases")
    free = capture(text.format("h,w"), (1, 3, 5, 6), **constants)
    assert valid_forms(free, free.layers["up"]) == (NATIVE,)


def test_an_upsampling_by_factors_has_phases_at_every_size(capture, equal, noise):
    text, constants = upsampled((3, 3), [1] * 4, (2, 2))
    graph = capture(text.replace("5,6", "h,w"), (1, 3, 5, 6), **constants)
    equal(graph, "up", "phases", noise(1, 3, 9, 4))


def test_an_upsampling_with_other_readers_stays(capture, equal, noise):
    text, constants = upsampled((3, 3), [1] * 4, (2, 2), channels=(3, 3))
    graph = capture(text.replace("[up] y = Conv", "[up] z = Conv").replace(" }", "\n y = Add(z, u) }"), **constants)
    equal(graph, "up", "phases", noise(1, 3, 5, 6))
    assert "Resize" in {node.op_type for node in formed(graph, {"up": "phases"}).model.graph}
    assert {node.op_type for node in graph.model.graph} == {
        "Resize",
        "Conv",
        "Add",
    }  # the captured graph is not touched


def test_shared_weights_have_phases_where_all_their_nodes_are_upsampled_alike(capture, equal, noise, weight):
    body = (
        f"(float[1,3,5,6] x) => (float[n,c,h,w] y) {{ u = Resize<{NEAREST}>(x, , f)\n"
        "[up] a = Conv<pads=[1,1,1,1]>(u, w)\n b = Tanh(x)\n BEFORE\n"
        "[again] d = Conv<pads=[1,1,1,1]>(c, w)\n AFTER }"
    )
    constants = {"f": np.float32([1, 1, 2, 2]), "w": weight(4, 3, 3, 3)}

    def captured(before: str, after: str):
        return capture(body.replace("BEFORE", before).replace("AFTER", after), **constants)

    graph = captured(f"c = Resize<{NEAREST}>(b, , f)", "y = Add(a, d)")
    assert graph.layers["up"].nodes == ("up", "again")
    equal(graph, "up", "phases", noise(1, 3, 5, 6))
    other = captured("c = Relu(b)", f"e = Resize<{NEAREST}>(d, , f)\n y = Add(a, e)")
    assert valid_forms(other, other.layers["up"]) == (NATIVE,)


# --- candidates --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network(capture):
    """Three convolutions, the second and third upsampled; half of the channels between them are always zero."""
    random = np.random.default_rng(3)

    def weights(outputs: int, inputs: int, dead_outputs: bool) -> np.ndarray:
        values = random.standard_normal((outputs, inputs, 3, 3)) / np.sqrt(9 * inputs)
        values[1::2] *= not dead_outputs
        return values.astype(np.float32)

    biases = [np.where(np.arange(16) % 2, 0, 0.3).astype(np.float32) for _ in range(2)]
    return capture(
        "(float[1,3,8,8] x) => (float[n,c,h,w] y) { [first] a = Conv<pads=[1,1,1,1]>(x, w0, b0)\n ra = Relu(a)\n"
        f"u = Resize<{NEAREST}>(ra, , f)\n [middle] b = Conv<pads=[1,1,1,1]>(u, w1, b1)\n rb = Relu(b)\n"
        f"v = Resize<{NEAREST}>(rb, , f)\n [last] y = Conv<pads=[1,1,1,1]>(v, w2) }}",
        f=np.float32([1, 1, 2, 2]), w0=weights(16, 3, True), w1=weights(16, 16, True), w2=weights(3, 16, False),
        b0=biases[0], b1=biases[1],
    )  # fmt: skip


@pytest.fixture(scope="module")
def builder(network, noise):
    return Builder(network, {"x": noise(8, 3, 8, 8)})


def psnr(found: np.ndarray, expected: np.ndarray) -> float:
    return float(10 * np.log10(np.ptp(expected) ** 2 / np.mean((found - expected) ** 2)))


def in_phases(bits: int = 32, activation_bits: int = 32, **more) -> Candidate:
    formed = dict.fromkeys(("middle", "last"), LayerChoice(bits, activation_bits, form="phases"))
    return Candidate({"first": LayerChoice(bits, activation_bits), **formed}, **more)


def test_an_uncompressed_formed_candidate_is_exact(network, builder, reference, run, noise, optimized):
    x, built = noise(1, 3, 8, 8, seed=5), builder.build(in_phases())
    expected = reference(network, x)
    assert np.abs(run(built, x) - expected).max() < 1e-5 * np.ptp(expected)
    assert optimized(built).ops["ConvTranspose"] == 2 and not optimized(built).ops["Resize"]


@pytest.mark.parametrize("repair", ["static", "sequential"])
@pytest.mark.parametrize(("bits", "activation_bits", "least"), [(7, 8, 32), (6, 32, 36), (4, 32, 22)])
def test_a_rounded_formed_candidate_is_close(
    bits, activation_bits, least, repair, network, builder, reference, run, noise, optimized
):
    x, built = noise(1, 3, 8, 8, seed=5), builder.build(in_phases(bits, activation_bits, repair=repair))
    assert psnr(run(built, x), reference(network, x)) > least
    assert psnr(run(built, x, optimize=False), reference(network, x)) > least
    if activation_bits == 8:
        seen = optimized(built)
        assert not seen.lacking and seen.ops["QLinearConv"] == 3 and not seen.ops["ConvTranspose"]


@pytest.mark.parametrize("repair", ["static", "sequential"])
@pytest.mark.parametrize(("bits", "activation_bits", "least"), [(32, 32, 80), (7, 8, 32), (6, 32, 36)])
def test_channels_that_are_zero_can_be_removed_from_formed_layers(
    bits, activation_bits, least, repair, network, builder, reference, run, noise
):
    candidate = in_phases(bits, activation_bits, groups={"first": 0.5, "middle": 0.5}, repair=repair)
    x, built = noise(1, 3, 8, 8, seed=5), builder.build(candidate)
    assert psnr(run(built, x), reference(network, x)) > least
    assert built.size_bytes < builder.build(replace_groups(candidate)).size_bytes


def replace_groups(candidate: Candidate) -> Candidate:
    return Candidate(candidate.layers, repair=candidate.repair)


def test_sparse_formed_layers_run(network, builder, reference, run, noise):
    choice = LayerChoice(8, 32, 0.5, "phases")
    x, built = noise(1, 3, 8, 8, seed=5), builder.build(Candidate({"middle": choice}))
    assert psnr(run(built, x), reference(network, x)) > 15


@pytest.mark.parametrize(
    "candidate",
    [in_phases(), in_phases(8, 8), in_phases(4, 32), in_phases(8, 8, groups={"first": 0.5, "middle": 0.25})],
)
def test_the_skeleton_runs_the_kernels_of_the_build(candidate, builder, optimized):
    assert optimized(builder.skeleton(candidate)).ops == optimized(builder.build(candidate)).ops


def test_layers_that_are_not_formed_are_rounded_as_ever(builder):
    native = builder.static_layer(Candidate({"first": LayerChoice(4)}), "first")
    beside = builder.static_layer(in_phases(4), "first")
    assert np.array_equal(native.codes, beside.codes)


def test_a_form_that_a_layer_cannot_take_is_refused_with_what_it_can_take(network, builder):
    candidate = Candidate({"first": LayerChoice(form="phases")})
    message = r"layer 'first' \(Conv\) cannot take form 'phases'; it can take native"
    with pytest.raises(InputError, match=message):
        builder.build(candidate)
    with pytest.raises(InputError, match=message):
        builder.skeleton(candidate)
    with pytest.raises(InputError, match=message):
        fitting(network, candidate)
    with pytest.raises(InputError, match=rf"^space.fixed.'first': {message}"):
        make_space(network, fixed={"first": {"form": "phases"}})


def test_a_glob_holds_the_form_where_a_layer_can_take_it(network):
    space = make_space(network, fixed={"*": {"weight_bits": 8, "form": "phases"}})
    assert [choices[0].form for choices in space.choices.values()] == [NATIVE, "phases", "phases"]
    assert all(len(choices) == 1 for choices in space.choices.values())


def test_a_form_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(
        InputError, match=re.escape("form must be one of native, phases, dynamic, but got 'phase' (did you mean")
    ):
        LayerChoice(form="phase")
