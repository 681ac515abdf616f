"""What a few images tell of all, and searches that stop judging the hopeless after them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from slimfront.objectives.protocol import OpenModel, Reading, Subject
from slimfront.objectives.quality import Quality
from slimfront.search import glance, preparation
from slimfront.search.doubt import Bar, hopeless
from slimfront.search.glance import SURE, Line, Look
from slimfront.search.loop import search
from slimfront.studies.records import read_records
from slimfront.studies.run import Run
from slimfront.studies.study import load_study

BAR = Bar([7], np.array([[1000.0, 1.0, 0.25]]), 30.0, True)  # 1000 bytes, 1 dB below, 4 times as fast


def line(error: float = 0.1) -> Line:
    return Line(1.0, (25.0, 25.0), 100.0, error, 20)


def readings(size: float = 1100.0, speedup: float = 3.0, glanced: float = 28.0) -> dict[str, Reading]:
    return {
        "size_bytes": Reading(size, "bytes"),
        "predicted_speedup": Reading(speedup, "x", 0.9 * speedup, 1.1 * speedup),
        "glance_psnr_db": Reading(glanced, "dB", how="mean of the first 2 of 8 images"),
        "glance_fidelity_db": Reading(glanced, "dB", how="mean of the first 2 of 8 images"),
    }


def look(error: float = 0.1) -> Look:
    return Look(BAR, {"psnr_db": line(error), "fidelity_db": line(error)})


@given(st.integers(0, 1000), st.floats(-3, 3), st.floats(10.0, 60.0))
def test_a_line_says_what_linear_regression_says(seed, slope, asked):
    random = np.random.default_rng(seed)
    seen = random.uniform(15, 45, 20)
    whole = slope * seen + 3 + random.normal(0, 0.5, 20)
    value, more = Line.through(list(zip(seen, whole, strict=True))).at(asked)
    fit = stats.linregress(seen, whole)
    assert value == pytest.approx(fit.slope * asked + fit.intercept)
    design = np.stack([np.ones(20), seen], axis=1)
    error = ((whole - design @ [fit.intercept, fit.slope]) ** 2).sum() / 18
    row = np.array([1.0, asked])
    variance = error * (1.0 + row @ np.linalg.inv(design.T @ design) @ row)
    assert more == pytest.approx(stats.t.ppf(SURE, 18) * variance**0.5)


def test_nearly_nobody_is_better_than_a_line_allows():
    random = np.random.default_rng(0)
    seen, noise = random.uniform(15, 45, 30), random.normal(0, 0.3, 30)
    drawn = Line.through(list(zip(seen, seen - 1 + noise, strict=True)))
    better = [new - 1 + random.normal(0, 0.3) > sum(drawn.at(new)) for new in random.uniform(15, 45, 5000)]
    assert np.mean(better) < 4 * (1 - SURE)


def test_pairs_that_are_all_alike_are_a_line_with_the_least_error():
    value, more = Line.through([(30.0, 29.0)] * 12).at(30.0)
    assert value == pytest.approx(29.0)
    assert 0 < more < 0.2


def test_who_is_dominated_even_at_best_is_hopeless_and_its_quality_estimated():
    estimated, reason = look().hopeless(readings())
    assert "trial 7" in reason
    assert estimated["psnr_db"].low < estimated["psnr_db"].value == 28.0 < estimated["psnr_db"].high < 29.0
    assert estimated["psnr_db"].how == "estimated from the first 2 of 8 images"


@pytest.mark.parametrize(
    "found",
    [
        readings(size=900.0),
        readings(speedup=3.9),
        readings(glanced=28.8),
        {name: reading for name, reading in readings().items() if name != "glance_psnr_db"},
        {name: reading for name, reading in readings().items() if name != "predicted_speedup"},
    ],
    ids=["smaller", "perhaps faster", "perhaps better", "not glanced at", "not predicted"],
)
def test_who_may_reach_the_front_is_judged(found):
    assert look().hopeless(found) is None


def test_the_less_the_first_images_tell_the_more_are_judged():
    assert look(error=0.5).hopeless(readings()) is None


@pytest.fixture
def study(study_folder, pictures):
    np.savez(study_folder / "evaluation.npz", input=pictures(8, 2))
    return lambda: load_study(study_folder)


def test_a_glance_tells_of_the_first_images_and_they_are_inferred_once(study, tiny_model):
    model = OpenModel(tiny_model, study().evaluation)
    found = Quality().glance(Subject(model, model))
    assert found["glance_psnr_db"].how == "mean of the first 2 of 8 images"
    together = OpenModel(tiny_model, study().evaluation).outputs
    assert np.array_equal(model.outputs, together)
    assert np.array_equal(model.glanced, together[:2])


@pytest.fixture
def search_it(study, tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "CALIBRATION", 0.02)

    def searched(name, trials=60):
        return search(study(), trials=trials, run_dir=tmp_path / name, sampler="random")

    return searched


@pytest.fixture
def speeds_decide_nothing(monkeypatch):
    """The front is taken for a thousand times as fast as it is: speeds change from run to run."""
    measured = Bar.of

    def fast(run: Run) -> Bar | None:
        bar = measured(run)
        return bar and replace(bar, rows=bar.rows * [1.0, 1.0, 1e-3])

    monkeypatch.setattr(Bar, "of", fast)


@pytest.mark.usefixtures("speeds_decide_nothing")
def test_who_is_hopeless_by_a_glance_is_told_so_and_never_on_the_front(search_it, study, tmp_path):
    run = search_it("run")
    stopped = [trial for trial in run.trials if trial.stages["quality"]["state"] == "predicted"]
    assert stopped, "a random search of this space finds much that is dominated"
    assert all(trial.predicted and "not judged on all images" in trial.reason for trial in stopped)
    assert not {trial.number for trial in stopped} & {trial.number for trial in run.front_trials()}
    records = [
        record for record in read_records(run.folder / "records.jsonl") if record.stage not in ("claim", "timing")
    ]
    assert len({(record.trial, record.stage) for record in records}) == len(records), "nothing is looked at twice"
    loaded = run.load()
    loaded.prepare_spaces()
    reference = OpenModel(run.model_path(run.reference), loaded.evaluation)
    for trial in stopped[:10]:
        path = tmp_path / "again.onnx"
        loaded.builder.build(trial.candidate).save(path)
        judged = Quality().measure(Subject(OpenModel(path, loaded.evaluation), reference))
        assert judged["psnr_db"].value < trial.readings["psnr_db"].high
    row = next(row for row in run.to_json(all=True)["trials"] if row["trial"] == stopped[0].number)
    assert row["state"] == "predicted"
    assert row["psnr_db"] is row["worst_psnr_db"] is row["ssim"] is row["speedup"] is None, "it was not measured"


@pytest.mark.usefixtures("nobody_in_doubt")
def test_who_turns_out_not_to_be_hopeless_is_judged_on_all_images_later(search_it, monkeypatch):
    """A look that stops everybody: what may be on the front is judged and timed all the same."""

    def stop(self, found):
        estimated = {
            name: Reading(found[seen].value, "dB", 0.0, 100.0, "a guess") for name, seen in glance.READ.items()
        }
        return estimated, "not judged on all images: a guess"

    monkeypatch.setattr(Look, "hopeless", stop)
    run = search_it("run", trials=30)
    states = [(trial.stages["quality"]["state"], trial.state) for trial in run.trials]
    assert ("done", "measured") in states[15:]
    for trial in run.trials:
        if trial.stages["quality"]["state"] == "predicted":
            assert hopeless(run, trial.readings), "even at a hundred decibels"
        elif trial.predicted:
            assert "all images" not in trial.reason
