"""Ranges for 8 bits: never worse than the extremes, within them, and chosen for what the next node sees."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slimfront.spaces.lowering import quantisation
from slimfront.spaces.ranges import ValueSample, choose_range, seen_by_reader


def error_of(values: np.ndarray, low: float, high: float, seen=lambda v: v) -> float:
    """The mean squared error of the 8-bit grid over [low, high], as the build writes it."""
    scale, zero = quantisation(low, high)
    rounded = (np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale
    return float(np.mean((seen(rounded) - seen(values)) ** 2))


floats = arrays(np.float32, st.integers(1, 200), elements=st.floats(-1000, 1000, width=32))


@settings(max_examples=60, deadline=None)
@given(floats)
def test_the_chosen_range_lies_within_the_extremes_and_is_no_worse(values):
    low, high = choose_range(values, float(values.min()), float(values.max()))
    assert min(values.min(), 0) <= low <= 0 <= high <= max(values.max(), 0)
    best = error_of(values, low, high)
    span = float(np.ptp(np.append(values, 0)))
    assert best <= error_of(values, values.min(), values.max()) * 1.001 + (1e-3 * span / 255) ** 2


def test_few_far_values_are_clipped_where_that_is_better():
    values = np.random.default_rng(0).standard_normal(400_000).astype(np.float32)
    values[:2] = 12, -9
    low, high = choose_range(values, -9, 12)
    assert high < 8 and low > -6.5
    assert error_of(values, low, high) < 0.5 * error_of(values, -9, 12)


def test_values_without_far_ones_keep_their_extremes():
    values = np.linspace(0, 1, 256, dtype=np.float32)
    assert choose_range(values, 0.0, 1.0) == pytest.approx((0.0, 1.0))


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_a_constant_tensor_has_a_range_that_holds_it(value):
    values = np.full(10, value, np.float32)
    low, high = choose_range(values, value, value)
    assert error_of(values, low, high) < 1e-4


@settings(max_examples=100, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_every_grid_holds_zero_and_spans_its_range(a, b):
    low, high = min(a, b), max(a, b)
    scale, zero = quantisation(low, high)
    assert scale > 0 and 0 <= zero <= 255
    assert (0 - zero) * scale <= min(low, 0) + scale * 0.51
    assert (255 - zero) * scale >= max(high, 0) - scale * 0.51


def test_an_error_in_front_of_a_leaky_relu_counts_as_far_as_it_passes():
    values = np.concatenate([np.linspace(-50, 0, 100), np.random.default_rng(0).random(5000)]).astype(np.float32)

    def leaky(v):
        return np.where(v < 0, 0.01 * v, v)

    low, high = choose_range(values, -50.0, 1.0, leaky)
    plain = choose_range(values, -50.0, 1.0)
    assert error_of(values, low, high, leaky) < error_of(values, *plain, leaky)
    assert low > plain[0]


@pytest.fixture(scope="module")
def graph(capture, weight):
    return capture(
        "(float[1,4,8,8] x) => (float[n,c,h,w] y) { a = Conv(x, w)\n b = LeakyRelu<alpha=0.25>(a)\n c = Conv(b, v)\n"
        "d = PRelu(c, s)\n e = Conv(d, u)\n f = Sigmoid(e)\n g = Conv(f, t)\n h = Add(g, f)\n i = Relu(h)\n"
        "j = Conv(i, r)\n k = Tanh(j)\n y = Add(k, j) }",
        s=np.linspace(-0.5, 0.1, 4, dtype=np.float32).reshape(4, 1, 1),
        **{name: weight(4, 4, 1, 1, seed=i) for i, name in enumerate("wvutr")},
    )


def test_what_the_reader_sees_is_what_the_only_reader_computes(graph):
    samples = {name: ValueSample() for name in (*"abcdefghijk", "y")}
    for index, sample in enumerate(samples.values()):
        sample.add(np.random.default_rng(index).standard_normal((1, 4, 8, 8)).astype(np.float32), 100, 0)
    seen = seen_by_reader(graph, samples)
    v = np.linspace(-2, 2, 100).astype(np.float32)
    assert set(seen) == {"a", "c", "e", "g"}  # f and j have two readers; the others a reader that sees all
    assert np.allclose(seen["a"](v), np.where(v < 0, 0.25 * v, v))
    assert np.allclose(seen["c"](v), np.where(v < 0, np.abs(np.linspace(-0.5, 0.1, 4)).mean() * v, v), atol=1e-6)
    assert np.allclose(seen["e"](v), 1 / (1 + np.exp(-v)))
    assert np.allclose(seen["g"](v), np.maximum(v + samples["f"].values, 0))


def test_samples_of_tensors_of_one_size_are_taken_at_the_same_positions():
    first, second = ValueSample(), ValueSample()
    x = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float32)
    for batch in range(3):
        first.add(x + batch, 50, batch)
        second.add(2 * (x + batch), 50, batch)
    assert np.array_equal(second.values, 2 * first.values)
    assert (first.low, first.high) == (float(x.min()), float((x + 2).max()))
