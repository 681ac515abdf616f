"""strokes_rvae: what its network is made of, and how its members are told to lose nothing visible."""

from __future__ import annotations

from functools import cache
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from slimfront.search.loop import search
from slimfront.spaces.groups import channel_groups
from slimfront.spaces.session import infer, open_session
from slimfront.studies.candidates import build, given_candidates
from slimfront.studies.strokes_rvae.model import build as network
from slimfront.studies.strokes_rvae.reading import LEAST_SSIM, Reading, compare, mcnemar
from slimfront.studies.study import Study, load_study, ready_made


@cache
def study() -> Study:
    return load_study("strokes_rvae")


def uniform(choices: str) -> bytes:
    [candidate], _ = given_candidates(study(), [], choices)
    return build(study(), candidate)


def test_both_lstms_are_layers_and_hold_most_of_the_weights():
    layers = study().graph.layers.values()
    recurrent = [layer for layer in layers if layer.recurrent]
    assert [layer.op for layer in recurrent] == ["LSTM", "LSTM"]
    assert sum(layer.parameters for layer in recurrent) > 0.9 * sum(layer.parameters for layer in layers)


def test_what_was_captured_draws_what_the_trained_module_draws():
    module = network()
    module.load_state_dict(load_file(ready_made()["strokes_rvae"] / "strokes_rvae.safetensors"))
    latents = study().evaluation.inputs["input"]
    with torch.no_grad():
        expected = module(torch.from_numpy(latents)).numpy()
    drawn = infer(open_session(study().graph.to_bytes()), {"input": latents}, study().graph.batch)
    np.testing.assert_allclose(drawn, expected, atol=1e-5)


def test_hidden_units_of_both_lstms_can_be_removed_with_all_that_sets_their_states():
    groups = channel_groups(study().graph).groups
    recurrent = {name for name, layer in study().graph.layers.items() if layer.recurrent}
    assert recurrent <= {layer for group in groups.values() for layer in group.layers}
    pruned = uniform("weight_bits=32,activation_bits=32,pruning_ratio=0.5")
    assert len(pruned) < len(study().graph.to_bytes()) / 2
    latents = study().evaluation.inputs
    assert infer(open_session(pruned), latents, study().graph.batch).shape == (200, 1, 32, 32)


def test_the_network_loses_nothing_beside_itself_and_two_bits_lose_much():
    same = compare(study(), study().graph.to_bytes(), "evaluation")
    assert (same.alike, same.p_value, same.fidelity_db) == (1.0, 1.0, 100.0)
    assert same.ssim == pytest.approx(1.0)
    assert same.no_visible_loss
    coarse = compare(study(), uniform("weight_bits=2,activation_bits=32,pruning_ratio=0.5"), "evaluation")
    assert coarse.ssim < LEAST_SSIM
    assert not coarse.no_visible_loss


def test_no_criterion_alone_is_enough():
    good = Reading(right=0.9, alike=0.98, p_value=0.5, ssim=0.99, fidelity_db=41.0)
    assert good.no_visible_loss
    for worse in ({"p_value": 0.04}, {"ssim": 0.97}, {"fidelity_db": 39.0}):
        assert not good._replace(**worse).no_visible_loss


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
def test_mcnemars_test_is_the_exact_tail_of_fair_coins_on_both_sides(pairs):
    one, other = (np.array([pair[index] for pair in pairs], bool) for index in (0, 1))
    only_one, only_other = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
    count = only_one + only_other
    tail = sum(comb(count, k) for k in range(max(only_one, only_other), count + 1)) / 2**count
    assert mcnemar(one, other) == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar(one, other) == pytest.approx(mcnemar(other, one))


@pytest.mark.slow
def test_the_default_search_finds_a_member_a_third_of_the_size_that_loses_nothing_visible(tmp_path):
    run = search(study(), run_dir=tmp_path / "run")
    assert len(run.front_trials()) >= 8
    small = [
        trial for trial in run.front_trials() if 3 * trial.value("size_bytes") <= run.reference.value("size_bytes")
    ]
    assert any(
        all(compare(study(), run.model_path(trial), part).no_visible_loss for part in ("evaluation", "test"))
        for trial in small
    )
