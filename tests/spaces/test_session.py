"""Sessions: samples cut into the model's own batches, and what cannot be opened or run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfront.spaces.errors import BuildError, InputError, nearest, one_line
from slimfront.spaces.session import batches, infer, open_session


@given(count=st.integers(1, 20), batch=st.integers(1, 7))
def test_batches_hold_every_sample_once_and_are_filled_by_repeating(count, batch):
    x = np.arange(count)
    feeds = list(batches({"x": x, "z": -x}, batch))
    assert len(feeds) == -(-count // batch)
    assert all(len(feed["x"]) == len(feed["z"]) == batch and np.array_equal(feed["x"], -feed["z"]) for feed in feeds)
    together = np.concatenate([feed["x"] for feed in feeds])
    assert np.array_equal(together[:count], x) and set(together[count:]) <= set(x.tolist())


def test_inference_gives_one_output_for_each_sample(onnx_file):
    path = onnx_file("(float[3,2] x) => (float[3,2] y) { y = Neg(x) }")
    x = np.random.default_rng(0).random((7, 2), np.float32)
    assert np.array_equal(infer(open_session(path), {"x": x}, 3), -x)


def test_outputs_that_are_not_finite_are_a_build_error(onnx_file):
    session = open_session(onnx_file("(float[1,2] x) => (float[1,2] y) { y = Log(x) }"))
    with pytest.raises(BuildError, match="the model's output has NaN or infinite values"):
        infer(session, {"x": np.zeros((1, 2), np.float32)}, 1)


def test_inputs_of_the_wrong_shape_are_a_build_error(onnx_file):
    session = open_session(onnx_file("(float[1,2] x) => (float[1,2] y) { y = Neg(x) }"))
    with pytest.raises(BuildError, match="ONNX Runtime fails while running the model"):
        infer(session, {"x": np.zeros((1, 3), np.float32)}, 1)


def test_a_file_that_is_no_model_is_a_build_error(tmp_path):
    (tmp_path / "text.onnx").write_text("no model")
    for model in (b"no model", tmp_path / "text.onnx", tmp_path / "absent.onnx"):
        with pytest.raises(BuildError, match="ONNX Runtime cannot load the model"):
            open_session(model)


def test_an_unknown_provider_names_the_ones_there_are(onnx_file):
    path = onnx_file("(float[1,2] x) => (float[1,2] y) { y = Neg(x) }")
    with pytest.raises(InputError, match=r"target\.provider 'Abacus' is not in this.*CPUExecutionProvider"):
        open_session(path, provider="Abacus")


def test_the_nearest_spelling_is_named_where_there_is_one():
    assert nearest("weigth_bits", ["weight_bits", "repair"]) == " (did you mean 'weight_bits'?)"
    assert nearest("zzz", ["weight_bits", "repair"]) == ""


def test_an_errors_text_becomes_one_line():
    assert one_line(ValueError("a\n  b\tc")) == "a b c"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("x" * 999))) == 300
