"""Solving a model: against all points of small spaces, and what is chosen of the solutions."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfront.search.additive import fitted
from slimfront.search.grid import Grid
from slimfront.search.layout import Layout
from slimfront.search.solve import EVERY, Solved, choose, refine, solve
from slimfront.search.vectors import cross, distinct_rows, draw, mutate, unseen
from slimfront.studies.front import hypervolume, nondominated

from .made_up import CHOICES, RATIOS, make_task, measure


def model_of(**task):
    task = make_task(**task)
    grid = Grid(task.space)
    layout = Layout(grid, task)
    vectors = draw(grid.lengths, np.random.default_rng(0), 40)
    points = np.array([measure(grid.decode(vector)) for vector in vectors])
    everything = np.array(list(itertools.product(*(range(length) for length in grid.lengths))))
    return fitted(layout, vectors, points), everything


def cost(model, vectors, weights):
    size, time, _ = model.predict(vectors).T
    return weights[:, 0] * size + weights[:, 1] * time + weights[:, 2] * model.errors.predict(vectors)


def test_without_channel_groups_every_weighting_is_solved_exactly():
    model, everything = model_of(ratios={})
    weights = 10.0 ** np.random.default_rng(1).uniform(-1, 1, (50, 3))
    found = cost(model, model.decide(np.zeros((50, 4), int), weights), weights)
    best = [cost(model, everything, np.broadcast_to(row, (len(everything), 3))).min() for row in weights]
    assert found == pytest.approx(best)


def test_pulls_of_neighbours_are_solved_exactly_as_well():
    model, everything = model_of(ratios={})
    model.errors.pulls[:] = (-1.5, 0.8, -0.9)
    weights = 10.0 ** np.random.default_rng(1).uniform(-1, 1, (50, 3))
    weights[:, 2] *= 10.0
    found = cost(model, model.decide(np.zeros((50, 4), int), weights), weights)
    best = [cost(model, everything, np.broadcast_to(row, (len(everything), 3))).min() for row in weights]
    # of an error that pulls would cancel a part is left in a prediction, not in a sum of costs
    assert np.mean(found <= np.array(best) * (1 + 1e-9)) > 0.9


def test_with_channel_groups_the_front_of_the_model_is_found():
    ratios = {name: RATIOS[name] for name in ("conv.0", "conv.1")}
    model, everything = model_of(layers=3, choices=CHOICES[1:6], ratios=ratios)
    whole = hypervolume(model.predict(everything))
    solved = solve(model, np.array([5, 5, 5, 3, 3]), everything[:1], np.random.default_rng(0))
    assert hypervolume(solved.centre) > 0.999 * whole
    assert solved.centre == pytest.approx(model.predict(solved.pool))
    front = everything[nondominated(model.predict(everything))]
    known = {vector.tobytes() for vector in solved.pool}
    assert np.mean([vector.tobytes() in known for vector in front]) > 0.6  # of near ties some are enough


def test_the_best_for_one_budget_is_found_by_the_model():
    ratios = {name: RATIOS[name] for name in ("conv.0", "conv.1")}
    model, everything = model_of(layers=3, choices=CHOICES[1:6], ratios=ratios)
    solved = solve(model, np.array([5, 5, 5, 3, 3]), everything[:1], np.random.default_rng(0), sweeps=20)
    for most in (0.15, 0.25, 0.4):

        def score(points, most=most):
            return points[:, 2] + 1e3 * np.maximum(points[:, 0] - most, 0.0)

        found = refine(solved, np.array([5, 5, 5, 3, 3]), score, np.random.default_rng(1))
        assert score(model.predict(found[:1])) == pytest.approx(score(model.predict(everything)).min())


def pool_of(points, novelty=None):
    points = np.array(points)
    zeros = np.zeros(len(points))
    return Solved(
        None, np.arange(len(points))[:, None], points, np.zeros_like(points), zeros if novelty is None else novelty
    )


def test_a_batch_is_spread_over_the_front():
    solved = pool_of([(0.2, 0.2, 0.5), (0.21, 0.21, 0.5), (0.7, 0.7, 0.1)])
    assert choose(solved, np.ones(len(solved.pool), bool), np.array([[1.0, 1.0, 0.0]]), np.ones(3), 2) == [0, 2]


def test_what_was_seen_does_not_come_again_and_the_pool_may_end():
    solved = pool_of([(0.2, 0.2, 0.5), (0.3, 0.3, 0.4)])
    new = unseen(solved.pool, [solved.pool[0]])
    assert choose(solved, new, np.array([[1.0, 1.0, 0.0]]), np.ones(3), 5) == [1]


def test_where_no_candidate_keeps_the_limits_the_nearest_comes_first():
    solved = pool_of([(0.5, 0.5, 0.5), (0.3, 0.5, 0.5), (0.4, 0.2, 0.2)])
    assert choose(
        solved, np.ones(len(solved.pool), bool), np.array([[1.0, 1.0, 0.0]]), np.array([0.25, 1.0, 1.0]), 3
    ) == [1, 2, 0]


def test_one_in_five_goes_where_little_was_measured():
    points = [(0.2 + 0.01 * i, 0.5 - 0.01 * i, 0.4) for i in range(10)]
    solved = pool_of(points, 1.0 * (np.arange(10) // 2 == 2))
    taken = np.array([[1.0, 1.0, 0.0]])
    assert choose(solved, np.ones(len(solved.pool), bool), taken, np.ones(3), 1, done=EVERY - 1) == [5]
    assert choose(solved, np.ones(len(solved.pool), bool), taken, np.ones(3), 1, done=0) == [9]


def test_vectors_stay_within_their_lengths():
    random = np.random.default_rng(0)
    lengths = np.array([1, 2, 5])
    first, second = draw(lengths, random, 100), draw(lengths, random, 100)
    children = cross(first, second, random)
    assert ((children == first) | (children == second)).all()
    mutants = mutate(lengths, first, random)
    assert ((mutants >= 0) & (mutants < lengths)).all()
    assert (mutants != first).any()
    assert len(distinct_rows(first)) == len(np.unique(first, axis=0))
    assert (distinct_rows(first)[0] == first[0]).all()


@given(st.integers(0, 10**6))
def test_what_was_seen_is_recognised_also_where_some_entries_did_not_matter(seed):
    random = np.random.default_rng(seed)
    vectors, seen = random.integers(0, 2, (20, 3)), random.integers(-1, 2, (4, 3))
    known = ((vectors[:, None] == seen) | (seen < 0)).all(axis=2).any(axis=1)
    assert (unseen(vectors, seen) == ~known).all()
