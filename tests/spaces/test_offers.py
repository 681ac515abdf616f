"""What measurements make of a space: forms that are faster are offered, integers that never pay are not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.offers import FormOffer, Offer
from slimfront.spaces.space import make_space

PHASES = Offer(forms={"phases": FormOffer(16 / 9, {8: 0.5})})


@pytest.fixture(scope="module")
def network(capture, weight):
    nearest = 'Resize<mode="nearest",coordinate_transformation_mode="asymmetric",nearest_mode="floor">'
    return capture(
        "(float[1,4,8,8] x) => (float[n,c,h,w] y) { [first] a = Conv<pads=[1,1,1,1]>(x, w1)\n"
        f"u = {nearest}(a, , f)\n [up] y = Conv<pads=[1,1,1,1]>(u, w2) }}",
        f=np.float32([1, 1, 2, 2]), w1=weight(8, 4, 3, 3), w2=weight(4, 8, 3, 3),
    )  # fmt: skip


def test_a_form_is_offered_for_the_arithmetic_in_which_it_is_faster(network):
    space = make_space(network, weight_bits=(4, 8, 32), offers={"up": PHASES})
    native = [(4, 8), (8, 8), (4, 32), (8, 32), (32, 32)]
    assert [(c.weight_bits, c.activation_bits) for c in space.choices["first"]] == native
    found = [(c.weight_bits, c.activation_bits, c.form) for c in space.choices["up"]]
    assert found == [(*pair, "native") for pair in native] + [(4, 8, "phases"), (8, 8, "phases")]
    assert space.formed == {"phases": ["up"]}
    assert space.contains(Candidate({"up": LayerChoice(4, 8, form="phases")}))
    assert not space.contains(Candidate({"up": LayerChoice(4, 32, form="phases")}))
    assert not space.contains(Candidate({"first": LayerChoice(4, 8, form="phases")}))


def test_forms_go_with_every_sparsity(network):
    space = make_space(network, weight_bits=(8, 32), sparsities=(0.0, 0.5), offers={"up": PHASES})
    formed = [choice for choice in space.choices["up"] if choice.form == "phases"]
    assert [choice.sparsity for choice in formed] == [0.0, 0.5]


def test_nothing_is_offered_in_forms_where_bits_do_not_vary(network):
    space = make_space(network, weight_bits=(8,), activation_bits=(8,), offers={"up": PHASES})
    assert space.choices["up"] == (LayerChoice(8, 8),)


def test_integer_pairs_that_never_pay_are_dropped(network):
    slow = {"up": Offer(integer=False)}
    space = make_space(network, weight_bits=(4, 8, 32), offers=slow)
    assert [(c.weight_bits, c.activation_bits) for c in space.choices["up"]] == [(4, 32), (8, 32), (32, 32)]
    assert any(choice.integer for choice in space.choices["first"])
    only = make_space(network, weight_bits=(4, 8), activation_bits=(8,), offers=slow)
    assert all(
        choice.integer for choice in only.choices["up"]
    )  # a study that offers nothing else has them all the same


def test_a_held_choice_is_offered_whatever_was_measured(network):
    held = {"up": {"weight_bits": 8, "activation_bits": 8, "form": "phases"}}
    space = make_space(network, fixed=held, offers={"up": Offer(integer=False)})
    assert space.choices["up"] == (LayerChoice(8, 8, form="phases"),)


def test_a_space_tells_what_a_form_costs_and_saves(network):
    space = make_space(network, offers={"up": PHASES})
    assert space.relative("up", LayerChoice(8, 8, form="phases")) == (16 / 9, 0.5)
    assert space.relative("up", LayerChoice(8, 32, form="phases")) == (16 / 9, 1.0)
    assert space.relative("up", LayerChoice(8, 8)) == space.relative("first", LayerChoice(8, 8)) == (1.0, 1.0)


def test_offers_survive_json():
    for offer in (Offer(), PHASES, Offer(False, {"phases": FormOffer(1.5, {8: 0.25, 32: 0.75})})):
        assert Offer.from_json(json.loads(json.dumps(offer.to_json()))) == offer
