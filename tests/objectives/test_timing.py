"""Timing in turn, on a clock that the test owns."""

from types import SimpleNamespace

import numpy as np
import pytest

from slimfront.objectives import timing
from slimfront.objectives.protocol import Reading, Subject
from slimfront.objectives.ratio import SESSION
from slimfront.objectives.samples import Samples
from slimfront.objectives.target import STOCK
from slimfront.objectives.timing import Timing
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

        return SimpleNamespace(run=run)

    def model(self, name, seconds):
        samples = Samples({"x": np.zeros((1, 3, 4, 4), np.float32)})
        return SimpleNamespace(session=self.session(name, seconds), samples=samples, batch=1, target=STOCK)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock.now)
    return clock


def test_models_are_timed_in_turn_after_their_warm_ups(clock):
    subject = Subject(clock.model("B", 0.1), clock.model("A", 0.4))
    readings = Timing().measure(subject)
    order = "".join(clock.order)
    rounds = [order[4 + 2 * i : 6 + 2 * i] for i in range(9)]
    assert order.startswith("AABB") and len(order) == 4 + 2 * 9
    assert set(rounds) == {"AB", "BA"}, "each round times both, in random order"
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


@pytest.mark.parametrize(("seconds", "rounds"), [(0.4, 30), (0.004, 120)])
def test_unsteady_times_end_by_the_time_budget_or_the_most_rounds(clock, seconds, rounds):
    noise = np.random.default_rng(0).uniform(0.5, 1.5, 1000)
    subject = Subject(
        clock.model("B", lambda n: 0.25 * seconds * noise[n]), clock.model("A", lambda n: seconds * noise[n])
    )
    readings = Timing(slot_seconds=0.0).measure(subject)
    used = (len(clock.order) - 4) // 2
    assert 9 < used <= rounds
    speedup = readings["speedup"]
    assert speedup.low < speedup.value < speedup.high
    assert f"{used} rounds" in speedup.how


def test_fast_models_are_run_several_times_a_round(clock):
    Timing(slot_seconds=0.004).measure(Subject(clock.model("B", 0.0005), clock.model("A", 0.001)))
    order = "".join(clock.order)
    rounds = [order[4 + 12 * i : 16 + 12 * i] for i in range(9)]
    assert set(rounds) == {"AAAA" + "B" * 8, "B" * 8 + "AAAA"}


def test_a_model_that_fails_is_a_build_error(clock):
    def fail(_):
        raise RuntimeError("out of memory")

    with pytest.raises(BuildError, match="out of memory"):
        Timing().measure(Subject(clock.model("B", fail), clock.model("A", 0.1)))


def test_a_model_slower_than_the_budget_is_timed_once_with_a_wide_interval(clock):
    readings = Timing().measure(Subject(clock.model("B", 10.0), clock.model("A", 20.0)))
    assert sorted(clock.order) == ["A", "A", "B", "B"], "one warm-up and one timed run each"
    speedup = readings["speedup"]
    assert speedup.value == pytest.approx(2.0)
    assert speedup.low < 0.9 * speedup.value and speedup.high > 1.1 * speedup.value


def test_a_busy_machine_is_waited_for(clock):
    """Other work slows the two now and then: those rounds are dropped, and rounds go on past the usual time."""
    bursts = np.random.default_rng(0).choice([1.0, 3.0], 1000, p=[0.5, 0.5])
    subject = Subject(clock.model("B", lambda n: 0.1 * bursts[n]), clock.model("A", lambda n: 0.1 * bursts[n]))
    readings = Timing(seconds=2.0).measure(subject)
    assert readings["speedup"].value == pytest.approx(1.0)
    assert readings["disturbed"].value > 0.25
    assert clock.now > 4.0
    assert "disturbed" in readings["speedup"].how


def test_a_reference_slower_than_it_is_known_to_be_widens_the_interval(clock):
    subject = Subject(clock.model("B", 0.1), clock.model("A", 0.3))
    expected = Subject(clock.model("B", 0.1), clock.model("A", 0.3), reference_seconds=0.2)
    steady, slowed = (Timing().measure(each)["speedup"] for each in (subject, expected))
    assert slowed.high - slowed.low > 3 * (steady.high - steady.low)


