"""The space as a grid, and drawing without repeats."""

import numpy as np
import pytest

from slimfront.search.grid import Grid, distinct
from slimfront.search.proposers import option_text, parse_option
from slimfront.search.start import start_points
from slimfront.search.vectors import draw, mutate
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.space import Axis, Space

BOTH = tuple(LayerChoice(w, a) for w in (4, 8, 32) for a in (8, 32) if w <= 8 or a == 32)


def space(layers=3, choices=BOTH, held=()):
    return Space({f"l{i}": choices for i in range(layers)} | {f"held{i}": (choice,) for i, choice in enumerate(held)})


def test_encode_and_decode_are_inverse():
    grid = Grid(space(held=[LayerChoice(8, 8)]))
    for candidate in grid.walk():
        assert grid.decode(grid.encode(candidate)) == candidate
        assert candidate.choice("held0") == LayerChoice(8, 8)


def test_walk_meets_every_candidate_once():
    candidates = list(Grid(space()).walk())
    assert len(set(candidates)) == len(candidates) == 5**3 == space().size


def test_every_option_has_a_text_of_its_own_that_leads_back():
    choices = (*BOTH, LayerChoice(4, 8, 0.5), LayerChoice(4, 8, form="phases"), LayerChoice(4, 8, 0.5, "phases"))
    axes = (*space(1, choices).axes, Axis("l0", (0.0, 0.25), is_group=True))
    for axis in axes:
        assert [parse_option(axis, option_text(option)) for option in axis.options] == list(axis.options)
    assert option_text(LayerChoice(4, 8, 0.5, "phases")) == "4/8/0.5/phases"
    assert option_text(LayerChoice(4, 8)) == "4/8"


def test_a_uniform_start_takes_the_native_form():
    formed = (*BOTH, *(LayerChoice(c.weight_bits, c.activation_bits, form="phases") for c in BOTH))
    assert all("phases" not in str(point.to_json()) for _, point in start_points(space(2, formed)))


def test_what_lies_outside_has_no_vector():
    grid = Grid(space())
    assert grid.encode(Candidate(layers={"l0": LayerChoice(5, 8)})) is None
    assert grid.encode(Candidate(layers={"other": LayerChoice(4, 8)})) is None


def test_mutants_differ_in_few_layers_and_stay_inside():
    grid = Grid(space(layers=30))
    random = np.random.default_rng(0)
    parents = draw(grid.lengths, random, 200)
    mutants = mutate(grid.lengths, parents, random)
    changed = (mutants != parents).sum(axis=1)
    assert (mutants < grid.lengths).all()
    assert 0.5 < changed.mean() < 3.5
    assert changed.max() <= 10


@pytest.mark.parametrize("drawn", ["nothing", "always the same", "random"])
def test_distinct_finds_every_point_of_a_small_space_and_then_ends(drawn):
    grid = Grid(space(layers=2))
    random = np.random.default_rng(0)
    draws = {
        "nothing": lambda: None,
        "always the same": lambda: grid.decode([0, 0]),
        "random": lambda: grid.decode(draw(grid.lengths, random, 1)[0]),
    }
    known = [grid.decode([1, 1])]
    seen = {candidate.key for candidate in known}
    found = distinct(draws[drawn], grid, seen, 100, random)
    assert seen == {candidate.key for candidate in [*known, *found]}
    assert len(found) == len(set(found)) == 24
    assert not set(found) & set(known)


def test_start_points_are_the_reference_and_one_for_each_width():
    labels = dict(start_points(space()))
    assert list(labels) == ["reference", "uniform 8/8", "uniform 4/8"]
    assert labels["reference"] == Candidate()
    assert labels["uniform 4/8"] == Candidate(layers={f"l{i}": LayerChoice(4, 8) for i in range(3)})


def test_start_points_keep_held_layers_and_take_the_next_wider_choice():
    mixed = Space({"a": BOTH, "b": (LayerChoice(6, 32), LayerChoice(32, 32)), "c": (LayerChoice(2, 32),)})
    labels = dict(start_points(mixed))
    assert labels["uniform 4/8"].choice("b") == LayerChoice(6, 32)
    assert labels["uniform 8/8"].choice("b") == LayerChoice(32, 32)
    assert all(
        candidate.choice("c") == LayerChoice(2, 32) for label, candidate in labels.items() if label != "reference"
    )
    assert len(set(labels.values())) == len(labels)


def test_without_8_bit_activations_uniform_ones_run_in_float():
    floats = tuple(LayerChoice(w, 32) for w in (4, 16, 32))
    assert list(dict(start_points(space(choices=floats)))) == ["reference", "uniform 16/32", "uniform 4/32"]
