"""Dynamic programming along a chain, against trying everything."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfront.search.chain import best_chain


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 3))
def test_the_cheapest_of_all_ways_is_found(seed, length, options):
    random = np.random.default_rng(seed)
    own = random.normal(size=(3, length, options))
    own[:, -1, 1:] = np.inf  # the last place has one option
    links = [None if random.random() < 0.3 else random.normal(size=(3, options, options)) for _ in range(length - 1)]

    def cost(row, way):
        alone = sum(own[row, place, option] for place, option in enumerate(way))
        pairs = itertools.pairwise(way)
        return alone + sum(0.0 if link is None else link[row][pair] for link, pair in zip(links, pairs, strict=True))

    found = best_chain(own, lambda place: links[place])
    for row in range(3):
        best = min(cost(row, way) for way in itertools.product(range(options), repeat=length))
        assert cost(row, found[row]) == pytest.approx(best)


def test_one_cost_of_neighbours_serves_all_problems():
    own = np.array([[[0.0, 0.1], [0.1, 0.0]], [[0.0, 3.0], [3.0, 0.0]]])
    change = 1.0 - np.eye(2)[None]
    assert best_chain(own, lambda place: change).tolist() == [[0, 0], [0, 1]]
