"""Limits that lie on none of the objectives: how likely they are kept, and that searches aim at it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slimfront.search.frontier import Frontier
from slimfront.search.keeping import Keeping
from slimfront.search.proposers import Observation
from slimfront.search.solve import Solved, choose
from slimfront.search.start import start_points
from slimfront.studies.front import hypervolume

from .made_up import make_task, measure

NAN = float("nan")


def some_points(count, seed=0):
    return np.random.default_rng(seed).uniform(0.05, 1.0, (count, 3))


def test_the_chance_falls_where_the_limit_was_broken_before():
    points = some_points(40)
    noise = np.random.default_rng(1).normal(0.0, 0.02, 40)
    keeping = Keeping(points, [(excess,) for excess in points[:, 2] - 0.5 + noise])
    new = some_points(300, 2)
    chance = keeping.chance(new)
    assert chance[new[:, 2] < 0.4].min() > 0.9
    assert chance[new[:, 2] > 0.6].max() < 0.1
    kept = new[:, 2] + np.random.default_rng(3).normal(0.0, 0.02, 300) <= 0.5
    near = (chance > 0.1) & (chance < 0.9)
    assert near.any()
    assert kept[near].mean() == pytest.approx(chance[near].mean(), abs=0.25)


def test_limits_that_were_never_broken_or_are_not_known_are_taken_for_kept():
    points, new = some_points(10), some_points(5, 1)
    assert (Keeping([], []).chance(new) == 1.0).all()
    assert (Keeping(points, [()] * 10).chance(new) == 1.0).all()
    assert (Keeping(points, [(-0.1, NAN)] * 10).chance(new) == 1.0).all()
    assert Keeping(points, [(0.1,)] * 10).chance(np.zeros((0, 3))).shape == (0,)


def test_all_limits_have_to_be_kept():
    points, new = some_points(30), some_points(50, 1)
    both = np.stack([points[:, 2] - 0.5, points[:, 0] - 0.6], axis=1)
    alone = [Keeping(points, [(excess,) for excess in column]).chance(new) for column in both.T]
    assert Keeping(points, both.tolist()).chance(new) == pytest.approx(alone[0] * alone[1])


@given(
    arrays(float, (8, 3), elements=st.floats(0.0, 2.0)),
    arrays(float, (8, 2), elements=st.one_of(st.floats(-1e6, 1e6), st.just(NAN))),
)
def test_a_chance_is_a_probability_whatever_was_measured(points, excesses):
    chance = Keeping(points, excesses.tolist()).chance(points)
    assert ((chance >= 0.0) & (chance <= 1.0)).all()


def test_what_probably_breaks_a_limit_comes_after_what_probably_keeps_it():
    points, known = np.array([[0.3, 0.3, 0.8], [0.5, 0.5, 0.2]]), some_points(30)
    free = Solved(None, np.arange(2)[:, None], points, np.zeros((2, 3)), np.zeros(2))
    limited = replace(free, keeping=Keeping(known, [(drop - 0.5,) for drop in known[:, 2]]))
    new, nothing, worst = np.ones(2, bool), np.zeros((0, 3)), np.array([1.0, 1.0, 5.0])
    assert choose(free, new, nothing, worst, 1) == [0]
    assert choose(limited, new, nothing, worst, 1) == [1]
    dominating = np.array([[0.1, 0.1, 0.1]])  # so that nothing promises a gain
    assert choose(limited, new, dominating, worst, 1) == [1]


def hidden(candidate):
    """By how much a limit is broken of which no model of costs tells: the drop, and what one layer loses beside it."""
    return 1.5 * measure(candidate)[2] + 0.1 * (candidate.choice("conv.2").weight_bits == 2) - 0.35


def searched(told, seed, count=50):
    task = make_task(seed=seed)
    frontier = Frontier(task)

    def observation(candidate):
        return Observation(candidate, measure(candidate), excesses=(hidden(candidate),) if told else ())

    history = [observation(candidate) for _, candidate in start_points(task.space)]
    while len(history) < count:
        history.append(observation(frontier.propose(history, 1)[0]))
    return frontier, history


def test_a_search_that_is_told_of_a_limit_finds_more_that_keeps_it():
    volumes, shares = [], []
    for told in (True, False):
        histories = [searched(told, seed)[1] for seed in range(3)]
        kept = [[o.point for o in history if hidden(o.candidate) <= 0.0] for history in histories]
        volumes.append(np.mean([hypervolume(points) for points in kept]))
        shares.append(np.mean([len(points) for points in kept]))
    assert shares[0] > 1.3 * shares[1]
    assert volumes[0] > volumes[1]


def test_the_hypervolume_that_was_reached_is_of_those_that_keep_the_limits():
    frontier, history = searched(True, 0, 20)
    kept = [o.point for o in history if hidden(o.candidate) <= 0.0]
    assert 0 < len(kept) < len(history)
    assert frontier.reached(history) == pytest.approx(hypervolume(kept))
    assert frontier.reached([Observation(history[0].candidate, (0.5, 0.5, 0.5), excesses=(NAN,))]) > 0.0
