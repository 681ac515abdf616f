"""Sums over axes and neighbours, learned from planted ones."""

import numpy as np
import pytest

from slimfront.search.sums import Guess, Sums

AXES, OPTIONS = 6, 4
LINKS = np.array([(axis, axis + 1) for axis in range(AXES - 1)])
SCALES = (0.01, 0.05, 0.2)


def planted(pulls, count=60):
    random = np.random.default_rng(3)
    table = random.uniform(0.1, 1.0, (AXES, 1)) * 4.0 ** -np.arange(OPTIONS)
    factors = random.uniform(0.5, 2.0, AXES)
    vectors = random.integers(0, OPTIONS, (count + 100, AXES))
    own = table[np.arange(AXES), vectors]
    pairs = np.sqrt(own[:, :-1] * own[:, 1:]) @ pulls
    total = np.maximum(own @ factors + pairs, 0.25 * (own @ factors))
    noisy = total * (1.0 + 0.01 * random.standard_normal(len(total)))
    sums = Sums(Guess(table, LINKS), vectors[:count], noisy[:count], noisy[:count] + 0.01, SCALES)
    return sums, factors, table, vectors[count:], total[count:]


def test_factors_and_pulls_of_neighbours_are_found_again():
    pulls = np.array([0.8, 0.0, -0.5, 0.6, 0.0])
    sums, factors, table, vectors, total = planted(pulls)
    assert sums.table == pytest.approx(table * factors[:, None], rel=0.1)
    assert sums.pulls == pytest.approx(pulls, abs=0.1)
    assert sums.predict(vectors) == pytest.approx(total, rel=0.1, abs=0.01)
    scores = (total - sums.predict(vectors)) / np.hypot(sums.spread(vectors), 0.01 * total)
    assert np.abs(scores).max() < 4.0


def test_where_nothing_pulls_no_pull_is_found():
    sums, *_, vectors, total = planted(np.zeros(AXES - 1))
    assert not sums.pulls.any()
    assert sums.predict(vectors) == pytest.approx(total, rel=0.05)


def test_what_was_never_measured_is_doubted_more_and_is_new():
    table = np.ones((2, 3))
    vectors = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    sums = Sums(Guess(table, np.zeros((0, 2), int)), vectors, np.full(4, 2.0), np.full(4, 2.0), SCALES)
    known, new = np.array([[0, 1]]), np.array([[0, 2]])
    assert sums.spread(new) > 1.2 * sums.spread(known)
    assert sums.novelty(new) > sums.novelty(known)


def test_pairs_cost_the_same_whichever_way_they_are_asked():
    sums, _, _, vectors, _ = planted(np.array([0.8, 0.0, -0.5, 0.6, 0.0]))
    axis = 3
    for row, pulled in zip(vectors[:5], sums.pulled(axis, vectors[:5]), strict=True):
        expected = sums.together(2)[row[2]] + sums.together(3)[:, row[4]]
        assert pulled == pytest.approx(expected)
