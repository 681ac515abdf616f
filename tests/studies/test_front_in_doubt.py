"""Domination beyond intervals, and the probability of being on the front, against brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfront.studies.front import membership, nondominated, surely_dominated

ROWS = st.lists(st.tuples(*[st.integers(1, 4)] * 3), min_size=1, max_size=8)


def brute_force(points, fastest, slowest):
    """A row is surely dominated where one row dominates it for the worst times: slowest against fastest."""

    def dominates(a, b):
        one, other = (points[a][0], slowest[a], points[a][2]), (points[b][0], fastest[b], points[b][2])
        return all(x <= y for x, y in zip(one, other, strict=True)) and one != other

    return [any(a != b and dominates(a, b) for a in range(len(points))) for b in range(len(points))]


@given(ROWS, st.lists(st.floats(0.0, 1.5), min_size=8, max_size=8))
def test_sure_domination_is_that_of_the_worst_case(rows, widths):
    points = np.array(rows, float)
    fastest, slowest = points[:, 1] - np.array(widths)[: len(rows)], points[:, 1] + np.array(widths)[: len(rows)]
    assert surely_dominated(points, fastest, slowest).tolist() == brute_force(points, fastest, slowest)


@given(ROWS)
def test_without_intervals_it_is_domination(rows):
    points = np.array(rows, float)
    assert (~surely_dominated(points, points[:, 1], points[:, 1])).tolist() == nondominated(points).tolist()


@given(ROWS)
def test_without_noise_membership_is_certain(rows):
    points = np.array(rows, float)
    assert membership(points, np.zeros(len(points)), 5).tolist() == nondominated(points).astype(float).tolist()


def test_membership_is_the_chance_that_one_time_is_below_another():
    """Two candidates alike but for times of 1.0 and 1.02, each uncertain by 2 %: P = Phi(-ln 1.02 / (0.02 sqrt 2))."""
    from scipy.stats import norm

    points = np.array([[1.0, 1.0, 1.0], [1.0, 1.02, 1.0]])
    found = membership(points, np.array([0.02, 0.02]), samples=4000)
    assert found[1] == pytest.approx(norm.cdf(-np.log(1.02) / (0.02 * 2**0.5)), abs=0.03)
    assert found.sum() == pytest.approx(1.0)
