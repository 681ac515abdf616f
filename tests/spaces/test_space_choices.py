"""The space: which pairs of bits each layer may have, what is held, and the uniform candidates."""

from __future__ import annotations

import numpy as np
import pytest

from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.errors import InputError
from slimfront.spaces.space import layer_activation_bits, make_space, parse_uniform, uniform


@pytest.fixture(scope="module")
def graph(capture, weight):
    """Two plain convolutions, one in one dimension (no integer kernel) and a grouped ConvTranspose (none either)."""
    return capture(
        "(float[1,4,8,8] x) => (float[n,c,l] y) { [enc_0] a = Conv<pads=[1,1,1,1]>(x, w)\n [enc_1] b = Conv(a, v)\n"
        "[up] c = ConvTranspose<group=2,strides=[2,2]>(b, u)\n d = Reshape(c, s)\n [line] y = Conv(d, t) }",
        w=weight(8, 4, 3, 3), v=weight(8, 8, 1, 1), u=weight(8, 4, 2, 2), t=weight(3, 8, 3),
        s=np.array([1, 8, 256]),
    )  # fmt: skip


def pairs(*bits_and_activations: tuple[int, int]) -> tuple[LayerChoice, ...]:
    return tuple(LayerChoice(*pair) for pair in bits_and_activations)


def test_the_default_space_offers_every_pair_that_an_op_can_have(graph):
    space = make_space(graph)
    integers = [(bits, 8) for bits in (2, 3, 4, 5, 6, 8)]
    floats = [(bits, 32) for bits in (2, 3, 4, 5, 6, 8, 32)]
    assert list(space.choices) == ["enc_0", "enc_1", "up", "line"]
    assert space.choices["enc_0"] == space.choices["enc_1"] == pairs(*integers, *floats)
    assert space.choices["up"] == space.choices["line"] == pairs(*floats)
    assert space.varies and space.size == 13 * 13 * 7 * 7


def test_layers_without_integer_kernel_are_known(graph):
    found = {name: layer_activation_bits(graph, layer) for name, layer in graph.layers.items()}
    assert found == {"enc_0": (8, 32), "enc_1": (8, 32), "up": (32,), "line": (32,)}


def test_16_bits_go_with_float_activations_only(graph):
    space = make_space(graph, weight_bits=(4, 16), activation_bits=(8, 32))
    assert space.choices["enc_0"] == pairs((4, 8), (4, 32), (16, 32))


def test_saturation_safe_leaves_out_8_bits_in_integer_layers_only(graph):
    space = make_space(graph, weight_bits=(7, 8), saturation_safe=True)
    assert space.choices["enc_0"] == pairs((7, 8), (7, 32), (8, 32))


def test_globs_hold_layers_and_exact_names_count_most(graph):
    fixed = {"enc_1": {"weight_bits": 3}, "enc_*": {"weight_bits": 8, "activation_bits": 8}, "*ne": {"weight_bits": 6}}
    space = make_space(graph, fixed=fixed)
    assert space.choices["enc_0"] == pairs((8, 8))
    assert space.choices["enc_1"] == pairs((3, 32))
    assert space.choices["line"] == pairs((6, 32))
    assert len(space.choices["up"]) == 7


def test_the_last_of_several_globs_counts(graph):
    space = make_space(graph, fixed={"enc_*": {"weight_bits": 8}, "*": {"weight_bits": 5}})
    assert {choice for choices in space.choices.values() for choice in choices} == set(pairs((5, 32)))


def test_a_name_with_brackets_is_taken_as_it_is(capture, weight):
    graph = capture("(float[1,4,8,8] x) => (float[n,c,h,w] y) { [k] y = Conv(x, w) }", w=weight(4, 4, 1, 1))
    import onnx_ir as ir

    from slimfront.spaces.graph import Graph

    model = ir.from_proto(ir.to_proto(graph.model))
    next(iter(model.graph)).name = "blocks[0]/conv"
    named = Graph(model, {"x": (1, 4, 8, 8)})
    assert make_space(named, fixed={"blocks[0]/conv": {"weight_bits": 4}}).size == 1


def test_a_space_in_which_nothing_varies_says_so(graph):
    space = make_space(graph, weight_bits=(32,), activation_bits=(32,))
    assert not space.varies and space.size == 1
    assert space.contains(Candidate())
    assert not make_space(graph, fixed={"*": {"weight_bits": 4}}).varies


