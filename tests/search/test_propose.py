"""A run's model solved again for a budget."""

import numpy as np
import pytest

import slimfront as sf
from slimfront.search.loop import search
from slimfront.search.propose import PROPOSALS, propose
from slimfront.spaces.errors import InputError
from slimfront.studies.records import RecordFile
from slimfront.studies.run import Run
from slimfront.studies.study import load_study

pytestmark = pytest.mark.usefixtures("quick_timing")


@pytest.fixture
def run(study_folder, tmp_path):
    return search(load_study(study_folder), trials=9, run_dir=tmp_path / "run")


def test_what_it_proposes_is_measured_added_to_the_run_and_better(run):
    most = int(run.reference.value("size_bytes") * 0.6)
    before = run.pick(max_size=most, prefer="psnr")
    chosen, notes = propose(run, max_size=most, prefer="psnr")
    after = Run(run.folder)
    added = after.trials[len(run.trials) :]
    assert 0 < len(added) == len(notes) <= PROPOSALS
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
        if not notes:
            break
    assert not notes
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
