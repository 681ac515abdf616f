"""Preferences: the likeliest strengths by an independent search, intervals that hold, and what judgements do to them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfront.studies.preference import PRIOR_SPREAD, Pair, compared, fit, preferences
from slimfront.studies.review import Judgement


def judged(left: str, right: str, better: str) -> Judgement:
    return Judgement(who="", when="", session="", image=0, left=left, right=right, better=better)


def likelihood(strengths: np.ndarray, pairs: list[Pair]) -> float:
    value = -0.5 * np.sum((strengths / PRIOR_SPREAD) ** 2)
    for pair in pairs:
        won, lost = np.exp(strengths[pair.winner]), np.exp(strengths[pair.loser])
        value += pair.count * np.log(won / (won + lost))
    return float(value)


def test_strengths_are_the_likeliest_of_a_fine_grid():
    pairs = [Pair(0, 1, 3.0), Pair(1, 0, 1.0), Pair(1, 2, 2.0), Pair(2, 0, 1.5)]
    found, _ = fit(pairs, 3)
    grid = np.linspace(-2.0, 2.0, 81)
    best = max(itertools.product(grid, repeat=3), key=lambda s: likelihood(np.array(s), pairs))
    assert found == pytest.approx(best, abs=0.05)
    assert likelihood(found, pairs) >= likelihood(np.array(best), pairs) - 1e-9


def test_the_covariance_is_the_inverse_of_the_numerical_curvature():
    pairs = [Pair(0, 1, 4.0), Pair(1, 0, 3.0), Pair(2, 1, 2.0), Pair(1, 2, 0.5)]
    found, covariance = fit(pairs, 3)
    step, curvature = 1e-3, np.zeros((3, 3))
    for i, j in itertools.product(range(3), repeat=2):
        a, b = step * np.eye(3)[i], step * np.eye(3)[j]
        ends = [likelihood(found + x * a + y * b, pairs) * x * y for x, y in itertools.product((1, -1), repeat=2)]
        curvature[i, j] = -sum(ends) / (4 * step**2)
    assert covariance == pytest.approx(np.linalg.inv(curvature), rel=1e-3, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("rab"), st.sampled_from("rab"), st.sampled_from(["left", "right", "neither"])))
)
def test_swapping_the_sides_changes_nothing(given_: list[tuple[str, str, str]]):
    said = [judged(*one) for one in given_ if one[0] != one[1]]
    other = {"left": "right", "right": "left", "neither": "neither"}
    swapped = [judged(one.right, one.left, other[one.better]) for one in said]
    first, second = preferences(said, "r"), preferences(swapped, "r")
    assert first.keys() == second.keys()
    for key, reading in first.items():
        assert reading.value == pytest.approx(second[key].value, abs=1e-4)
        assert reading.low <= reading.value <= reading.high


def test_who_always_wins_is_preferred_and_surely_so_after_many_judgements():
    few, many = (preferences([judged("a", "r", "left")] * count, "r")["a"] for count in (1, 40))
    assert 0.5 < few.value < many.value < 1.0
    assert few.low < 0.5 < many.low


def test_who_is_never_told_apart_is_preferred_as_often_as_the_reference():
    reading = preferences([judged("a", "r", "neither")] * 30, "r")["a"]
    assert reading.value == pytest.approx(0.5, abs=1e-4)
    assert 0.25 < reading.low < 0.5 < reading.high < 0.75


def test_the_reference_is_as_good_as_itself():
    assert preferences([judged("a", "r", "left")], "r")["r"].value == 0.5


def test_without_judgements_nothing_is_known():
    assert preferences([], "r") == {}


def test_what_is_bound_by_others_only_has_a_wide_interval():
    chain = preferences([judged("a", "b", "left")] * 20, "r")
    assert chain["a"].high - chain["a"].low > 0.8


def test_who_was_never_compared_with_the_reference_even_by_others_is_told_apart():
    said = [judged("a", "b", "left"), judged("c", "r", "left"), judged("d", "c", "right")]
    assert compared(said, "r") == {"r", "c", "d"}


def test_nine_of_ten_intervals_hold_the_truth():
    random, held, count = np.random.default_rng(0), 0, 60
    for _ in range(count):
        truth = random.normal(0, 1)
        likely = 1 / (1 + np.exp(-truth))
        said = [judged("a", "r", "left" if random.random() < likely else "right") for _ in range(40)]
        reading = preferences(said, "r")["a"]
        held += reading.low <= likely <= reading.high
    assert held >= 0.9 * count
