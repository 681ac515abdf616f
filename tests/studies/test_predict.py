"""Predicting candidates of a study: what is said of each, and that nothing is built or needed for it."""

from __future__ import annotations

import pytest

from slimfront.objectives import calibration
from slimfront.objectives.predictor import Predictor
from slimfront.objectives.rapid import RapidPredictor
from slimfront.search.evaluate import evaluate
from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.errors import InputError
from slimfront.studies import predict as module
from slimfront.studies.predict import predict
from slimfront.studies.study import load_study

KEYS = ["candidate", "predicted_speedup", "predicted_speedup_low", "predicted_speedup_high", "predicted_latency_ms"]
learn = RapidPredictor.learn
INTEGER = Candidate(dict.fromkeys(("conv0", "conv1", "conv2"), LayerChoice(8, 8)))


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(module, "CALIBRATION_SECONDS", 0.5)
    monkeypatch.setattr(calibration, "AT_ONCE", 2)


def test_each_candidate_has_a_speedup_with_its_interval_and_a_latency(study_folder):
    study = load_study(study_folder)
    pruned = Candidate(groups={"conv0": 0.49, "conv1": 0.5})
    rows = predict(study, [INTEGER, Candidate(), pruned])
    assert all(list(row) == KEYS for row in rows)
    for row in rows:
        assert 0 < row["predicted_speedup_low"] <= row["predicted_speedup"] <= row["predicted_speedup_high"]
    latencies = [row["predicted_latency_ms"] * row["predicted_speedup"] for row in rows]
    assert latencies == pytest.approx([latencies[0]] * 3), "they share their reference"
    assert [rows[1][key] for key in KEYS[1:4]] == [1.0] * 3
    assert rows[0]["candidate"] == INTEGER.to_json()
    assert rows[2]["candidate"]["groups"]["conv0"] == {"pruning_ratio": 0.5}, "the ratio that its channels come to"


def test_many_candidates_of_new_kernels_are_predicted_as_sums_over_nodes(study_folder, monkeypatch):
    study = load_study(study_folder)
    monkeypatch.setattr(module, "MOST_BY_KERNELS", 2)
    monkeypatch.setattr(module, "LEARNING_SECONDS", 4.0)
    asked = [INTEGER, Candidate(), Candidate(groups={"conv0": 0.5}), Candidate({"conv1": LayerChoice(8, 8)})]
    met = []
    monkeypatch.setattr(Predictor, "knows", lambda _, candidate: candidate in met)
    monkeypatch.setattr(module.RapidPredictor, "learn", lambda self, *_: (learn(self, *_), met.append(Candidate())))
    rows = predict(study, asked)
    assert [row["candidate"] for row in rows] == [candidate.to_json() for candidate in asked]
    assert all(list(row) == KEYS for row in rows)
    assert any("3 candidates were predicted as sums over nodes" in warning for warning in study.warnings)
    assert [rows[1][key] for key in KEYS[1:4]] == [1.0] * 3, "what is known is not summed up"


def test_candidates_that_differ_in_weight_bits_alone_are_not_many(study_folder, monkeypatch):
    monkeypatch.setattr(module, "MOST_BY_KERNELS", 2)
    monkeypatch.setattr(module, "RapidPredictor", lambda *_: pytest.fail("there are two kinds of kernels to look up"))
    asked = [Candidate({"conv0": LayerChoice(bits, 8)}) for bits in (2, 3, 4, 5, 6, 8)]
    assert len({row["predicted_speedup"] for row in predict(load_study(study_folder), asked)}) <= 2


def test_nothing_is_rounded_and_no_run_is_made(study_folder, monkeypatch):
    def never(*_: object) -> None:
        raise AssertionError("a prediction rounds nothing")

    monkeypatch.setattr(Builder, "static", property(never))
    monkeypatch.setattr(Builder, "static_of", never)
    before = sorted(path.name for path in study_folder.iterdir())
    assert predict(load_study(study_folder), [Candidate({"conv0": LayerChoice(4, 8)}, repair="sequential")])
    assert sorted(path.name for path in study_folder.iterdir()) == before


def test_what_the_predictions_were_off_by_is_told_where_it_is_known(study_folder, monkeypatch):
    study = load_study(study_folder)
    monkeypatch.setattr(Predictor, "error", 0.043)
    predict(study, [INTEGER])
    assert any("off by at most 4.3%" in warning for warning in study.warnings)


def test_a_calibrated_predictor_is_not_calibrated_again(study_folder, monkeypatch):
    monkeypatch.setattr(Predictor, "error", 0.043)
    monkeypatch.setattr(module, "calibrate", lambda *_: pytest.fail("it knows the machine"))
    assert predict(load_study(study_folder), [INTEGER])


def test_a_wrong_candidate_is_told_before_anything_is_measured(study_folder, monkeypatch):
    monkeypatch.setattr(module, "calibrate", lambda *_: pytest.fail("the candidate is wrong"))
    with pytest.raises(InputError, match="conv9"):
        predict(load_study(study_folder), [Candidate({"conv9": LayerChoice(8, 8)})])


def test_candidates_that_are_measured_are_not_predicted_first(study_folder):
    row = evaluate(load_study(study_folder), [INTEGER])[0]
    assert row["predicted_speedup"] is None
