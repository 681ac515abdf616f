"""The candidate: JSON and back, the canonical key, and every value that is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfront.spaces.candidate import ACTIVATION_BITS, DYNAMIC, FORM_NAMES, WEIGHT_BITS, Candidate, LayerChoice
from slimfront.spaces.errors import InputError

choices = st.one_of(
    st.builds(
        LayerChoice, st.sampled_from([bits for bits in WEIGHT_BITS if bits <= 8]), st.sampled_from(ACTIVATION_BITS)
    ),
    st.builds(LayerChoice, st.sampled_from(WEIGHT_BITS), form=st.sampled_from([n for n in FORM_NAMES if n != DYNAMIC])),
    st.builds(LayerChoice, st.sampled_from([2, 8]), st.just(8), form=st.just(DYNAMIC)),
)
names = st.text(min_size=1, max_size=8)
candidates = st.builds(
    Candidate, layers=st.dictionaries(names, choices, max_size=5), repair=st.sampled_from(["static", "sequential"])
)


@given(candidates)
def test_json_and_back_is_the_same_candidate(candidate):
    again = Candidate.from_json(json.loads(json.dumps(candidate.to_json())))
    assert again == candidate
    assert again.key == candidate.key and hash(again) == hash(candidate)
    assert again.layers == candidate.layers and again.repair == candidate.repair


@given(candidates, st.dictionaries(names, st.sampled_from([0.125, 0.5]), max_size=3))
def test_what_was_written_is_read_fast_as_it_is_read_with_care(candidate, groups):
    known = replace(candidate, groups=groups)
    written = json.loads(json.dumps(known.to_json()))
    fast, careful = Candidate.from_canonical(written, known.key), Candidate.from_json(written)
    assert fast == careful and fast.key == careful.key
    assert (fast.layers, fast.groups, fast.base, fast.repair) == (
        careful.layers,
        careful.groups,
        careful.base,
        careful.repair,
    )


@pytest.mark.parametrize("more", [{"version": 2}, {"base": "another"}, {"student": 7}])
def test_what_no_candidate_of_this_version_is_is_not_read_fast_either(more):
    with pytest.raises(InputError):
        Candidate.from_canonical({**Candidate().to_json(), **more}, "")


@given(candidates, st.randoms(use_true_random=False))
def test_the_key_does_not_depend_on_the_order_of_layers(candidate, random):
    items = list(candidate.layers.items())
    random.shuffle(items)
    assert Candidate(dict(items), repair=candidate.repair).key == candidate.key


@given(candidates, names)
def test_uncompressed_layers_are_left_out(candidate, name):
    if name in candidate.layers:
        return
    padded = Candidate({**candidate.layers, name: LayerChoice()}, repair=candidate.repair)
    assert padded == candidate and name not in padded.layers and name not in padded.to_json()["layers"]


@given(candidates, candidates)
def test_different_candidates_have_different_keys(first, second):
    same = first.layers == second.layers and first.repair == second.repair
    assert (first.key == second.key) == same == (first == second)


def test_repair_is_static_where_nothing_is_rounded():
    assert Candidate({"a": LayerChoice(16)}, repair="sequential") == Candidate({"a": LayerChoice(16)})
    assert Candidate({"a": LayerChoice(4)}, repair="sequential") != Candidate({"a": LayerChoice(4)})


def test_a_form_stands_in_the_canonical_json_only_where_it_is_not_native():
    formed = Candidate({"a": LayerChoice(8, 8, form="phases"), "b": LayerChoice(8, 8)})
    assert formed.to_json()["layers"]["a"] == {"weight_bits": 8, "activation_bits": 8, "form": "phases"}
    assert "form" not in formed.to_json()["layers"]["b"]
    assert formed != Candidate(dict.fromkeys("ab", LayerChoice(8, 8)))
    assert Candidate({"a": LayerChoice(form="phases")}).to_json()["layers"] == {"a": {"form": "phases"}}


def test_what_is_absent_is_uncompressed():
    assert Candidate.from_json({}) == Candidate()
    assert Candidate.from_json({"layers": {"a": {"weight_bits": 4}}}).choice("a") == LayerChoice(4, 32)
    assert Candidate.from_json({"layers": {"a": {"weight_bits": 4}}}).choice("b") == LayerChoice(32, 32)


def test_later_keys_are_taken_where_they_say_nothing():
    data = {"layers": {"a": {"weight_bits": 4, "sparsity": 0.0, "form": "native"}}, "groups": {}}
    assert Candidate.from_json(data) == Candidate({"a": LayerChoice(4)})


@pytest.mark.parametrize("bits", [0, 1, 9, 15, 33, -4, 4.0, "4", True, None, [4]])
def test_weight_bits_that_do_not_exist_are_refused(bits):
    with pytest.raises(InputError, match=r"weight_bits must be one of 2, 3, 4, 5, 6, 7, 8, 16, 32, but got"):
        LayerChoice(bits)
    with pytest.raises(InputError, match=r"^layer 'a': weight_bits must be one of"):
        Candidate.from_json({"layers": {"a": {"weight_bits": bits}}})


@pytest.mark.parametrize("bits", [4, 16, "8", 8.0, True, None])
def test_activation_bits_that_do_not_exist_are_refused(bits):
    with pytest.raises(InputError, match=r"activation_bits must be one of 8, 32, but got"):
        LayerChoice(4, bits)


@pytest.mark.parametrize("weight_bits", [16, 32])
def test_integer_activations_need_integer_weights(weight_bits):
    with pytest.raises(
        InputError, match=rf"activation_bits 8 needs weight_bits 2-8, but got weight_bits {weight_bits}"
    ):
        LayerChoice(weight_bits, 8)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"layer": {}}, r"unknown key 'layer' \(did you mean 'layers'\?\)"),
        ({"layers": {"a": {"weight_bit": 4}}}, r"layer 'a': unknown key 'weight_bit' \(did you mean 'weight_bits'\?\)"),
        ({"layers": {"a": 4}}, r"layer 'a': the choice must be an object, but got 4"),
        ({"layers": [1]}, r"'layers' must be an object"),
        ({"version": 2}, r"version must be 1, but got 2"),
        ({"version": "1"}, r"version must be 1, but got '1'"),
        ({"base": "other"}, r"base must be 'reference', or 'sha256:' and 64 hexadecimal digits, but got 'other'"),
        ({"repair": "sequentia"}, r"repair must be one of static, sequential, but got 'sequentia'"),
        ({"repair": None}, r"repair must be one of"),
        ({"groups": {"g": 0.5}}, r"group 'g': the choice must be an object, but got 0.5"),
        ({"groups": {"g": {"ratio": 0.5}}}, r"group 'g': unknown key 'ratio'"),
        ({"groups": {"g": {"pruning_ratio": 1.0}}}, r"group 'g': pruning_ratio must be .* 0 to below 1, but got 1.0"),
        ({"groups": {"g": {"pruning_ratio": -0.1}}}, r"group 'g': pruning_ratio must be .* below 1, but got -0.1"),
        ({"groups": {"g": {"pruning_ratio": True}}}, r"group 'g': pruning_ratio must be a number .* got True"),
        ({"groups": []}, r"'groups' must be an object of group names"),
        ({"layers": {"a": {"sparsity": 1.5}}}, r"layer 'a': sparsity must be a number from 0 to below 1, but got 1.5"),
        ({"layers": {"a": {"form": "phase"}}}, r"layer 'a': form must be .* got 'phase' \(did you mean 'phases'\?\)"),
        (
            {"layers": {"a": {"form": ["phases"]}}},
            r"layer 'a': form must be one of native, phases, dynamic, but got \['phases'\]",
        ),
        ([], r"must be a JSON object, but got list"),
        (None, r"must be a JSON object, but got NoneType"),
    ],
)
def test_bad_candidates_are_refused_in_one_line(data, message):
    with pytest.raises(InputError, match=message) as caught:
        Candidate.from_json(data)
    assert "\n" not in str(caught.value)
