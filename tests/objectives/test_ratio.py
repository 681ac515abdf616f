"""Ratios from noisy rounds, on noise whose truth is known."""

import numpy as np
import pytest
from scipy import stats

from slimfront.objectives.protocol import Reading
from slimfront.objectives.ratio import (
    Z_PREDICTED,
    drift,
    joint_half_width,
    median_interval,
    pooled,
    quiet_rounds,
    ratio_estimate,
)

TRUTH = 2.5


def rounds(random, count, noise, common=None):
    """Seconds [count, 2] of a reference and a candidate that is `TRUTH` times faster."""
    common = np.ones(count) if common is None else common
    session = np.exp(random.normal(0.0, 0.005))  # where this process's memory lies
    reference = 0.1 * common * noise(count)
    return np.stack([reference, 0.1 / TRUTH / session * common * noise(count)], axis=1)


def steady(random):
    return lambda count: np.exp(random.normal(0.0, 0.01, count))


def bursts(random):
    """One run in six meets other work and takes up to three times as long."""
    return lambda count: (
        np.exp(random.normal(0.0, 0.01, count))
        * np.where(random.random(count) < 1 / 6, random.uniform(1.2, 3.0, count), 1.0)
    )


def two_modes(random):
    """Times lie at 1 or at 1.06, as where a clock frequency has two steps."""
    return lambda count: np.exp(random.normal(0.0, 0.005, count)) * random.choice([1.0, 1.06], count)


@pytest.mark.parametrize("noise", [steady, bursts, two_modes])
@pytest.mark.parametrize("drifts", [False, True])
def test_intervals_hold_what_they_promise(noise, drifts):
    inside, errors = [], []
    for seed in range(300):
        random = np.random.default_rng(seed)
        common = 1.0 + 0.08 * np.linspace(0, 1, 15) if drifts else None
        found = ratio_estimate(rounds(random, 15, noise(random), common))
        inside.append(found.low <= TRUTH <= found.high)
        errors.append(abs(found.value / TRUTH - 1.0))
    assert np.mean(inside) >= 0.93
    assert np.median(errors) < 0.02


def test_intervals_are_not_wider_than_they_need_be():
    random = np.random.default_rng(0)
    assert ratio_estimate(rounds(random, 15, steady(random))).half_width < 0.02


def test_disturbed_rounds_are_dropped_and_counted():
    seconds = np.tile([0.1, 0.05], (12, 1))
    seconds[[2, 5]] *= 3.0  # both were slowed
    seconds[7, 1] *= 1.5  # the candidate alone
    found = ratio_estimate(seconds)
    assert found.value == pytest.approx(2.0)
    assert (found.rounds, found.dropped) == (12, 3)
    assert np.flatnonzero(~quiet_rounds(seconds)).tolist() == [2, 5, 7]


def test_times_that_no_clock_could_give_are_dropped():
    seconds = np.tile([0.1, 0.05], (10, 1))
    seconds[0, 0], seconds[1, 1], seconds[2, 0] = -0.1, 0.0, np.nan
    found = ratio_estimate(seconds)
    assert found.value == pytest.approx(2.0)
    assert found.dropped == 3


def test_few_rounds_give_wide_intervals():
    widths = [ratio_estimate(np.tile([0.1, 0.05], (count, 1))).half_width for count in (1, 3, 5, 9)]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 0.1 and widths[-1] < 0.02


def test_a_machine_slower_than_known_widens_the_interval():
    seconds = np.tile([0.15, 0.05], (20, 1))
    assert ratio_estimate(seconds, needed=0.1).half_width > 5 * ratio_estimate(seconds, needed=0.15).half_width


def test_drift_compares_the_last_third_with_the_first():
    assert drift(np.array([1.0, 1.0, 5.0, 5.0, 1.1, 1.1])) == pytest.approx(0.1)


@pytest.mark.parametrize("n", range(1, 60))
def test_interval_is_the_narrowest_that_the_binomial_distribution_allows(n):
    values = np.random.default_rng(n).permutation(n).astype(float)
    low, high = median_interval(values)
    rank = int(low)
    assert high == n - 1 - rank
    if n >= 6:
        assert 2 * stats.binom.cdf(rank, n, 0.5) <= 0.05 < 2 * stats.binom.cdf(rank + 1, n, 0.5)
    else:
        assert rank == 0


def test_a_prediction_that_agrees_narrows_the_interval_as_a_second_timing_would():
    random = np.random.default_rng(0)
    found = ratio_estimate(rounds(random, 12, lambda count: np.exp(random.normal(0.0, 0.03, count))))
    half = np.log(found.high / found.low) / 2
    ends = np.exp(np.array([-half, half]) * Z_PREDICTED / 1.96)
    narrowed = joint_half_width(Reading(found.value, "x", *(found.value * ends)), found)
    timing = Reading(found.value, "x", found.low, found.high)
    both = pooled([timing, timing])
    assert narrowed == pytest.approx((both.high - both.low) / 2 / both.value, rel=0.05)


def test_a_prediction_that_differs_or_has_no_interval_says_nothing():
    found = ratio_estimate(np.tile([0.1, 0.05], (12, 1)))
    assert joint_half_width(Reading(2.5, "x", 2.45, 2.55), found) is None
    assert joint_half_width(Reading(2.0, "x"), found) is None
    assert joint_half_width(Reading(2.0, "x", 1.98, 2.02), found) < found.half_width
