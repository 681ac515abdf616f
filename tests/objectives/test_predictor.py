"""The predictor: what it takes for the same, what it learns from whole timings, and what it keeps."""

from __future__ import annotations

import numpy as np
import pytest

from slimfront.objectives.calibration import calibrate, draw
from slimfront.objectives.device.onnxruntime_engine import ProfiledOnnx
from slimfront.objectives.kernel_profile import FIRST_RUNS, Rounds, onnx_profile
from slimfront.objectives.predictor import LEAST_JUDGED, LEAST_LEARNED, LEAST_WHOLE, Outcome, Prediction, Predictor
from slimfront.objectives.protocol import Reading
from slimfront.objectives.target import OnnxRuntime
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.errors import BuildError, InputError

from .machines import Machine, speedup

pytestmark = pytest.mark.usefixtures("ticking")

ALL = "abcde"


def candidates(space, count: int, seed: int) -> list[Candidate]:
    random = np.random.default_rng(seed)
    return [draw(space, random) for _ in range(count)]


@pytest.mark.parametrize(
    "candidate",
    [Candidate(), Candidate(dict.fromkeys(ALL, LayerChoice(16))), Candidate(dict.fromkeys(ALL, LayerChoice(3)))],
)
def test_what_runs_the_kernels_of_the_reference_is_exactly_as_fast(candidate, parts):
    """So do weights that are stored in fewer bits and unpacked while the file is opened."""
    builder, space, feed = parts
    predictor = Predictor(builder, Machine("same"))
    for rounds in (0, 2):
        if rounds:
            calibrate(predictor, space, feed, rounds)
        found = predictor.predict(candidate)
        assert (found.speedup, found.low, found.high, found.spread) == (1.0, 1.0, 1.0, 0.0)
    before = len(predictor.outcomes)
    predictor.learn(candidate, Reading(1.01, "x", 1.01, 1.01), found)
    assert len(predictor.outcomes) == before


def test_bits_sparsity_and_repair_do_not_change_a_prediction_and_integers_and_ratios_do(parts):
    builder, _, _ = parts
    predictor = Predictor(builder, Machine("structure"))
    plain = predictor.predict(Candidate(dict.fromkeys(ALL, LayerChoice(4, 8))))
    for other in (LayerChoice(7, 8), LayerChoice(4, 8, 0.5)):
        assert predictor.predict(Candidate(dict.fromkeys(ALL, other), repair="sequential")) == plain
    assert predictor.predict(Candidate(dict.fromkeys("abcd", LayerChoice(4, 8)))) != plain
    assert predictor.predict(Candidate(dict.fromkeys(ALL, LayerChoice(4, 8)), {"b": 0.5})) != plain


def test_what_a_timing_elsewhere_teaches_needs_no_look_at_its_kernels(parts):
    """As a worker's timing teaches the predictor of the search, and then the next worker's."""
    builder, _, _ = parts
    there, here = Predictor(builder, Machine("there and here")), Predictor(builder, Machine("there and here"))
    candidate = Candidate(dict.fromkeys(ALL, LayerChoice(4, 8)), {"b": 0.5})
    lesson = there.lesson(candidate, Reading(2.0, "x", 1.99, 2.01), there.predict(candidate))
    assert not here.knows(candidate)
    for _ in range(LEAST_LEARNED):
        here.take(lesson)
    assert not here.knows(candidate)
    assert np.isfinite(here.predict(Candidate(dict.fromkeys(ALL, LayerChoice(4, 8)))).speedup)
    before = abs(np.log(there.predict(candidate).speedup / 2.0))
    there.replace(here.times, here.outcomes)
    assert abs(np.log(there.predict(candidate).speedup / 2.0)) < before


def test_a_systematic_effect_on_whole_models_is_learned(parts, tmp_path):
    """Integer products are 10 % slower when run whole than the profile has them."""
    builder, space, feed = parts
    predictor = Predictor(builder, Machine("whole"))
    calibrate(predictor, space, feed, seconds=8)
    asked = candidates(space, 12, seed=5)

    def errors() -> list[float]:
        true = [speedup(predictor, candidate, tmp_path, integer=1.1) for candidate in asked]
        return [np.log(predictor.predict(c).speedup / t) for c, t in zip(asked, true, strict=True)]

    before = errors()
    for candidate in candidates(space, 24, seed=6):
        true, prediction = speedup(predictor, candidate, tmp_path, integer=1.1), predictor.predict(candidate)
        predictor.learn(candidate, Reading(true, "x", true / 1.01, true * 1.01), prediction, whole=True)
    after = errors()
    integer = [i for i, candidate in enumerate(asked) if sum(c.integer for c in candidate.layers.values()) > 2]
    assert np.mean([before[i] for i in integer]) > 0.02, "too fast before"
    assert abs(np.mean([after[i] for i in integer])) < 0.5 * np.mean([before[i] for i in integer])
    assert np.sqrt(np.mean(np.square(after))) < np.sqrt(np.mean(np.square(before)))


def test_intervals_reach_as_far_as_earlier_predictions_were_off(parts):
    builder, _, _ = parts
    predictor = Predictor(builder, Machine("intervals"))
    candidate = Candidate({"a": LayerChoice(8, 8)})

    def half_width(missed: float) -> float:
        predictor.outcomes[:] = []
        stated = Prediction(1.0, 1.0, 1.0, 0.02, 1.0)
        for _ in range(LEAST_JUDGED):
            value = float(np.exp(missed))
            predictor.learn(candidate, Reading(value, "x", value, value), stated, whole=False)
        found = predictor.predict(candidate)
        return float(np.log(found.high / found.speedup)) / found.spread

    normal = 1.645 * 1.4826  # half of a normal distribution's middle 90 %, over the median of the sizes
    assert half_width(0.02) == pytest.approx(normal)
    assert half_width(0.08) == pytest.approx(4.0 * normal)
    assert half_width(0.0001) == pytest.approx(0.8 * 1.645), "profiles may all be wrong alike"


