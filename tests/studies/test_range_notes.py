"""Samples in another range than the evaluation data, or than the model's, are pointed out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from slimfront.spaces.errors import InputError
from slimfront.studies.range_notes import input_notes
from slimfront.studies.study import Study

Pictures = Callable[[int, int], np.ndarray]


def test_calibration_in_bytes_beside_evaluation_in_zero_to_one_is_noted() -> None:
    x = np.linspace(0, 1, 48, dtype=np.float32).reshape(1, 3, 4, 4)
    (note,) = input_notes({"data.calibration": {"x": 255 * x}, "data.evaluation": {"x": x}})
    assert note.startswith("data.calibration: values of 'x' reach 255")


def test_like_ranges_are_not_noted() -> None:
    x = np.linspace(-1, 1, 48, dtype=np.float32).reshape(1, 3, 4, 4)
    assert input_notes({"data.calibration": {"x": 0.7 * x}, "data.evaluation": {"x": x}}) == []


@pytest.fixture
def scaling(tmp_path: Path, pictures: Pictures) -> Callable[..., Study]:
    """A function (weight, largest, **changes): a study of a model that multiplies its input, which is in 0..largest."""

    def make(weight: float, largest: float, **changes: tuple[float, float]) -> Study:
        model = onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["": 21]> g (float[1,3,16,16] x) => (float[1,3,16,16] y) { y = Conv(x, w) }'
        )
        kernel = weight * np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
        model.graph.initializer.append(numpy_helper.from_array(kernel, "w"))
        onnx.save(model, tmp_path / "scaling.onnx")
        samples = [np.float32(largest) * pictures(3, seed) for seed in (1, 2)]
        return Study(tmp_path / "scaling.onnx", *samples, saturation_safe=True, **changes)

    return make


@pytest.mark.parametrize(
    ("weight", "largest", "value_range"),
    [(1.0, 1.0, (0.0, 1.0)), (1 / 255, 255.0, (0.0, 1.0)), (1.0, 255.0, (0.0, 255.0)), (1.04, 1.0, (0.0, 1.0))],
)
def test_inputs_in_the_models_range_are_not_noted(scaling, weight, largest, value_range) -> None:
    study = scaling(weight, largest, range=value_range)
    study.check()
    assert study.warnings == []


@pytest.mark.parametrize(
    ("weight", "largest", "value_range", "words"),
    [
        (1.0, 255.0, (0.0, 1.0), r"100% of them lie outside data\.range 0\.\.1: .*'x': 0\.\d+\.\.25\d"),
        (1 / 255, 1.0, (0.0, 1.0), r"they span only 0\.4% of data\.range 0\.\.1"),
        (1.0, 1.0, (0.0, 255.0), r"they span only 0\.4% of data\.range 0\.\.255"),
        (2.0, 1.0, (0.0, 1.0), r"4\d% of them lie outside"),
    ],
)
def test_inputs_in_another_range_than_the_models_are_noted_once(scaling, weight, largest, value_range, words) -> None:
    study = scaling(weight, largest, range=value_range)
    study.check()
    study.check()
    (note,) = study.warnings
    assert note.startswith("data.evaluation: the model itself gives values in")
    assert re.search(words, note), note


def test_a_model_that_fails_on_its_own_data_is_wrong_input(scaling) -> None:
    with pytest.raises(InputError, match="the study's model itself fails: the model's output has NaN or infinite"):
        scaling(1e30, 1e30).check()
