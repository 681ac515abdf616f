"""Timing several trials of a run at once, for the first time and again, with real sessions."""

from dataclasses import replace

import pytest

from slimfront.objectives.protocol import Reading
from slimfront.objectives.quality import Quality
from slimfront.objectives.timing import Timing
from slimfront.search.evaluate import Evaluator
from slimfront.search.loop import search
from slimfront.spaces.errors import BuildError
from slimfront.studies.study import load_study


class Watched(Timing):
    """A timing that notes what it is given."""

    def measure_together(self, subjects):
        vars(self).setdefault("seen", []).append(list(subjects))
        return super().measure_together(subjects)


def watched():
    return Watched(least_rounds=3, most_rounds=3, slot_seconds=0.0)


class Alone:
    """A timing that knows one model at a time."""

    name = "timing"

    def measure(self, subject):
        return {"speedup": Reading(2.0, "x", 1.9, 2.1), "reference_ms": Reading(10.0, "ms")}


@pytest.fixture
def run(study_folder, tmp_path):
    return search(load_study(study_folder), trials=4, run_dir=tmp_path / "run")


@pytest.fixture
def make_evaluator(run):
    def make(timing):
        study = run.load()
        study.prepare_spaces()
        return Evaluator(study, run.folder / "models", (Quality(), timing), study.predictor)

    return make


def test_trials_timed_for_the_first_time_are_told_with_their_predictions(run, make_evaluator):
    timing = watched()
    trials = run.trials[1:]
    found = make_evaluator(timing).time_together(trials)
    assert [trial.number for trial, _ in found] == [trial.number for trial in trials]
    assert all((result.stage, result.state) == ("timing", "done") for _, result in found)
    assert all(result.sha256 == trial.sha256 for trial, result in found)
    (seen,) = timing.seen
    assert all(subject.predicted.low <= subject.predicted.value <= subject.predicted.high for subject in seen)
    assert len({id(subject.reference) for subject in seen}) == 1


def test_trials_timed_again_are_told_without(run, make_evaluator):
    timing = watched()
    found = make_evaluator(timing).time_again(run.trials[1:])
    assert len(found) == 3
    assert [subject.predicted for subject in timing.seen[0]] == [None] * 3


def test_a_trial_whose_file_would_be_another_one_is_not_timed_again(run, make_evaluator):
    timing = watched()
    first, second, third = run.trials[1:]
    found = make_evaluator(timing).time_again([first, replace(second, sha256="other"), third])
    assert [trial.number for trial, _ in found] == [first.number, third.number]
    assert make_evaluator(timing).time_again([replace(second, sha256="other")]) == []


def test_a_trial_whose_file_is_another_one_is_evaluated_whole_when_it_is_timed_first(run, make_evaluator):
    first, second = run.trials[1:3]
    same = replace(first, stages={stage: facts for stage, facts in first.stages.items() if stage != "timing"})
    run.model_path(second).unlink(missing_ok=True)
    found = make_evaluator(watched()).time_together([same, replace(second, sha256="other")])
    stages = [(trial.number, result.stage) for trial, result in found]
    assert stages == [(1, "timing"), (2, "build"), (2, "quality"), (2, "timing")]


def test_one_that_cannot_be_built_keeps_no_other_from_being_timed_again(run, make_evaluator, monkeypatch):
    """The file of the second is gone, and what it is built from as well."""
    first, second, third = run.trials[1:]
    evaluator = make_evaluator(watched())
    assert len(evaluator.time_again([first, third])) == 2, "their files are there, or made again"
    evaluator.path(second.candidate).unlink(missing_ok=True)
    monkeypatch.setattr(evaluator.study.builder, "build", lambda _: (_ for _ in ()).throw(BuildError("gone")))
    assert [trial.number for trial, _ in evaluator.time_again([second, first, third])] == [1, 3]
    assert evaluator.time_again([second]) == []


def test_one_that_fails_while_it_is_timed_keeps_no_other_from_it(run, make_evaluator):
    class Failing(Watched):
        def measure_together(self, subjects):
            if any(run.trials[2].candidate.key in subject.model.path.name for subject in subjects):
                raise BuildError("it fails now")
            return super().measure_together(subjects)

    evaluator = make_evaluator(Failing(least_rounds=3, most_rounds=3, slot_seconds=0.0))
    assert [trial.number for trial, _ in evaluator.time_again(run.trials[1:])] == [1, 3]


def test_a_timing_that_knows_one_model_at_a_time_is_asked_for_each(run, make_evaluator):
    found = make_evaluator(Alone()).time_again(run.trials[1:])
    assert [result.readings["speedup"].value for _, result in found] == [2.0, 2.0, 2.0]