def test_a_clock_that_jumps_costs_rounds_and_not_the_result(clock):
    jumps = {20: 3600.0, 25: -7200.0}
    reference = clock.model("A", lambda n: 0.4 + jumps.get(n, 0.0))
    readings = Timing(longest=1e9, seconds=1e9).measure(Subject(clock.model("B", 0.1), reference))
    assert readings["speedup"].value == pytest.approx(4.0)
    assert readings["speedup"].low > 3.8


def predicted(speedup, half=0.04):
    return Reading(speedup, "x", speedup * (1 - half), speedup * (1 + half))


def steady(seed, size=0.01):
    """Noise that differs from run to run by so much."""
    return np.exp(np.random.default_rng(seed).normal(0.0, size, 1000))


def test_models_timed_together_share_the_reference_and_leave_when_they_are_settled(clock):
    """C is unsteady; A, the reference of both, runs once a round."""
    unsteady = steady(0, 0.08)
    reference = clock.model("A", 0.08)
    subjects = [
        Subject(clock.model("B", 0.02), reference),
        Subject(clock.model("C", lambda n: 0.04 * unsteady[n]), reference),
    ]
    first, second = Timing().measure_together(subjects)
    assert first["speedup"].value == pytest.approx(4.0)
    assert second["speedup"].value == pytest.approx(2.0, rel=0.05)
    assert clock.order.count("B") == 2 + 9 < clock.order.count("C") == clock.order.count("A")


def test_a_prediction_that_the_first_rounds_confirm_ends_the_timing(clock):
    subject = Subject(clock.model("B", 0.1), clock.model("A", 0.4), predicted=predicted(4.1))
    speedup = Timing().measure(subject)["speedup"]
    assert clock.order.count("B") == 2 + 6
    assert speedup.value == pytest.approx(4.0), "what was timed, not what was predicted"


@pytest.mark.parametrize("claim", [predicted(5.0), predicted(4.0, 0.0), predicted(4.4, 0.02)])
def test_a_prediction_that_is_wrong_or_without_an_interval_ends_nothing(clock, claim):
    """However quiet the rounds are."""
    subject = Subject(clock.model("B", 0.1), clock.model("A", 0.4), predicted=claim)
    Timing().measure(subject)
    assert clock.order.count("B") == 2 + 9


def test_a_prediction_that_says_little_ends_nothing_where_rounds_are_noisy(clock):
    noise = steady(0, 0.03)
    subject = Subject(clock.model("B", lambda n: 0.1 * noise[n]), clock.model("A", 0.4), predicted=predicted(4.0, 0.3))
    Timing().measure(subject)
    assert clock.order.count("B") >= 2 + 9


@pytest.mark.parametrize("bias", [0.0, 0.04])
def test_intervals_hold_where_predictions_end_timings_even_if_these_are_biased(clock, bias):
    random = np.random.default_rng(0)
    held, rounds = 0, []
    for seed in range(200):
        clock.order.clear()
        noise = steady(seed, 0.02) * np.exp(random.normal(0.0, SESSION))
        claim = predicted(4.0 * np.exp(random.normal(bias, 0.025)))
        subject = Subject(
            clock.model("B", lambda n, noise=noise: 0.1 * noise[n]), clock.model("A", 0.4), predicted=claim
        )
        found = Timing().measure(subject)["speedup"]
        held += found.low <= 4.0 <= found.high
        rounds.append(clock.order.count("B") - 2)
    assert held >= 0.93 * 200
    assert min(rounds) == 6 and np.mean(np.array(rounds) < 9) > 0.5


def test_a_prediction_however_sure_does_not_stand_for_a_timing(clock):
    """Rounds that differ by half say nothing themselves."""
    noise = steady(0, 0.5)
    subject = Subject(
        clock.model("B", lambda n: 0.01 * noise[n]), clock.model("A", 0.04), predicted=predicted(4.0, 0.001)
    )
    Timing().measure(subject)
    assert clock.order.count("B") > 2 + 9
