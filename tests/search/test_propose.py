"""A run's model solved again for a budget."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import slimfront as sf
from slimfront.search.keeping import LIKELY, NOTHING_ASKED, Keeping
from slimfront.search.loop import search
from slimfront.search.propose import PROPOSALS, _aim, propose
from slimfront.spaces.errors import InputError
from slimfront.studies import study as study_module
from slimfront.studies.pick import PREFERENCES
from slimfront.studies.records import RecordFile
from slimfront.studies.run import Run
from slimfront.studies.study import load_study


@pytest.fixture
def run(study_folder, tmp_path, monkeypatch):
    """A search of nine trials, in a space that is as large on every processor."""
    monkeypatch.setattr(study_module, "kernel_step", lambda *_: 4)
    return search(load_study(study_folder), trials=9, run_dir=tmp_path / "run")


def test_what_it_proposes_is_measured_added_to_the_run_and_better(run):
    most = int(run.trials[1].value("size_bytes")) - 1  # too little for 8 bits everywhere
    before = run.pick(max_size=most, prefer="psnr")
    chosen, notes = propose(run, max_size=most, prefer="psnr")
    after = Run(run.folder)
    added = after.trials[len(run.trials) :]
    assert 0 < len(added) <= PROPOSALS
    assert all(f"proposed trial {trial.number}" in note for trial, note in zip(added, notes, strict=False))
    assert [trial.candidate for trial in after.trials[: len(run.trials)]] == [t.candidate for t in run.trials]
    assert all("expected_size_bytes" in trial.readings for trial in added)
    assert chosen.value("size_bytes") <= most
    assert chosen.value("psnr_db") >= before.value("psnr_db")
    assert after.pick(max_size=most, prefer="psnr").number == chosen.number
    assert after.model_path(chosen).stat().st_size == chosen.value("size_bytes")


def test_nothing_is_added_where_what_is_measured_is_best(run):
    for _ in range(8):
        count = len(Run(run.folder).trials)
        chosen, notes = propose(Run(run.folder), min_psnr=20.0, prefer="size")
        if not any("proposed" in note for note in notes):
            break
    assert notes == ["the run's model finds nothing new that is in reach and better than what is measured"]
    assert len(Run(run.folder).trials) == count
    assert Run(run.folder).pick(min_psnr=20.0, prefer="size").number == chosen.number


def test_a_budget_out_of_reach_is_told_without_trying(run):
    with pytest.raises(InputError, match="no measured candidate keeps size at most 10 bytes"):
        propose(run, max_size=10)
    assert len(Run(run.folder).trials) == 9


def test_wrong_wishes_and_a_run_in_use_are_told(run):
    with pytest.raises(InputError, match="prefer must be one of"):
        propose(run, prefer="beauty")
    with pytest.raises(InputError, match="max_size must be a size"):
        propose(run, max_size="large")
    with RecordFile(run.folder / "records.jsonl"), pytest.raises(InputError, match=r"in use|another"):
        propose(run, max_size="1MB")


def test_the_search_goes_on_after_it(run, study_folder):
    propose(run, max_drop=5.0, prefer="size")
    count = len(Run(run.folder).trials)
    again = search(load_study(study_folder), trials=count + 2, run_dir=run.folder)
    assert len(again.trials) == count + 2
    assert len({trial.candidate for trial in again.trials}) == count + 2
    assert np.isfinite(again.hypervolume())
    assert sf.propose is propose


def test_a_run_of_another_environment_is_told_before_anything_is_done(run):
    digest = run.load().environment.digest
    records = run.folder / "records.jsonl"
    records.write_text(records.read_text().replace(digest, "0" * len(digest)))
    with pytest.raises(InputError, match="timed in another environment"):
        propose(Run(run.folder), prefer="size")
    assert len(Run(run.folder).trials) == 9


@settings(max_examples=50)
@given(
    arrays(float, (6, 3), elements=st.floats(0.0, 1.0)),
    arrays(float, (3,), elements=st.floats(0.0, 1.0)),
    st.sampled_from(PREFERENCES),
)
def test_the_search_on_the_model_ranks_what_keeps_the_limits_first(points, most, prefer):
    learned = Keeping(points, [(excess,) for excess in points[:, 2] - 0.5])
    for centre, keeping in ((points[:1], NOTHING_ASKED), (points[:3], NOTHING_ASKED), (points, learned)):
        scores = _aim(prefer, most, centre, keeping)(points)
        keeps = (points <= most).all(axis=1) & (keeping.chance(points) >= LIKELY)
        if keeps.any() and not keeps.all():
            assert scores[keeps].max() < scores[~keeps].min()
