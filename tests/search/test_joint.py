"""Several bases as one space: vectors go there and back, each base has its own model, and what promises most is proposed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfront.search.frontier import Frontier
from slimfront.search.grid import Grid
from slimfront.search.joint import JointGrid
from slimfront.search.proposers import Observation, make_proposer
from slimfront.search.start import first_points_of
from slimfront.spaces.candidate import Candidate
from slimfront.studies.front import hypervolume

from .made_up import PARAMETERS, make_task, measure

BASE = "sha256:" + "a" * 64
FACTORS = np.array([0.2, 0.1, 1.0])  # a student: smaller and faster than the reference
WORSE = 0.1  # and so much worse


@pytest.fixture(scope="module")
def tasks():
    own = make_task()
    errors = {axis.label: {option: own_error(axis, option) for option in axis.options} for axis in own.space.axes}
    own = replace(own, errors=errors)
    names = {name: f"s {name}" for name in (*PARAMETERS, "held")}
    other = replace(
        own,
        space=replace(
            own.space,
            choices={names[name]: choices for name, choices in own.space.choices.items()},
            ratios={names[name]: ratios for name, ratios in own.space.ratios.items()},
            base=BASE,
            student={"width": 4, "fine_width": 2, "depth": 1},
        ),
        parameters={names[name]: count for name, count in own.parameters.items()},
        work={names[name]: count for name, count in own.work.items()},
        shares={
            names[group]: tuple({names[name]: share for name, share in part.items()} for part in parts)
            for group, parts in own.shares.items()
        },
        errors={f"s {label}": values for label, values in errors.items()},
    )
    return own, other


def own_error(axis, option):
    if axis.is_group:
        return 0.4 * option**2
    return 4.0**-option.weight_bits * 20


def observe(candidate, failed=False):
    """Return what a candidate of either base measures."""
    if candidate.base == BASE:
        plain = Candidate(
            {name.removeprefix("s "): choice for name, choice in candidate.layers.items()},
            {name.removeprefix("s "): ratio for name, ratio in candidate.groups.items()},
        )
        size, time, drop = np.array(measure(plain)) * FACTORS
        drop += WORSE
    else:
        size, time, drop = measure(candidate)
    return Observation(candidate, (size, time, max(drop, 0.0)), signed_drop=drop)


def begun(tasks):
    return [observe(candidate) for _, candidate in first_points_of([task.space for task in tasks], "frontier")]


@given(st.integers(0, 1000))
def test_vectors_are_candidates_and_candidates_vectors(tasks, seed):
    grid = JointGrid([Grid(task.space) for task in tasks])
    vector = np.random.default_rng(seed).integers(0, grid.lengths)
    candidate = grid.decode(vector)
    assert candidate.base == ("reference", BASE)[vector[0]]
    assert np.array_equal(grid.encode(candidate), grid.canonical(vector[None])[0])
    assert grid.decode(grid.encode(candidate)) == candidate


def test_a_candidate_of_no_space_has_no_vector(tasks):
    grid = JointGrid([Grid(task.space) for task in tasks])
    assert grid.encode(Candidate(base="sha256:" + "b" * 64)) is None
    assert grid.size == sum(Grid(task.space).size for task in tasks)


def test_every_search_begins_with_each_base_as_it_is(tasks):
    labels = dict(first_points_of([task.space for task in tasks], "frontier"))
    assert labels["reference"] == Candidate()
    assert labels["student 4-2-1"] == Candidate(base=BASE)
    assert labels["student 4-2-1, uniform 2/8"].base == BASE


def test_a_base_is_foretold_beside_the_reference(tasks):
    history, random = begun(tasks), make_proposer("random", *tasks)
    history += [observe(candidate) for candidate in random.propose(history, 40)]
    frontier = Frontier(*tasks)
    solved = frontier.solve(history)
    others = random.propose(history, 40)
    assert {candidate.base for candidate in others} == {"reference", BASE}
    vectors = np.array([frontier.grid.encode(candidate) for candidate in others])
    found, wanted = solved.costs.predict(vectors), np.array([observe(candidate).point for candidate in others])
    assert np.abs(found[:, :2] - wanted[:, :2]).max() < 0.05
    assert np.corrcoef(found[:, 2], wanted[:, 2])[0, 1] > 0.9
    assert (solved.costs.spread(vectors) >= 0.0).all()


@pytest.mark.parametrize("sampler", ["frontier", "random", "tpe"])
def test_all_bases_are_proposed_and_nothing_twice(tasks, sampler):
    history = begun(tasks)
    proposer = make_proposer(sampler, *tasks)
    for _ in range(6):
        found = proposer.propose(history, 3)
        assert len(set(found)) == 3
        assert not {candidate.key for candidate in found} & {o.candidate.key for o in history}
        history += [observe(candidate) for candidate in found]
    assert {o.candidate.base for o in history[8:]} == {"reference", BASE}
    assert make_proposer(sampler, *tasks).propose(history, 2) == proposer.propose(history, 2)


def test_the_frontier_finds_more_with_a_student_than_without(tasks):
    reached = []
    for some in (tasks[:1], tasks):
        history = begun(some)
        while len(history) < 24:
            history += [observe(candidate) for candidate in Frontier(*some).propose(history, 1)]
        reached.append(hypervolume([o.point for o in history]))
    assert reached[1] > reached[0] + 0.02


def test_small_spaces_are_walked_to_their_ends(tasks):
    small = [replace(task, space=replace(task.space, ratios={}, choices={
        name: choices[:2] if number == 0 else choices[:1]
        for number, (name, choices) in enumerate(task.space.choices.items())
    })) for task in tasks]  # fmt: skip
    proposer = make_proposer("frontier", *small)
    found = proposer.propose([], 10)
    assert len(found) == len(set(found)) == 4
    assert make_proposer("random", *small).propose([observe(c) for c in found], 3) == []


def test_a_student_that_is_better_than_the_reference_is_modelled_from_where_it_stands(tasks):
    history = begun(tasks)

    def better(observation):
        if observation.candidate.base != BASE:
            return observation
        drop = observation.signed_drop - 0.5
        return replace(observation, signed_drop=drop, point=(*observation.point[:2], max(drop, 0.0)))

    random = make_proposer("random", *tasks)
    history += [observe(candidate) for candidate in random.propose(history, 30)]
    history = [better(o) for o in history]
    frontier = Frontier(*tasks)
    solved = frontier.solve(history)
    others = [better(observe(c)) for c in random.propose(history, 30)]
    vectors = np.array([frontier.grid.encode(o.candidate) for o in others])
    found, wanted = solved.costs.predict(vectors)[:, 2], np.array([o.point[2] for o in others])
    assert np.abs(found - wanted).mean() < 0.15
