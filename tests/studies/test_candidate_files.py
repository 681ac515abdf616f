"""Candidates as people give them: files of several kinds, one value for all layers."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.errors import InputError
from slimfront.studies.candidates import build, build_file, given_candidates, read_candidate
from slimfront.studies.study import load_study

CHOSEN = Candidate({"conv1": LayerChoice(4, 32)})


@pytest.mark.parametrize("document", [CHOSEN.to_json(), {"trial": 3, "candidate": CHOSEN.to_json(), "psnr_db": 30.0}])
def test_a_candidate_is_read_alone_or_from_a_measured_one(document: dict, tmp_path: Path):
    (tmp_path / "candidate.json").write_text(json.dumps(document))
    assert read_candidate(tmp_path / "candidate.json") == CHOSEN


BROKEN = [
    "",
    "{",
    "[]",
    "[" * 100_000,
    '{"layers": {"a": {}, "a": {}}}',
    '{"layer": {}}',
    '{"layers": {"a": {"weight_bits": 9}}}',
]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_what_is_no_candidate_names_the_file(text: str, tmp_path: Path):
    (tmp_path / "candidate.json").write_text(text)
    with pytest.raises(InputError, match=r"candidate\.json"):
        read_candidate(tmp_path / "candidate.json")


def test_one_value_for_all_layers(study_folder: Path):
    [candidate], notes = given_candidates(load_study(study_folder), [], "weight_bits=4,activation_bits=8")
    assert candidate == Candidate({f"conv{i}": LayerChoice(4, 8) for i in range(3)})
    assert notes == []


def test_a_built_model_is_a_valid_onnx_file_and_the_same_bytes(study_folder: Path, tmp_path: Path):
    study = load_study(study_folder)
    built = build_file(study, CHOSEN, tmp_path / "m.onnx")
    assert build(study, CHOSEN) == (tmp_path / "m.onnx").read_bytes()
    assert built["size_bytes"] == (tmp_path / "m.onnx").stat().st_size
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)


def test_an_unknown_layer_is_named_and_nothing_is_written(study_folder: Path, tmp_path: Path):
    wrong = Candidate({"conv11": LayerChoice(4, 32)})
    with pytest.raises(InputError, match=r"conv11.*conv1"):
        build_file(load_study(study_folder), wrong, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_an_unknown_layer_is_named_before_anything_is_prepared(study_folder: Path, tmp_path: Path, monkeypatch):
    def fail(*_: object) -> None:
        raise AssertionError("the preparation has begun")

    monkeypatch.setattr("slimfront.spaces.build.Builder.prepare", fail)
    study, wrong = load_study(study_folder), Candidate({"conv11": LayerChoice(4, 32)})
    (tmp_path / "wrong.json").write_text(json.dumps(wrong.to_json()))
    for call in (
        lambda: given_candidates(study, [tmp_path / "wrong.json"], None),
        lambda: build(study, wrong),
        lambda: build_file(study, wrong, tmp_path / "m.onnx"),
    ):
        with pytest.raises(InputError, match=r"unknown layer 'conv11' \(did you mean 'conv1'\?\)"):
            call()


def test_a_folder_that_is_not_there_is_named(study_folder: Path, tmp_path: Path):
    with pytest.raises(InputError, match="no folder"):
        build_file(load_study(study_folder), CHOSEN, tmp_path / "none" / "m.onnx")
