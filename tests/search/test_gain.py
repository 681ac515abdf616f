"""The expected gain of hypervolume, against moocore's volumes and against chance itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slimfront.search.gain import expected_gain, open_boxes
from slimfront.studies.front import hypervolume

WORST = (1.0, 1.0, 1.0)
POINTS = st.integers(0, 12).flatmap(
    lambda count: arrays(float, (count, 3), elements=st.integers(0, 6).map(lambda value: value / 5))
)  # a coarse grid, so that coordinates and whole points coincide, and some lie beyond


@given(POINTS)
def test_boxes_fill_what_nothing_dominates_and_do_not_overlap(points):
    lower, upper = open_boxes(points, WORST)
    assert (lower < upper).all()
    volume = np.prod(upper - np.maximum(lower, 0.0), axis=1).sum()
    assert volume + hypervolume(points, WORST) == pytest.approx(1.0)
    inside = np.random.default_rng(0).random((200, 3))
    holders = ((lower <= inside[:, None]) & (inside[:, None] < upper)).all(axis=2).sum(axis=1)
    dominated = (points[:, None] <= inside).all(axis=2).any(axis=0) if len(points) else np.zeros(200, bool)
    assert (holders == ~dominated).all()


@given(POINTS, POINTS)
def test_a_sure_point_gains_what_it_adds_to_the_hypervolume(taken, points):
    gains = expected_gain(points, np.zeros_like(points), *open_boxes(taken, WORST))
    before = hypervolume(taken, WORST)
    added = [hypervolume(np.vstack([taken, point]), WORST) - before for point in points]
    assert gains == pytest.approx(added, abs=1e-12)


def test_an_uncertain_point_gains_what_chance_gives_on_average():
    random = np.random.default_rng(1)
    taken, points = random.random((15, 3)), random.random((4, 3))
    spread = np.array([[0.0, 0.1, 0.2], [0.1, 0.1, 0.1], [0.3, 0.0, 0.05], [0.0, 0.0, 0.4]])
    before = hypervolume(taken, WORST)
    drawn = points + spread * random.standard_normal((20_000, 4, 3))
    added = [np.mean([hypervolume(np.vstack([taken, d]), WORST) - before for d in drawn[:, row]]) for row in range(4)]
    assert expected_gain(points, spread, *open_boxes(taken, WORST)) == pytest.approx(added, rel=0.05, abs=2e-4)


def test_boxes_grow_with_the_front_not_with_its_square():
    angles = np.random.default_rng(2).dirichlet([1, 1, 1], 400)
    lower, _ = open_boxes(1.0 - np.sqrt(angles), WORST)
    assert len(lower) < 1200
