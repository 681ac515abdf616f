"""Timing in turn, on a clock that the test owns; intervals against the binomial distribution."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from slimfront.objectives import timing
from slimfront.objectives.protocol import Subject
from slimfront.objectives.samples import Samples
from slimfront.objectives.timing import Timing, median_interval
from slimfront.spaces.errors import BuildError


class Clock:
    """A clock that only runs when a fake session does."""

    def __init__(self):
        self.now = 0.0
        self.order = []

    def session(self, name, seconds):
        def run(outputs, feed):
            self.order.append(name)
            took = seconds(len(self.order)) if callable(seconds) else seconds
            self.now += took

        return SimpleNamespace(run=run, get_outputs=lambda: [SimpleNamespace(name="y")])

    def model(self, name, seconds):
        samples = Samples({"x": np.zeros((1, 3, 4, 4), np.float32)})
        return SimpleNamespace(session=self.session(name, seconds), samples=samples, batch=1)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock.now)
    return clock


def test_models_are_timed_in_turn_after_their_warm_ups(clock):
    subject = Subject(clock.model("B", 0.1), clock.model("A", 0.4))
    readings = Timing().measure(subject)
    assert "".join(clock.order) == "AABB" + "AB" * 7
    assert readings["speedup"].value == pytest.approx(4.0)
    assert readings["reference_ms"].value == pytest.approx(400.0)
    assert readings["reference_drift"].value == pytest.approx(0.0)


def test_a_machine_that_slows_down_changes_the_drift_and_not_the_speedup(clock):
    slowing = 1.0 + 0.02 * np.arange(1000)
    subject = Subject(clock.model("B", lambda n: 0.1 * slowing[n]), clock.model("A", lambda n: 0.4 * slowing[n]))
    readings = Timing().measure(subject)
    assert readings["speedup"].value == pytest.approx(4.0, rel=0.02)
    assert readings["reference_drift"].value > 0.1


def test_the_reference_has_a_speedup_of_exactly_one(clock):
    reference = clock.model("A", 0.4)
    readings = Timing().measure(Subject(reference, reference))
    assert (readings["speedup"].value, readings["speedup"].low, readings["speedup"].high) == (1.0, 1.0, 1.0)
    assert readings["reference_ms"].value == pytest.approx(400.0)


@pytest.mark.parametrize(("seconds", "rounds"), [(0.4, 14), (0.004, 30)])
def test_unsteady_times_end_by_the_time_budget_or_the_most_rounds(clock, seconds, rounds):
    noise = np.random.default_rng(0).uniform(0.5, 1.5, 1000)
    subject = Subject(
        clock.model("B", lambda n: 0.25 * seconds * noise[n]), clock.model("A", lambda n: seconds * noise[n])
    )
    readings = Timing(slot_seconds=0.0).measure(subject)
    used = (len(clock.order) - 4) // 2
    assert 7 < used <= rounds
    speedup = readings["speedup"]
    assert speedup.low < speedup.value < speedup.high
    assert f"{used} rounds" in speedup.how


def test_fast_models_are_run_several_times_a_round(clock):
    Timing(slot_seconds=0.004).measure(Subject(clock.model("B", 0.0005), clock.model("A", 0.001)))
    assert "".join(clock.order).startswith("AABB" + "AAAA" + "B" * 8 + "AAAA")


def test_a_model_that_fails_is_a_build_error(clock):
    def fail(_):
        raise RuntimeError("out of memory")

    with pytest.raises(BuildError, match="out of memory"):
        Timing().measure(Subject(clock.model("B", fail), clock.model("A", 0.1)))


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