def test_a_space_contains_what_it_offers(graph):
    space = make_space(graph, weight_bits=(4, 8), activation_bits=(8, 32), fixed={"line": {"weight_bits": 8}})
    inside = {"enc_0": LayerChoice(4, 8), "enc_1": LayerChoice(8), "up": LayerChoice(4), "line": LayerChoice(8)}
    assert space.contains(Candidate(inside))
    assert not space.contains(Candidate(inside, repair="sequential"))  # its twin: samplers propose static repair
    for name, choice in (("line", LayerChoice(4)), ("up", LayerChoice(5)), ("enc_0", LayerChoice())):
        assert not space.contains(Candidate({**inside, name: choice}))
    assert not space.contains(Candidate({**inside, "other": LayerChoice(4)}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight_bits": (1,)}, r"space\.weight_bits: \[1\] is not a choice of 2, 3, 4, 5, 6, 7, 8, 16, 32"),
        ({"weight_bits": (4, 9)}, r"space\.weight_bits: \[4, 9\]"),
        ({"weight_bits": ()}, r"space\.weight_bits: \[\]"),
        ({"activation_bits": (4,)}, r"space\.activation_bits: \[4\] is not a choice of 8, 32"),
        ({"activation_bits": (8,)}, r"fits layer 'up' \(ConvTranspose\); add activation_bits 32"),
        ({"weight_bits": (16,), "activation_bits": (8,)}, r"fits layer 'enc_0'"),
        ({"fixed": {"enc0": {"weight_bits": 4}}}, r"there is no layer or channel group 'enc0' \(did you mean 'enc_0'\?\)"),
        ({"fixed": {"dec.*": {"weight_bits": 4}}}, r"space\.fixed: there is no layer or channel group 'dec\.\*'"),
        ({"fixed": {"up": {"weight_bit": 4}}}, r"unknown key 'weight_bit' \(did you mean 'weight_bits'\?\)"),
        ({"fixed": {"up": {"weight_bits": 9}}}, r"space\.fixed\.'up': weight_bits must be one of"),
        ({"fixed": {"enc_0": {"activation_bits": 8}}}, r"space\.fixed\.'enc_0': activation_bits 8 needs weight_bits 2-8"),
        ({"fixed": {"u*": {"weight_bits": 4, "activation_bits": 8}}}, r"layer 'up' has no integer kernel"),
    ],
)  # fmt: skip
def test_bad_spaces_are_refused_in_one_line(settings, message, graph):
    with pytest.raises(InputError, match=message) as caught:
        make_space(graph, **settings)
    assert "\n" not in str(caught.value)


# --- uniform --------------------------------------------------------------------------------------------------------


def test_uniform_gives_each_layer_the_value_or_the_nearest_less_compressed(graph):
    candidate, notes = uniform(graph, {"weight_bits": 4, "activation_bits": 8})
    assert candidate == Candidate(
        {"enc_0": LayerChoice(4, 8), "enc_1": LayerChoice(4, 8), "up": LayerChoice(4), "line": LayerChoice(4)}
    )
    assert len(notes) == 1 and "up, line" in notes[0]


def test_uniform_without_values_is_the_reference(graph):
    assert uniform(graph, {}) == (Candidate(), [])
    assert uniform(graph, {"weight_bits": 32}) == (Candidate(), [])


