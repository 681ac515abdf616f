"""What a reference needs is remembered by machine and model, and is not told by the slow ones of its timings."""

from __future__ import annotations

import numpy as np
import pytest

from slimfront.objectives.ratio import ratio_estimate
from slimfront.objectives.reference_times import KEPT, ReferenceTimes
from slimfront.spaces.cache import Store
from slimfront.spaces.errors import InputError


def test_a_fresh_process_knows_what_the_reference_needs():
    first = ReferenceTimes("machine a", "model")
    assert first.needed is None
    for seconds in (0.1, 0.101, 0.1, 0.102, 0.13, 0.14):  # the last two beside other work
        first.add(seconds)
    assert ReferenceTimes("machine a", "model").needed == pytest.approx(0.1, rel=0.01)
    assert ReferenceTimes("machine b", "model").needed is None
    assert ReferenceTimes("machine a", "another").needed is None


def test_a_machine_that_became_slower_for_good_is_known_as_such():
    times = ReferenceTimes("machine c", "model")
    for seconds in [0.1] * 10 + [0.2] * KEPT:
        times.add(seconds)
    assert times.needed == pytest.approx(0.2)


@pytest.mark.parametrize("seconds", [0.0, -0.1, float("nan"), float("inf")])
def test_what_a_jumping_clock_tells_is_not_remembered(seconds):
    times = ReferenceTimes("machine with a jumping clock", "model")
    times.add(seconds)
    assert times.needed is None


def test_a_cache_that_cannot_be_written_to_forgets_with_the_process(monkeypatch):
    def full(*_):
        raise InputError("no space")

    monkeypatch.setattr(Store, "put_arrays", full)
    times = ReferenceTimes("machine d", "model")
    times.add(0.5)
    assert times.needed == 0.5 and ReferenceTimes("machine d", "model").needed is None


def test_a_process_on_a_machine_that_is_slowed_all_the_time_gives_a_wider_interval():
    """Other work that slows the reference by 15 % and the candidate by 5 %, from the first round to the last."""
    times = ReferenceTimes("machine e", "model")
    times.add(0.1)
    noise = np.exp(0.01 * np.random.default_rng(0).standard_normal((20, 2)))
    slowed = noise * [0.115, 0.0525]
    alone, told = ratio_estimate(slowed), ratio_estimate(slowed, times.needed)
    assert not alone.low <= 2.0 <= alone.high
    assert told.low <= 2.0 <= told.high
