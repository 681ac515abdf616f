"""Sums over nodes say what the predictor says, thousands of times faster; how far they are off is known."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from slimfront.objectives import calibration
from slimfront.objectives import rapid as rapid_module
from slimfront.objectives.calibration import calibrate, draw
from slimfront.objectives.node_features import structures
from slimfront.objectives.predictor import Predictor
from slimfront.objectives.rapid import LEAST_LEARNED, RapidPredictor
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.errors import BuildError, InputError
from slimfront.spaces.space import make_space

from .machines import Machine

ALL = "abcde"


@pytest.fixture(scope="module")
def learned(residual_model, pictures):
    """A predictor that was calibrated, and sums that were learned from it."""
    from .machines import study_parts

    builder, space, feed = study_parts(residual_model, pictures(4, 1))
    predictor = Predictor(builder, Machine("rapid"))
    rapid = RapidPredictor(predictor)
    ticks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: float(next(ticks)))  # a second is a round, or a candidate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "time", clock)
        patch.setattr(rapid_module, "time", clock)
        calibrate(predictor, space, feed, seconds=10)
        rapid.learn(space, seconds=120)
    return rapid, space


def test_candidates_that_were_not_learned_from_are_predicted_as_by_their_kernels(learned):
    rapid, space = learned
    assert len(rapid.predictor.samples) >= LEAST_LEARNED
    known = {sample.candidate for sample in rapid.predictor.samples.values()}
    random = np.random.default_rng(9)
    asked = [candidate for candidate in (draw(space, random) for _ in range(60)) if candidate not in known][:30]
    found = rapid.predict(asked)
    exact = np.array([rapid.predictor.predict(candidate).speedup for candidate in asked])
    missed = np.log(found.speedup / exact)
    assert np.sqrt(np.mean(missed**2)) < 0.04
    assert np.corrcoef(found.speedup, exact)[0, 1] > 0.98
    assert np.mean((found.low <= exact) & (exact <= found.high)) >= 0.9


def test_the_error_is_what_the_sums_really_miss(learned):
    rapid, space = learned
    random = np.random.default_rng(11)
    asked = [draw(space, random) for _ in range(30)]
    exact = [rapid.predictor.predict(candidate).speedup for candidate in asked]
    missed = float(np.sqrt(np.mean(np.log(rapid.predict(asked).speedup / exact) ** 2)))
    assert 0.3 * missed < rapid.error < 3 * missed


def test_intervals_hold_what_the_sums_miss_beside_what_the_predictor_does(learned):
    rapid, _ = learned
    candidate = Candidate(dict.fromkeys(ALL, LayerChoice(4, 8)), {"b": 0.5})
    found, exact = rapid.predict([candidate]), rapid.predictor.predict(candidate)
    assert found.low[0] < found.speedup[0] < found.high[0]
    assert np.log(found.high[0] / found.low[0]) > 0.8 * np.log(exact.high / exact.low)


def test_one_and_many_give_the_same(learned):
    rapid, space = learned
    random = np.random.default_rng(3)
    asked = [draw(space, random) for _ in range(20)]
    together = rapid.predict(asked).speedup
    assert np.allclose(together, [rapid.predict([candidate]).speedup[0] for candidate in asked])


def test_more_integers_and_fewer_channels_are_faster(learned):
    rapid, _ = learned
    none = Candidate()
    some = Candidate(dict.fromkeys("bc", LayerChoice(8, 8)))
    every = Candidate(dict.fromkeys(ALL, LayerChoice(8, 8)))
    narrow = Candidate(dict.fromkeys(ALL, LayerChoice(8, 8)), {"b": 0.75})
    speedups = rapid.predict([none, some, every, narrow]).speedup
    assert speedups.tolist() == sorted(speedups)
    assert speedups[0] == pytest.approx(1.0, abs=0.05)


def test_structures_name_what_decides_the_kernels(learned):
    rapid, _ = learned
    found = structures(rapid.graph, [Candidate({"a": LayerChoice(4, 8), "c": LayerChoice(4)}, {"b": 0.5})])
    assert found.integer.tolist() == [[name == "a" for name in rapid.graph.layers]]
    assert found.removed.sum() == 16 and found.forms == [()]
    for wrong in (Candidate({"z": LayerChoice(8, 8)}), Candidate(groups={"z": 0.5})):
        with pytest.raises(InputError, match="z"):
            rapid.predict([wrong])


def test_a_layer_without_an_integer_kernel_and_a_wrong_form_are_told(tmp_path):
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 21]> g (float[1,4,8,8] x) => (float[n,c,h,w] y) {'
        " [k] y = ConvTranspose<group=2, strides=[2,2]>(x, w) }"
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 4, 3, 3), np.float32), "w"))
    onnx.save(model, tmp_path / "model.onnx")
    graph = capture_onnx(tmp_path / "model.onnx")
    with pytest.raises(BuildError, match="no integer kernel"):
        structures(graph, [Candidate({"k": LayerChoice(8, 8)})])
    with pytest.raises(InputError, match="phases"):
        structures(graph, [Candidate({"k": LayerChoice(8, 32, form="phases")})])


def test_a_small_space_is_learned_as_a_whole(parts, ticking):
    """Four kinds of candidates: the sums are what the kernels say, and nobody waits for more."""
    builder, _, feed = parts
    held = {name: {"weight_bits": 8, "activation_bits": 32 if name in "ab" else 8} for name in "abcd"}
    space = make_space(builder.graph, weight_bits=(8,), fixed=held)
    predictor = Predictor(builder, Machine("small"))
    calibrate(predictor, make_space(builder.graph, weight_bits=(8,)), feed, seconds=2)
    rapid = RapidPredictor(predictor)
    rapid.learn(space, seconds=1e6)
    asked = [sample.candidate for sample in predictor.samples.values()]
    exact = [predictor.predict(candidate).speedup for candidate in asked]
    assert rapid.predict(asked).speedup == pytest.approx(exact, rel=0.1)


def test_no_candidates_are_no_predictions(learned):
    assert len(learned[0].predict([]).speedup) == 0
