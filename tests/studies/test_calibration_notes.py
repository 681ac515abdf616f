"""Warnings about calibration data: too few samples with the number that would do, inputs that never change."""

from __future__ import annotations

import numpy as np

from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.statistics import Statistics
from slimfront.studies.calibration_notes import input_notes, sample_notes
from slimfront.studies.study import Study


def tokens(tmp_path, rows: int):
    """A model of one Gemm with 48 inputs: each sample is one position."""
    import onnx
    from onnx import numpy_helper

    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 21]> g (float[1,48] x) => (float[1,8] y) { [dense] y = Gemm(x, w) }'
    )
    weight = np.random.default_rng(0).standard_normal((48, 8)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    path = tmp_path / "dense.onnx"
    onnx.save(model, path)
    return path, np.random.default_rng(1).random((rows, 48), np.float32)


def test_too_few_samples_are_told_with_the_number_that_would_do(tmp_path):
    path, x = tokens(tmp_path, 20)
    [note] = sample_notes(capture_onnx(path), len(x))
    assert "dense" in note and "96 samples would do" in note
    assert sample_notes(capture_onnx(path), 96) == []
    study = Study(path, x, np.random.default_rng(2).random((4, 48), np.float32))
    study.check()
    assert note in study.warnings


def test_pictures_have_many_positions_each(tiny_model):
    assert sample_notes(capture_onnx(tiny_model), 1) == []


def test_inputs_that_never_change_are_told(tmp_path):
    path, x = tokens(tmp_path, 200)
    graph = capture_onnx(path)
    assert input_notes(Statistics(graph, {"x": x})) == []
    x = x.copy()
    x[:, :5] = 0.25
    assert input_notes(Statistics(graph, {"x": x})) == []  # a few are ordinary behind a Relu
    x[:, :30] = 0.25
    [note] = input_notes(Statistics(graph, {"x": x}))
    assert "dense (30 of 48)" in note and "regularised" in note
