"""A reference whose own time moved, and layers that run in float against the promise, are told with the figure."""

from __future__ import annotations

import re

import pytest

from slimfront.objectives.protocol import Reading
from slimfront.studies.reading_notes import disturbance_notes, kernel_notes, timing_notes


def timing(milliseconds: float, drift: float = 0.0) -> dict[str, Reading]:
    return {"reference_ms": Reading(milliseconds, "ms"), "reference_drift": Reading(drift, "")}


@pytest.mark.parametrize("timings", [[], [timing(40.0)], [timing(40.0, 0.08), timing(43.0, -0.09), timing(41.0)]])
def test_a_steady_reference_is_not_told(timings):
    assert timing_notes(timings) == []


@pytest.mark.parametrize(
    ("timings", "words"),
    [
        ([timing(40.0), timing(50.0), timing(45.0)], r"up to 25% \(medians from 40\.0 ms to 50\.0 ms\)"),
        ([timing(40.0), timing(41.0, -0.3)], r"up to 30% \(medians from 40\.0 ms to 41\.0 ms\)"),
        ([timing(0.02, 0.5)], r"up to 50% .*too small to time well"),
    ],
)
def test_a_reference_that_moved_is_told_with_the_figure(timings, words):
    (note,) = timing_notes(timings)
    assert re.search(words, note), note


def test_layers_that_run_in_float_against_the_promise_are_told():
    whole = {"float_fallbacks": Reading(0.0, "", how="kernels of the optimised graph")}
    lacking = {"float_fallbacks": Reading(2.0, "", how="kernels of the optimised graph; in float: up1, up2")}
    assert kernel_notes([timing(40.0), whole]) == []
    (note,) = kernel_notes([timing(40.0), whole, lacking])
    assert "1 of 2 candidates" in note and "up1, up2" in note


def test_disturbed_timings_are_counted():
    def timing(dropped):
        return {"disturbed": Reading(dropped, "")}

    assert not disturbance_notes([timing(0.0)] * 9 + [timing(0.5)])
    [note] = disturbance_notes([timing(0.0), timing(0.3), timing(0.5)])
    assert "2 of 3 timings" in note and "50%" in note
