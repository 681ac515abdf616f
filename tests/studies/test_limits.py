"""Sizes and times as texts; limits and how far a candidate breaks them."""

import numpy as np
import pytest

from slimfront.spaces.errors import InputError
from slimfront.studies.limits import Bound, Limits, parse_size, parse_time

CANDIDATE = {
    "size_bytes": 1_000_000,
    "latency_ms": 40.0,
    "psnr_db": 29.0,
    "drop_db": 0.5,
    "speedup": 4.0,
    "memory_bytes": 8_000_000,
}


@pytest.mark.parametrize(
    ("text", "size"),
    [("1MB", 1_000_000), ("800kB", 800_000), ("1.5MiB", 1_572_864), ("1 kib", 1024), ("2GB", 2 * 10**9), (123, 123)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("40ms", 0.04), ("0.1s", 0.1), ("10m", 600), ("1h", 3600), ("250us", 250e-6), (5, 5)]
)
def test_times(text, seconds):
    assert parse_time(text) == pytest.approx(seconds)


def test_a_plain_number_is_in_the_unit_that_is_asked_for():
    assert parse_time(40, plain="ms") == pytest.approx(0.04)


@pytest.mark.parametrize("value", ["", "MB", "1XB", "-1MB", "0MB", "1MB2", "nan", True, "1e999MB"])
def test_what_is_no_size_is_refused_by_name(value):
    with pytest.raises(InputError, match=r"^--max-size must be"):
        parse_size(value, "--max-size")


def test_limits_are_read_from_texts_and_numbers():
    limits = Limits.parse({"max_size": "1MB", "max_latency": "0.1s", "min_psnr": 28, "max_drop": None})
    assert limits == Limits(max_size=1_000_000, max_latency=100.0, min_psnr=28.0)
    assert Limits.parse({"max_latency": 40}) == Limits(max_latency=40.0)


@pytest.mark.parametrize("values", [{"min_psnr": "high"}, {"max_drop": float("nan")}, {"min_speedup": 0}])
def test_limits_that_are_no_numbers_are_refused(values):
    with pytest.raises(InputError, match=next(iter(values))):
        Limits.parse(values)


@pytest.mark.parametrize(
    ("limits", "violation"),
    [
        (Limits(), 0.0),
        (Limits(max_size=1_000_000, max_latency=40, min_psnr=29, max_drop=0.5, min_speedup=4), 0.0),
        (Limits(max_size=500_000), 1.0),
        (Limits(max_latency=20), 1.0),
        (Limits(min_psnr=32), 1.0),
        (Limits(max_drop=0.2), 0.1),
        (Limits(min_speedup=8), 1.0),
        (Limits(max_size=500_000, min_speedup=8), 2.0),
        (Limits(max_memory=8_000_000), 0.0),
        (Limits(max_memory=2_000_000), 3.0),
    ],
)
def test_violation(limits, violation):
    assert limits.violation(**CANDIDATE) == pytest.approx(violation)


def test_limits_apart_from_size_speed_and_quality_are_told_with_their_signs():
    bounds = (Bound("coverage", "min", 0.8), Bound("texture_db", "max_drop", 1.0, "dB"))
    limits = Limits(max_size=1, max_memory=10_000_000, bounds=bounds)
    readings, best = {"coverage": 0.4, "texture_db": 40.0}, {"coverage": 1.0, "texture_db": 40.5}
    told = limits.apart(memory_bytes=8_000_000, readings=readings, best=best)
    assert told == pytest.approx((-0.2, 0.5, -1.0 / 6.0))
    whole = Limits(max_memory=10_000_000, bounds=bounds).violation(**CANDIDATE, readings=readings, best=best)
    assert whole == pytest.approx(sum(max(excess, 0.0) for excess in told))
    assert np.isnan(limits.apart(memory_bytes=float("inf"), readings={}, best=best)).tolist() == [True] * 3
    assert Limits(max_size=1).apart(memory_bytes=1.0, readings=readings, best=best) == ()


def test_memory_that_is_not_known_keeps_no_limit_and_is_asked_for_by_none():
    unknown = {key: value for key, value in CANDIDATE.items() if key != "memory_bytes"}
    assert Limits(max_memory=1e12).violation(**unknown) == float("inf")
    assert Limits(max_size=2_000_000).violation(**unknown) == 0.0
    columns = {key: np.array([value, value]) for key, value in unknown.items()}
    assert Limits(max_size=2_000_000).kept(**columns).all()
    assert not Limits(max_memory=1e12).kept(**columns).any()
    assert Limits(max_memory=5).kept(**columns, memory_bytes=np.array([4.0, 6.0])).tolist() == [True, False]


def test_a_limit_of_memory_is_read_as_a_size_and_told():
    assert Limits.parse({"max_memory": "64MB"}) == Limits(max_memory=64e6)
    assert str(Limits(max_memory=64e6)) == "peak memory at most 64,000,000 bytes"
    with pytest.raises(InputError, match=r"constraints\.max_memory must be a size such as .*'64XB'"):
        Limits.parse({"max_memory": "64XB"}, "constraints.")


def test_the_point_of_limits_is_the_largest_one_that_keeps_them():
    reference = {"size_bytes": 4_000_000, "latency_ms": 160.0, "best_db": 29.5, "full_drop_db": 3.0}
    limits = Limits(max_size=1_000_000, max_latency=40, min_speedup=8, min_psnr=29.2, max_drop=0.15)
    assert limits.point(**reference) == pytest.approx((0.25, 0.125, 0.05))
    assert Limits().point(**reference) == (float("inf"),) * 3


def test_given_limits_stand_over_others():
    assert Limits(max_size=1).over(Limits(max_size=2, min_psnr=3)) == Limits(max_size=1, min_psnr=3)
