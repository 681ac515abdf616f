"""Which channels go first: each criterion against an independent computation, and what it is worth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from slimfront.spaces.groups import channel_groups
from slimfront.spaces.importance import METHODS
from slimfront.spaces.statistics import Statistics


@pytest.fixture(scope="module")
def statistics(capture, weight, noise) -> Statistics:
    """Two 1x1 convolutions with six channels between them, of which the last three nearly repeat the first three."""
    first = weight(6, 4, 1, 1)
    first[3:] = first[:3] + 0.05 * weight(3, 4, 1, 1, seed=1)
    graph = capture(
        "(float[1,4,8,8] x) => (float[n,c,h,w] y) { [a] h = Conv(x, w)\n r = Relu(h)\n [b] y = Conv(r, v) }",
        w=first, v=weight(5, 6, 1, 1),
    )  # fmt: skip
    return Statistics(graph, {"x": noise(8, 4, 8, 8)})


def read(statistics: Statistics) -> np.ndarray:
    """What the second convolution reads, [M, 6], computed by NumPy."""
    graph = statistics.graph
    x = statistics.calibration["x"].transpose(0, 2, 3, 1).reshape(-1, 4)
    return np.maximum(x @ graph.weight(graph.layers["a"])[:, :, 0, 0].T, 0)


@pytest.mark.parametrize("name", METHODS)
def test_an_order_holds_each_piece_once(statistics, name):
    group = channel_groups(statistics.graph).groups["a"]
    order = METHODS[name]().order(group, statistics)
    assert sorted(order) == list(range(6))
    assert (order == METHODS[name]().order(group, statistics)).all()


def test_magnitude_is_the_sum_of_absolute_weights(statistics):
    graph = statistics.graph
    sizes = np.abs(graph.weight(graph.layers["a"])).sum(axis=(1, 2, 3))
    order = METHODS["magnitude"]().order(channel_groups(graph).groups["a"], statistics)
    assert (order == np.argsort(-sizes)).all()


def test_activation_is_the_mean_square_where_it_is_read(statistics):
    energy = np.square(read(statistics)).mean(axis=0)
    order = METHODS["activation"]().order(channel_groups(statistics.graph).groups["a"], statistics)
    assert (order == np.argsort(-energy)).all()


def test_output_energy_removes_what_least_squares_can_replace(statistics):
    """The three that stay leave nearly the least error of all triples, each repaired by NumPy's least squares."""
    graph = statistics.graph
    inputs = read(statistics)
    inputs = inputs - inputs.mean(axis=0)
    outputs = inputs @ graph.weight(graph.layers["b"])[:, :, 0, 0].T

    def error(kept: tuple[int, ...]) -> float:
        columns = inputs[:, list(kept)]
        return float(np.square(outputs - columns @ np.linalg.lstsq(columns, outputs, rcond=None)[0]).mean())

    order = METHODS["output-energy"]().order(channel_groups(graph).groups["a"], statistics)
    errors = sorted(error(kept) for kept in itertools.combinations(range(6), 3))
    assert error(tuple(order[:3])) <= errors[1]
    assert error(tuple(order[:3])) < 0.1 * np.median(errors)


def test_a_channel_that_nobody_needs_goes_first(capture, weight, noise):
    second = weight(5, 6, 1, 1)
    second[:, 2] = 0
    graph = capture(
        "(float[1,4,8,8] x) => (float[n,c,h,w] y) { [a] h = Conv(x, w)\n [b] y = Conv(h, v) }",
        w=weight(6, 4, 1, 1), v=second,
    )  # fmt: skip
    statistics = Statistics(graph, {"x": noise(4, 4, 8, 8)})
    assert METHODS["output-energy"]().order(channel_groups(graph).groups["a"], statistics)[-1] == 2
