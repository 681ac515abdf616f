"""What layers cost is kept in the run by the search, and read back by whoever shows it."""

from __future__ import annotations

from pathlib import Path

from slimfront.search.loop import search
from slimfront.spaces.sensitivity import Sensitivity, sensitivity
from slimfront.studies.layer_costs import FILE, keep_sensitivity, kept_sensitivity
from slimfront.studies.study import load_study


def test_bases_are_kept_beside_one_another(tmp_path: Path):
    one, two = (Sensitivity({"a": {4: error}}, {"a": {0.5: 2.0}}, {"g": {0.25: 3.0}}) for error in (1.0, 5.0))
    keep_sensitivity(tmp_path, "reference", one)
    keep_sensitivity(tmp_path, "b1", two)
    assert kept_sensitivity(tmp_path, "reference") == one and kept_sensitivity(tmp_path, "b1") == two
    assert kept_sensitivity(tmp_path, "other") is None
    for broken in ("{", "[]", '{"reference": {"bits": 3}}'):
        (tmp_path / FILE).write_text(broken, encoding="utf-8")
        assert kept_sensitivity(tmp_path, "reference") is None


def test_a_search_keeps_what_its_sampler_has_asked(study_folder: Path, tmp_path: Path):
    search(study_folder, 12, tmp_path / "run", sampler="frontier")
    study = load_study(study_folder)
    study.prepare_spaces()
    assert kept_sensitivity(tmp_path / "run", "reference") == sensitivity(study.builder, study.space)