def test_uniform_takes_the_repair(graph):
    assert uniform(graph, {"weight_bits": 4, "repair": "sequential"})[0].repair == "sequential"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight_bits": 9}, r"weight_bits must be one of"),
        ({"activation_bits": 8}, r"activation_bits 8 needs weight_bits 2-8"),
        ({"weight_bits": 4, "repair": "statik"}, r"repair must be one of static, sequential, but got 'statik'"),
        ({"bits": 4}, r"unknown key 'bits'"),
    ],
)
def test_bad_uniform_values_are_refused(values, message, graph):
    with pytest.raises(InputError, match=message):
        uniform(graph, values)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("weight_bits=4,activation_bits=8,repair=static", {"weight_bits": 4, "activation_bits": 8, "repair": "static"}),
        (" weight_bits = 4 , repair=sequential ", {"weight_bits": 4, "repair": "sequential"}),
        ("weight_bits=16,", {"weight_bits": 16}),
    ],
)
def test_uniform_texts_are_read(text, values):
    assert parse_uniform(text) == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("weight_bit=4", r"unknown key 'weight_bit' \(did you mean 'weight_bits'\?\)"),
        ("weight_bits", r"'weight_bits' needs a value"),
        ("weight_bits=", r"needs a value"),
        ("weight_bits=four", r"weight_bits must be a whole number, but got 'four'"),
        ("weight_bits=4.5", r"weight_bits must be a whole number, but got '4\.5'"),
        ("weight_bits=-4", r"weight_bits must be a whole number"),
        ("=4", r"unknown key ''"),
        ("4", r"unknown key '4'"),
        ("", r"--uniform needs values, as in weight_bits=4,activation_bits=8, but got ''"),
        (" , ", r"--uniform needs values"),
        ("weight_bits=4,weight_bits=8", r"weight_bits must stand once, but got 4 and '8'"),
        ("repair=static,repair=static", r"repair must stand once"),
        ("weight_bits=²", r"weight_bits must be a whole number, but got '²'"),
    ],
)
def test_bad_uniform_texts_are_refused_in_one_line(text, message):
    with pytest.raises(InputError, match=message) as caught:
        parse_uniform(text)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def residual(capture, weight):
    """A trunk of 32 channels that two layers write, and 32 channels inside its block."""
    return capture(
        "(float[1,3,8,8] x) => (float[n,c,h,w] y) { [first] t = Conv<pads=[1,1,1,1]>(x, w0)\n"
        "[inner] a = Conv<pads=[1,1,1,1]>(t, w1)\n [outer] b = Conv<pads=[1,1,1,1]>(a, w2)\n s = Add(t, b)\n"
        "[last] y = Conv<pads=[1,1,1,1]>(s, w3) }",
        w0=weight(32, 3, 3, 3), w1=weight(32, 32, 3, 3), w2=weight(32, 32, 3, 3), w3=weight(3, 32, 3, 3),
    )  # fmt: skip


def test_ratios_and_sparsities_are_offered_beside_bits(residual):
    space = make_space(residual, weight_bits=(4,), activation_bits=(32,), pruning_ratios=(0, 0.5), sparsities=(0, 0.5))
    assert space.choices["inner"] == (LayerChoice(4), LayerChoice(4, 32, 0.5))
    assert space.ratios == {"first": (0.0, 0.5), "inner": (0.0, 0.5)}
    assert space.size == 2**4 * 2**2
    assert space.contains(Candidate({name: LayerChoice(4) for name in residual.layers}, {"inner": 0.5}))
    assert not space.contains(Candidate({name: LayerChoice(4) for name in residual.layers}, {"inner": 0.25}))


def test_a_ratio_is_held_by_the_groups_name_and_by_globs_of_its_layers(residual):
    def ratios(fixed):
        return make_space(residual, pruning_ratios=(0.0, 0.5), fixed=fixed).ratios

    assert ratios({"inner": {"pruning_ratio": 0.25}}) == {"first": (0.0, 0.5), "inner": (0.25,)}
    assert ratios({"out*": {"pruning_ratio": 0.0}}) == {"first": (0.0,), "inner": (0.0, 0.5)}
    assert ratios({"*": {"pruning_ratio": 0.0}}) == {"first": (0.0,), "inner": (0.0,)}
    with pytest.raises(InputError, match=r"'outer' go with those of 'first': name that group"):
        ratios({"outer": {"pruning_ratio": 0.0}})
    with pytest.raises(InputError, match=r"'last' cannot be removed: .* output of the model"):
        ratios({"last": {"pruning_ratio": 0.5}})


def test_a_ratio_alone_leaves_the_layer_free(residual):
    space = make_space(residual, pruning_ratios=(0.0, 0.5), fixed={"inner": {"pruning_ratio": 0.5}})
    assert len(space.choices["inner"]) == 13
    assert make_space(residual, fixed={"inner": {}}).choices["inner"] == (LayerChoice(),)


def test_uniform_ratios_go_to_every_group_and_say_where_they_cannot(residual):
    candidate, notes = uniform(residual, {"weight_bits": 4, "pruning_ratio": 0.25, "sparsity": 0.5})
    assert candidate.groups == {"first": 0.25, "inner": 0.25}
    assert set(candidate.layers.values()) == {LayerChoice(4, 32, 0.5)}
    assert any("last" in note for note in notes)
    assert parse_uniform("pruning_ratio=0.25,sparsity=0.5") == {"pruning_ratio": 0.25, "sparsity": 0.5}


@pytest.mark.parametrize("text", ["pruning_ratio=1", "pruning_ratio=-0.5", "sparsity=0.9999999", "sparsity=half"])
def test_shares_are_from_0_to_below_1(text):
    with pytest.raises(InputError, match="must be a number from 0 to below 1, but got"):
        parse_uniform(text)
