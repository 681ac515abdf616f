"""Dominance and hypervolume against brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfront.studies import front

COORDINATE = st.integers(0, 6).map(lambda step: step / 5)  # a coarse grid gives ties, and points beyond 1
POINTS = st.lists(st.tuples(COORDINATE, COORDINATE, COORDINATE), max_size=12)


def brute_force_mask(points):
    return [not any(all(b <= a for a, b in zip(p, q, strict=True)) and q != p for q in points) for p in points]


def brute_force_volume(points, steps=5):
    """Count the cells of the unit cube's grid that some point dominates."""
    cells = np.stack(np.meshgrid(*[np.arange(steps) / steps] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    covered = np.zeros(len(cells), dtype=bool)
    for point in points:
        covered |= (np.asarray(point) <= cells + 1e-9).all(axis=1)
    return covered.mean()


@given(POINTS)
def test_mask_is_that_of_brute_force(points):
    assert front.nondominated(points).tolist() == brute_force_mask(points)


@given(POINTS)
def test_hypervolume_is_that_of_counted_cells(points):
    assert front.hypervolume(points) == pytest.approx(brute_force_volume(points))


@given(POINTS, st.tuples(COORDINATE, COORDINATE, COORDINATE))
def test_another_point_never_makes_the_hypervolume_smaller(points, other):
    assert front.hypervolume([*points, other]) >= front.hypervolume(points) - 1e-12


INSIDE = st.lists(st.tuples(*[st.integers(0, 19).map(lambda step: step / 20)] * 3), min_size=1, max_size=12)


def test_the_reference_and_no_point_at_all_have_no_volume():
    assert front.hypervolume([]) == 0.0
    assert front.hypervolume([(1.0, 1.0, 0.0)]) == 0.0
    assert front.hypervolume([(0.0, 0.0, 0.0)]) == 1.0


def test_hypervolume_below_another_corner():
    assert front.hypervolume([(0.25, 0.5, 0.0)], worst=(0.5, 1.0, 0.5)) == pytest.approx(0.25 * 0.5 * 0.5)


@pytest.mark.parametrize(
    ("psnr", "fidelity", "target", "drop", "share"),
    [
        (28.5, 40.0, True, 1.5, 0.5),
        (31.0, 40.0, True, 0.0, 0.0),
        (35.0, 35.0, False, 15.0, 0.5),
        (60.0, 60.0, False, 0.0, 0.0),
    ],
)
def test_drop_and_point(psnr, fidelity, target, drop, share):
    assert front.drop_db(psnr, fidelity, 30.0, target) == drop
    assert front.point(0.25, 4.0, drop, target) == (0.25, 0.25, share)
