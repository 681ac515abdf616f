"""Limits that lie on none of the objectives: how likely they are kept, and that searches aim at it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slimfront.search.account import gain_ahead
from slimfront.search.frontier import Frontier
from slimfront.search.keeping import Keeping
from slimfront.search.proposers import Observation
from slimfront.search.solve import Solved, choose
from slimfront.search.start import start_points
from slimfront.search.twins import sequential_twin
from slimfront.spaces.candidate import Candidate, LayerChoice
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


@settings(max_examples=30)
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
    dominating = np.array([[0.3, 0.3, 0.0], [0.1, 0.1, 0.2]])  # so that nothing promises a gain; the former lacks less
    assert choose(free, new, dominating, worst, 1) == [0]
    assert choose(limited, new, dominating, worst, 1) == [1]


def test_what_is_expected_counts_as_far_as_it_is_sure():
    points = some_points(40)
    keeping = Keeping(points, [(drop - 0.5,) for drop in points[:, 2]])
    near = np.array([[0.5, 0.5, 0.6]])
    chances = [keeping.chance(near, np.array([[0.0, 0.0, doubt]]))[0] for doubt in (0.0, 0.1, 0.3)]
    assert chances[0] < chances[1] < chances[2] < 0.5


def test_where_every_candidate_breaks_a_limit_those_that_break_it_least_come_first():
    points = some_points(40)
    keeping = Keeping(points, [(0.5 * drop + 0.3,) for drop in points[:, 2]])
    pool = np.array([[0.5, 0.5, drop] for drop in (0.9, 0.2, 0.5)])
    assert keeping.chance(pool) == pytest.approx(0.0, abs=1e-12)
    assert keeping.log_chance(pool).argsort().tolist() == [0, 2, 1]
    solved = Solved(None, np.arange(3)[:, None], pool, np.zeros((3, 3)), np.zeros(3), keeping)
    assert choose(solved, np.ones(3, bool), np.zeros((0, 3)), np.ones(3), 3) == [1, 2, 0]


def of_drop(candidate):
    """A limit on what goes with the drop, but for what one layer loses beside it."""
    return 1.5 * measure(candidate)[2] + 0.1 * (candidate.choice("conv.2").weight_bits == 2) - 0.35


def of_all(candidate):
    """A limit that the size and the time decide as well."""
    return sum(measure(candidate)) - 0.79


def searched(limit, told, seed, count=40):
    frontier = Frontier(make_task(seed=seed))

    def observation(candidate):
        return Observation(candidate, measure(candidate), excesses=(limit(candidate),) if told else ())

    history = [observation(candidate) for _, candidate in start_points(frontier.task.space)]
    while len(history) < count:
        history.append(observation(frontier.propose(history, 1)[0]))
    return frontier, history


@pytest.mark.parametrize("limit", [of_drop, of_all])
def test_a_search_that_is_told_of_a_limit_finds_more_that_keeps_it(limit):
    volumes, counts = [], []
    for told in (True, False):
        histories = [searched(limit, told, seed)[1] for seed in range(3)]
        kept = [[o.point for o in history if limit(o.candidate) <= 0.0] for history in histories]
        volumes.append(np.mean([hypervolume(points) for points in kept]))
        counts.append(np.mean([len(points) for points in kept]))
    assert counts[0] > 1.2 * counts[1]
    assert volumes[0] > volumes[1]


def test_what_is_told_is_proposed_again_the_same():
    frontier, history = searched(of_drop, True, 0, 20)
    again = [replace(o, excesses=(of_drop(o.candidate),)) for o in history]
    assert Frontier(frontier.task).propose(again, 2) == frontier.propose(history, 2)


def test_the_hypervolume_that_was_reached_is_of_those_that_keep_the_limits():
    frontier, history = searched(of_drop, True, 0, 20)
    kept = [o.point for o in history if of_drop(o.candidate) <= 0.0]
    assert 0 < len(kept) < len(history)
    assert frontier.reached(history) == pytest.approx(hypervolume(kept))
    assert frontier.reached([Observation(history[0].candidate, (0.5, 0.5, 0.5), excesses=(NAN,))]) > 0.0


def test_what_is_ahead_is_expected_of_those_that_may_keep_the_limits():
    frontier, history = searched(of_drop, True, 0, 20)
    run = SimpleNamespace(trials=[])
    unlimited = gain_ahead(run, frontier, [replace(o, excesses=()) for o in history])
    never = gain_ahead(run, frontier, [replace(o, excesses=(5.0,)) for o in history])
    assert gain_ahead(run, frontier, history) > 0.0
    assert unlimited > 0.01
    assert never == pytest.approx(0.0, abs=1e-6)


def test_a_twin_is_not_made_of_who_breaks_a_limit_while_others_keep_it():
    keeper, breaker = (Candidate({"conv.0": LayerChoice(bits, 8)}) for bits in (8, 4))
    history = [
        Observation(keeper, (0.5, 0.5, 0.3), excesses=(-0.2,)),
        Observation(breaker, (0.4, 0.4, 0.25), excesses=(1.0,)),
    ]
    assert sequential_twin(history, (1.0, 1.0, 1.0)) == replace(keeper, repair="sequential")
    assert sequential_twin(history[1:], (1.0, 1.0, 1.0)) == replace(breaker, repair="sequential")