def test_intervals_come_from_whole_timings_where_there_are_enough(parts):
    builder, _, _ = parts
    predictor = Predictor(builder, Machine("whole"))
    stated = Prediction(1.0, 1.0, 1.0, 0.02, 1.0)
    for number in range(LEAST_WHOLE):
        value = float(np.exp(0.01 * number))
        predictor.learn(Candidate({"a": LayerChoice(8, 8)}), Reading(value, "x", value, value), stated)
    found = predictor.predict(Candidate({"b": LayerChoice(8, 8)}))
    scores = sorted(0.01 * number / 0.02 for number in range(LEAST_WHOLE))
    rank = int(np.ceil((LEAST_WHOLE + 1) * 0.9))
    assert np.log(found.high / found.speedup) / found.spread == pytest.approx(scores[rank - 1])


def test_a_score_is_in_standard_deviations_of_the_prediction_and_of_the_timing():
    assert Outcome({}, 0.0, 0.03, -0.1, 0.04).score == pytest.approx(2.0)
    assert Outcome({}, 0.0, 0.03).score is None


def test_the_error_is_told_when_enough_predictions_were_judged(parts):
    builder, _, _ = parts
    predictor = Predictor(builder, Machine("error"))
    outcomes = [Outcome({}, 0.0, 0.01, 0.01 * n, 0.02, False) for n in range(1, LEAST_JUDGED + 1)]
    predictor.outcomes[:] = [Outcome({}, 0.0, 0.01), *outcomes[:-1]]
    assert predictor.error is None and not predictor.calibrated
    predictor.outcomes[:] = outcomes
    assert predictor.error == pytest.approx(np.quantile(np.arange(1, LEAST_JUDGED + 1) / 100, 0.9))


def test_what_was_learned_is_there_again_for_the_same_fingerprint_only(parts):
    builder, space, feed = parts
    predictor = Predictor(builder, Machine("kept"))
    calibrate(predictor, space, feed, seconds=4)
    for candidate in candidates(space, LEAST_LEARNED, seed=1):
        predictor.learn(candidate, Reading(1.5, "x", 1.45, 1.55))
    predictor.save()
    again, elsewhere = (Predictor(builder, Machine(name)) for name in ("kept", "another machine"))
    assert again.outcomes == predictor.outcomes and again.times.kernels == predictor.times.kernels
    assert not elsewhere.outcomes and not elsewhere.times.kernels and not elsewhere.calibrated
    for candidate in candidates(space, 4, seed=2):
        first, second = predictor.predict(candidate), again.predict(candidate)
        assert second.speedup == pytest.approx(first.speedup, rel=0.05), "but for how its processes were tuned"
    assert all(isinstance(outcome.whole, bool) for outcome in again.outcomes)


def test_a_wrong_candidate_is_an_error_of_the_input(parts):
    builder, _, _ = parts
    with pytest.raises(InputError, match="unknown layer 'z'"):
        Predictor(builder, Machine("wrong")).predict(Candidate({"z": LayerChoice(8, 8)}))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_profile_has_the_kernels_of_the_graph_and_leaves_the_first_runs_out(threads, parts, tmp_path):
    builder, _, feed = parts
    path = tmp_path / "model.onnx"
    builder.build(Candidate({"a": LayerChoice(8, 8)}, {"b": 0.5})).save(path)
    [profile] = OnnxRuntime("here", threads).profiles([path], feed, Rounds(3, 3))
    expected = OnnxRuntime("here", threads).kernels(path, {"x": (1, 3, 16, 16)})
    assert [kernel.key for kernel in profile.kernels] == [kernel.key for kernel in expected]
    assert profile.times_ms.shape == (3, len(expected)) and profile.whole_ms.shape == (3,)
    assert profile.kernel_ms.shape == (len(expected),)
    assert (profile.times_ms.sum(axis=1) <= profile.whole_ms + 1e-6).all(), "milliseconds both"


def test_one_run_alone_is_all_there_is(parts, tmp_path):
    builder, _, feed = parts
    builder.build(Candidate()).save(tmp_path / "model.onnx")
    profiled = ProfiledOnnx(tmp_path / "model.onnx", feed)
    profiled.run()
    assert FIRST_RUNS == 1 and len(profiled.close().whole_ms) == 1


def test_models_are_profiled_in_turn(parts, tmp_path):
    builder, _, feed = parts
    paths = [tmp_path / name for name in ("a.onnx", "b.onnx")]
    for path, candidate in zip(paths, (Candidate(), Candidate({"a": LayerChoice(8, 8)})), strict=True):
        builder.build(candidate).save(path)
    profiles = OnnxRuntime("here").profiles(paths, feed, Rounds(3, 3))
    assert [len(profile.whole_ms) for profile in profiles] == [4 - FIRST_RUNS] * 2
    assert len(profiles[1].kernels) > len(profiles[0].kernels)


def test_a_profile_of_other_nodes_is_an_error(parts, tmp_path):
    builder, _, feed = parts
    builder.build(Candidate()).save(tmp_path / "model.onnx")
    kernels = OnnxRuntime().kernels(tmp_path / "model.onnx", {name: array.shape for name, array in feed.items()})
    profiled = ProfiledOnnx(tmp_path / "model.onnx", feed)
    profiled.run()
    raw = profiled.close()
    assert onnx_profile(raw, kernels).kernels == kernels
    for changed in (kernels[1:], kernels[::-1]):
        with pytest.raises(BuildError, match="does not name the kernels"):
            onnx_profile(raw, changed)
