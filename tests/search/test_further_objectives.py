"""A search with further objectives on a small generator: its front, its limits, how it goes on, and what is shipped."""

import json
import re
import shutil

import numpy as np
import pytest

from slimfront.objectives.protocol import Reading
from slimfront.objectives.quality import psnr_db
from slimfront.search.coordinator import _is_news
from slimfront.search.doubt import Bar, hopeless
from slimfront.search.evaluate import evaluate
from slimfront.search.loop import search
from slimfront.search.propose import propose
from slimfront.search.work import Kind
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.errors import BuildError, InputError
from slimfront.spaces.session import infer, open_session
from slimfront.studies.front import nondominated
from slimfront.studies.report import report
from slimfront.studies.run import Run, open_run
from slimfront.studies.show import candidates_table, further_readings
from slimfront.studies.study import Study, load_study
from slimfront.studies.trial import stages_with
from slimfront.studies.verify import verify

from ..verified import failed

COUNT = 20
MEASURES = (
    "import numpy as np\n\ndef roughness(subject):\n    return float(np.abs(np.diff(subject.model.outputs)).mean())\n"
)
OBJECTIVES = """
[objectives.diversity]
neighbours = 2
front = true
min = 0.1
[objectives.texture]
value = "gradient_similarity"
[objectives.worst_group]
[objectives.roughness]
function = "measures.py:roughness"
maximise = false
front = true
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_study, pictures):
    folder = tmp_path_factory.mktemp("further") / "study"
    write_study(folder)
    (folder / "measures.py").write_text(MEASURES)
    group = np.array(["ink", "oil"])[np.arange(COUNT) % 2]
    np.savez(folder / "evaluation.npz", input=pictures(COUNT, 2), group=group)
    (folder / "study.toml").write_text((folder / "study.toml").read_text() + OBJECTIVES)
    return folder


@pytest.fixture(scope="module")
def found(folder, tmp_path_factory):
    """A run in which further objectives are on the front; no test writes into it."""
    return search(load_study(folder), trials=12, run_dir=tmp_path_factory.mktemp("found") / "run")


def test_what_is_recorded_is_what_the_file_gives(found, folder):
    study = load_study(folder)
    trial = found.front_trials()[0]
    outputs, reference = (
        np.clip(infer(open_session(found.model_path(one)), study.evaluation.inputs, 1), 0.0, 1.0)
        for one in (trial, found.reference)
    )
    row = trial.row()
    assert row["roughness"] == pytest.approx(float(np.abs(np.diff(outputs)).mean()), rel=1e-5)
    psnr = psnr_db(outputs, reference, 0.0, 1.0)
    assert row["worst_group_db"] == pytest.approx(min(psnr[0::2].mean(), psnr[1::2].mean()), abs=1e-3)
    assert set(trial.stages["worst_group"]["readings"]) == {"worst_group_db", "group_ink_db", "group_oil_db"}
    assert found.reference.row() | {"coverage": 1.0, "recall": 1.0, "gradient_similarity": 1.0} == found.reference.row()


def test_the_front_is_that_of_all_five_objectives(found):
    measured = [trial for trial in found.trials if trial.measured]
    points = np.array([[*found.point(trial), -trial.value("coverage"), trial.value("roughness")] for trial in measured])
    certain = {trial.number for trial, kept in zip(measured, nondominated(points), strict=True) if kept}
    front = {trial.number for trial in found.front_trials()}
    assert certain <= front
    smoothest = min(measured, key=lambda trial: (trial.value("roughness"), trial.value("size_bytes"), trial.latency_ms))
    assert smoothest.number in front
    assert found.hypervolume() == Run(found.folder).hypervolume()
    assert found.corners.shape[1] == 3


def test_an_objective_that_wants_what_others_do_not_changes_the_front(tiny_model, pictures, tmp_path):
    bulk = {"function": lambda subject: subject.model.path.stat().st_size, "front": True}
    study = Study(tiny_model, pictures(4, 1), pictures(3, 2), objectives={"bulk": bulk}, trials=9, sampler="random")
    run = search(study, run_dir=tmp_path / "run")
    sizes = [trial.value("size_bytes") for trial in run.trials]
    assert all(trial.measured for trial in run.trials if sizes.count(trial.value("size_bytes")) == 1)
    assert {trial.value("size_bytes") for trial in run.front_trials()} == set(sizes)


def test_nobody_is_given_up_for_a_trial_that_is_worse_in_a_further_objective(found):
    bar, front = Bar.of(found), found.front_trials()
    least = {name: {t.number: t.value(name) for t in front} for name in ("coverage", "roughness")}
    readings = {
        "size_bytes": Reading(1e9, "bytes"),
        "predicted_speedup": Reading(1e-6, "x"),
        "psnr_db": Reading(0.0, "dB"),
        "fidelity_db": Reading(0.0, "dB"),
    }
    assert bar.dominator(readings) is None  # what was not measured may be the best
    ordinary = readings | {"coverage": Reading(0.0, ""), "roughness": Reading(1e9, "")}
    assert bar.dominator(ordinary) in least["coverage"]
    assert "no larger, no worse and no slower" in hopeless(found, ordinary)
    smooth = readings | {"coverage": Reading(0.0, ""), "roughness": Reading(min(least["roughness"].values()) / 2, "")}
    assert bar.dominator(smooth) is None


def test_the_document_tells_the_objectives_and_every_row_has_their_readings(found):
    document = json.loads(json.dumps(found.to_json(all=True), allow_nan=False))
    told = {one["name"]: one for one in document["objectives"]}
    assert list(told) == ["diversity", "texture", "worst_group", "roughness"]
    assert (told["diversity"]["value"], told["texture"]["value"]) == ("coverage", "gradient_similarity")
    assert told["diversity"]["limits"] == {"min": 0.1}
    names = {"coverage", "recall", "texture_db", "gradient_similarity", "worst_group_db", "roughness"}
    assert all(names <= row.keys() for row in (document["reference"], *document["front"], *document["trials"]))
    assert names <= set(found.front().columns)
    headers = [
        column.header for column in candidates_table(document["front"], further=further_readings(document)).columns
    ]
    assert headers[-5:] == ["diversity", "texture", "worst group", "roughness", "layers"]


def test_a_limit_of_a_further_objective_is_kept_by_what_is_picked(found):
    values = sorted(trial.value("roughness") for trial in found.trials if trial.measured)
    limit = values[len(values) // 2]
    chosen = found.pick(max={"roughness": limit}, prefer="diversity")
    fitting = [t for t in found.trials if t.measured and t.value("roughness") <= limit and t.value("coverage") >= 0.1]
    assert chosen in fitting
    assert chosen.value("coverage") == max(trial.value("coverage") for trial in fitting)
    smoothest = found.pick(prefer="roughness")
    assert smoothest.value("roughness") == values[0] or smoothest.value("coverage") >= 0.1
    with pytest.raises(
        InputError, match=r"no measured candidate keeps .*roughness at most 1e-09.* comes closest with rough"
    ):
        found.pick(max={"roughness": 1e-9})
    with pytest.raises(
        InputError, match="prefer must be one of knee, size, latency, psnr, diversity, texture, worst_group"
    ):
        found.pick(prefer="sharpness")


def test_a_search_goes_on_and_nothing_is_measured_twice(found, folder, tmp_path):
    here = tmp_path / "run"
    shutil.copytree(found.folder, here)
    run = search(load_study(folder), trials=14, run_dir=here)
    stages = [
        (record["key"], record["stage"])
        for record in map(json.loads, (here / "records.jsonl").read_text().splitlines())
        if record["stage"] in ("quality", "diversity", "roughness")
    ]
    assert len(stages) == len(set(stages))
    assert run.finished == 14
    assert all(trial.measured or trial.predicted for trial in run.trials)


def test_a_search_that_died_between_quality_and_an_objective_goes_on_there(found, folder, tmp_path):
    here = tmp_path / "run"
    shutil.copytree(found.folder, here)
    lines = (here / "records.jsonl").read_text().splitlines()
    last = max(json.loads(line)["trial"] for line in lines)
    kept = [
        line
        for line in lines
        if (record := json.loads(line))["trial"] < last
        or record["stage"] in ("claim", "proposal", "prediction", "build", "glance", "quality")
    ]
    (here / "records.jsonl").write_text("\n".join(kept) + "\n")
    assert Run(here).any_trial(last).state == "started"
    run = search(load_study(folder), trials=12, run_dir=here)
    assert run.any_trial(last).readings["roughness"].value == found.any_trial(last).readings["roughness"].value


def test_another_limit_is_another_study(found, folder, tmp_path):
    text = (folder / "study.toml").read_text().replace("min = 0.1", "min = 0.2")
    other = folder.parent / "other"
    if not other.exists():
        shutil.copytree(folder, other)
    (other / "study.toml").write_text(text)
    with pytest.raises(InputError, match=re.escape("objectives.diversity.min: 0.1 there, 0.2 now")):
        search(load_study(other), trials=12, run_dir=found.folder)


def test_a_bundle_holds_the_readings_and_is_measured_again(found, folder, tmp_path):
    trial = found.front_trials()[0]
    bundle = found.ship(trial, tmp_path / "bundle")
    row = json.loads((bundle / "candidate.json").read_text())
    assert row["roughness"] == pytest.approx(trial.value("roughness"), rel=1e-3)
    card = (bundle / "card.md").read_text()
    assert "| coverage, evaluation data | 1.000 |" in card
    assert "| PSNR of the worst group, evaluation data |  |" in card  # the reference is against itself
    verified = verify(bundle)
    assert not failed(verified)
    names = {check["name"] for check in verified["checks"]}
    assert {"coverage, evaluation data", "roughness, evaluation data", "worst_group_db, evaluation data"} <= names
    facts = json.loads((bundle / "bundle.json").read_text())
    facts["expected"]["evaluation"]["coverage"] -= 0.1
    (bundle / "bundle.json").write_text(json.dumps(facts))
    assert failed(verify(bundle)) == ["coverage, evaluation data"]


def test_the_report_shows_each_objective_over_size(found, tmp_path):
    report(open_run(found.folder), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    for name in ("coverage", "gradient_similarity", "worst_group_db", "roughness"):
        assert f'id="size-{name}"' in text
    assert "Diversity is coverage: the part of the reference" in text
    assert re.search(r"PSNR of the worst group \(group (ink|oil), the worst of 2\)", text)


def test_candidates_outside_a_run_are_measured_as_well(folder):
    layers = {f"conv{i}": LayerChoice(8, 8) for i in range(3)}
    [row] = evaluate(load_study(folder), [Candidate(layers)])
    assert 0.0 < row["coverage"] <= 1.0
    assert row["roughness"] > 0.0


@pytest.mark.slow
def test_what_is_proposed_keeps_limits_of_further_objectives(found, folder, tmp_path):
    here = tmp_path / "run"
    shutil.copytree(found.folder, here)
    chosen, _ = propose(Run(here), min={"diversity": 0.5})
    assert chosen.value("coverage") >= 0.5
    with pytest.raises(InputError, match="prefer must be one of knee, size, latency, psnr, but got 'diversity'"):
        propose(Run(here), prefer="diversity")


def test_a_constraint_alone_keeps_those_on_the_front_that_meet_it(tiny_model, pictures, tmp_path):
    """Candidates whose brightness is what the constraint asks for are not given up for better ones that break it."""

    def brightness(subject):
        return float(subject.model.outputs.mean())

    def study(limit):
        table = {"function": brightness, "max": limit}
        samples = pictures(4, 1), pictures(3, 2)
        return Study(tiny_model, *samples, objectives={"brightness": table}, trials=8, sampler="random")

    values = [t.value("brightness") for t in search(study(0.0), run_dir=tmp_path / "first").trials if t.measured]
    run = search(study(min(values)), run_dir=tmp_path / "run")
    darkest = min((t for t in run.trials if t.measured), key=lambda trial: trial.value("brightness"))
    assert run.violation(darkest) == 0.0
    assert darkest.number in {trial.number for trial in run.front_trials()}
    assert run.pick().value("brightness") == min(values)
    with pytest.raises(InputError, match="was given in memory as an object, which other processes have not"):
        search(study(0.0), run_dir=tmp_path / "first", workers=2)


@pytest.mark.slow
def test_an_object_in_memory_is_shipped_with_what_the_search_measured(tiny_model, pictures, tmp_path):
    class Energy:
        def measure(self, subject):
            return {"energy": Reading(subject.model.path.stat().st_size / 1000.0, "J", how="a meter")}

    study = Study(
        tiny_model, pictures(4, 1), pictures(3, 2), objectives={"energy": {"objective": Energy(), "maximise": False}}
    )
    run = search(study, trials=3, run_dir=tmp_path / "run")
    trial = run.front_trials()[0]
    assert trial.value("energy") == trial.value("size_bytes") / 1000.0
    bundle = run.ship(trial, tmp_path / "bundle")
    assert "as the search measured it" in (bundle / "card.md").read_text()
    assert not failed(verify(bundle))


def test_what_fails_in_an_objective_is_a_failed_candidate(tiny_model, pictures, tmp_path):
    def fussy(subject):
        if not subject.is_reference:
            raise ValueError("too small")
        return 1.0

    study = Study(tiny_model, pictures(4, 1), pictures(3, 2), objectives={"fussy": fussy})
    run = search(study, trials=3, run_dir=tmp_path / "run")
    assert [trial.state for trial in run.trials] == ["measured", "failed", "failed"]
    assert run.trials[1].reason == "ValueError: too small"
    with pytest.raises(BuildError, match="too small"):
        evaluate(study, [run.trials[1].candidate])


def test_the_stages_of_a_study_end_with_its_objectives_and_timing(found):
    stages = stages_with(found.criteria)
    assert stages == ("build", "quality", "diversity", "texture", "worst_group", "roughness", "timing")
    done = {stage: {"state": "done", "time": "1"} for stage in stages[:2]}
    assert not _is_news(Kind.JUDGE, stages, done, {})
    assert _is_news(Kind.JUDGE, stages, done | {"roughness": {"state": "done"}}, done)
    assert _is_news(Kind.JUDGE, stages, {"quality": {"state": "predicted"}}, {})
