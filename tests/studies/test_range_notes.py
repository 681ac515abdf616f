"""Samples in another range than the evaluation data are pointed out."""

from __future__ import annotations

import numpy as np

from slimfront.studies.data import range_notes


def test_calibration_in_bytes_beside_evaluation_in_zero_to_one_is_noted() -> None:
    x = np.linspace(0, 1, 48, dtype=np.float32).reshape(1, 3, 4, 4)
    (note,) = range_notes({"data.calibration": {"x": 255 * x}, "data.evaluation": {"x": x}})
    assert note.startswith("data.calibration: values of 'x' reach 255")


def test_like_ranges_are_not_noted() -> None:
    x = np.linspace(-1, 1, 48, dtype=np.float32).reshape(1, 3, 4, 4)
    assert range_notes({"data.calibration": {"x": 0.7 * x}, "data.evaluation": {"x": x}}) == []
