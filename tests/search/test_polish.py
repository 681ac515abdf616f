"""A candidate that is trained on: it joins the run, better than before, and ships like any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

import slimfront as sf
from slimfront import cli
from slimfront.search import parcel, remote
from slimfront.search import training as training_module
from slimfront.search.distillation import Examples
from slimfront.search.loop import search
from slimfront.search.losses import Loss
from slimfront.search.polish import polish
from slimfront.search.work import Kind, Work
from slimfront.spaces.errors import BuildError, InputError
from slimfront.studies.run import Run
from slimfront.studies.study import Study, load_study
from slimfront.studies.trial import Trial

STEPS = 300


@pytest.fixture
def run(study_folder, tmp_path):
    """A search of which trial 6 has two bits everywhere."""
    return search(load_study(study_folder), trials=7, run_dir=tmp_path / "run", sampler="random")


@pytest.fixture
def coarse(run):
    return min((trial for trial in run.trials if trial.judged), key=lambda trial: trial.value("psnr_db"))


def test_it_is_better_as_large_and_as_any_other_trial(run, coarse):
    after, notes = polish(run, coarse.number, steps=STEPS)
    assert after.value("psnr_db") > coarse.value("psnr_db") + 0.3
    assert after.value("size_bytes") == pytest.approx(coarse.value("size_bytes"), rel=0.01)
    assert after.label == f"polished {coarse.number}"
    assert f"trained from trial {coarse.number}" in notes[-1]
    assert (after.candidate.layers, after.candidate.groups) == (coarse.candidate.layers, coarse.candidate.groups)
    again = Run(run.folder)
    assert [trial.number for trial in again.trials] == [*(trial.number for trial in run.trials), after.number]
    assert not list(run.folder.glob("training/*")), "what it needed on the way is gone"
    path = again.model_path(after)
    before = path.read_bytes()
    path.unlink()
    assert again.model_path(after).read_bytes() == before, "it is built again from its weights"
    assert polish(again, coarse.number, steps=STEPS)[0].number == after.number, "the same training gives the same trial"


def test_what_was_polished_is_polished_on_and_the_search_goes_on(run, coarse, study_folder):
    first, _ = polish(run, coarse, steps=STEPS)
    second, _ = polish(Run(run.folder), first.number, steps=STEPS, seed=1)
    assert second.number > first.number
    assert second.value("psnr_db") > first.value("psnr_db") - 0.5
    assert second.label == f"polished {first.number}"
    count = len(Run(run.folder).trials)
    for sampler in ("frontier", "tpe"):
        count += 2
        again = search(load_study(study_folder), trials=count, run_dir=run.folder, sampler=sampler)
        assert len(again.trials) == count


def test_it_ships_and_is_verified(run, coarse, tmp_path):
    after, _ = polish(run, coarse, steps=STEPS)
    bundle = Run(run.folder).ship(after, tmp_path / "bundle")
    assert json.loads((Path(bundle) / "candidate.json").read_text())["candidate"]["weights"] == after.candidate.weights
    assert sf.verify(tmp_path / "bundle")
    assert "trained" in CliRunner().invoke(cli.app, ["front", str(run.folder), "--all"]).stdout


def test_the_report_marks_it(run, coarse, tmp_path):
    sf.report(run, tmp_path / "before.html")
    after, _ = polish(run, coarse, steps=STEPS)
    sf.report(Run(run.folder), tmp_path / "after.html")
    before, page = ((tmp_path / name).read_text() for name in ("before.html", "after.html"))
    assert "polished: trained on" in page and "polished: trained on" not in before
    assert after.label in page


def test_training_sees_no_evaluation_sample(run, coarse, monkeypatch):
    real = training_module.Training.run

    def without(self, progress=None):
        with monkeypatch.context() as patch:
            patch.setattr(Study, "evaluation", property(lambda study: pytest.fail("training looks at evaluation data")))
            patch.setattr(Study, "test", property(lambda study: pytest.fail("training looks at test data")))
            return real(self, progress)

    monkeypatch.setattr(training_module.Training, "run", without)
    seen = []
    made = Examples.__init__

    def spied(self, teacher, inputs, *more):
        seen.append({name: array.copy() for name, array in inputs.items()})
        made(self, teacher, inputs, *more)

    monkeypatch.setattr(Examples, "__init__", spied)
    polish(run, coarse, steps=STEPS)
    calibration = run.load().calibration
    assert all(np.array_equal(seen[0][name], array) for name, array in calibration.items())
    assert len(seen) == 1


@pytest.mark.parametrize("shares", [True, False])
def test_a_worker_builds_it_from_its_weights(run, coarse, shares):
    after, _ = polish(run, coarse, steps=STEPS)
    study = run.load()
    digest = parcel.digest_of(study)
    parcel.unpack(digest, parcel.pack(study, []))
    weights = next((run.folder / "weights").iterdir())
    (run.folder / "models" / f"{after.candidate.key}.onnx").unlink(missing_ok=True)
    order = remote.Order(
        digest,
        "a search",
        Work(Kind.JUDGE, (Trial(after.number, after.candidate, "started"),)),
        str(run.folder / "models") if shares else None,
        {} if shares else {weights.name: weights.read_bytes()},
        machine=study.environment.machine,
    )
    found = {result.stage: result for step in remote.work(order, None) for _, result in step.results}
    assert found["quality"].state == "done"
    assert found["build"].sha256 == after.sha256
    remote.clean(digest, "a search")
    assert not list(parcel.place(digest).glob("**/*" + weights.suffix))


def test_interrupted_it_goes_on(run, coarse, monkeypatch):
    monkeypatch.setattr(training_module, "SAVED_SECONDS", 0.0)

    def stop(text, part):
        if text == "training" and part >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        polish(run, coarse, steps=20, progress=stop)
    assert len(Run(run.folder).trials) == len(run.trials)
    parts = []
    polish(Run(run.folder), coarse.number, steps=20, progress=lambda text, part: parts.append((text, part)))
    assert next(part for text, part in parts if text == "training") > 0.4


def test_a_trial_is_a_module_that_gives_what_its_file_gives(run, coarse):
    network = run.to_torch(coarse)
    image = run.load().evaluation.inputs["x"][:1]
    wanted = onnxruntime.InferenceSession(run.model_path(coarse)).run(None, {"x": image})[0]
    with torch.no_grad():
        found = network(torch.from_numpy(image)).numpy()
    assert np.abs(found - wanted).max() < 0.05 * np.ptp(wanted)
    assert any(parameter.requires_grad for parameter in network.parameters())
    assert torch.equal(run.to_torch(coarse.number)(torch.from_numpy(image)), network(torch.from_numpy(image)))


def test_what_has_become_no_better_is_not_added(run, coarse, monkeypatch):
    monkeypatch.setattr(training_module.Training, "_one_step", lambda training: True)
    after, notes = polish(run, coarse, steps=3)
    assert after is coarse
    assert "did not become better in 3 steps: nothing is added" in notes[-1]
    assert len(Run(run.folder).trials) == len(run.trials)
    assert not (run.folder / "weights").exists()


def test_a_training_that_fails_is_a_failed_trial(run, coarse, monkeypatch):
    real = Loss.__call__

    def spoilt(loss, found, wanted, target=None):
        value = real(loss, found, wanted, target)
        return value * float("nan") if value.requires_grad else value

    monkeypatch.setattr(Loss, "__call__", spoilt)
    for _ in range(2):
        with pytest.raises(BuildError, match="cannot be trained: the loss, or its gradient, is no number at step 0"):
            polish(run, coarse, steps=3)
    *before, failed = Run(run.folder).trials
    assert len(before) == len(run.trials)
    assert failed.state == "failed" and failed.label == f"polished {coarse.number}"
    assert failed.reason.startswith("the training fails: the loss, or its gradient, is no number")
    assert failed.candidate.layers == coarse.candidate.layers
    called = CliRunner().invoke(cli.app, ["front", str(run.folder), "--all"])
    assert called.exit_code == 0 and "the training fails" in called.stdout
    monkeypatch.undo()
    after, _ = polish(Run(run.folder), coarse, steps=STEPS)
    assert after.judged and after.number == failed.number + 1, "who tries again may succeed"


def test_bad_input_is_told_of(run, coarse, monkeypatch):
    with pytest.raises(InputError, match="nothing that training could make good"):
        polish(run, 0)
    with pytest.raises(InputError, match="there is no trial 99"):
        polish(run, 99)
    for steps in (0, 1.5, True):
        with pytest.raises(InputError, match="steps must be a whole number"):
            polish(run, coarse, steps=steps)
    from slimfront.spaces import torch_view

    monkeypatch.delitem(torch_view.OPS, "Conv")
    with pytest.raises(BuildError, match="cannot be trained: no form in PyTorch for Conv"):
        polish(run, coarse)
    assert len(Run(run.folder).trials) == len(run.trials)


def test_damaged_weights_are_told_of(run, coarse):
    after, _ = polish(run, coarse, steps=STEPS)
    again = Run(run.folder)
    again.model_path(after).unlink()
    file = next((run.folder / "weights").iterdir())
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(BuildError, match="damaged"):
        again.model_path(after)
    file.unlink()
    with pytest.raises(BuildError, match="cannot be read"):
        again.model_path(after)


def test_on_the_command_line(run, coarse):
    called = CliRunner().invoke(
        cli.app, ["polish", str(run.folder), "--trial", str(coarse.number), "--steps", str(STEPS), "--json"]
    )
    assert called.exit_code == 0, called.output
    found = json.loads(called.stdout)
    assert found["trial"] == len(run.trials)
    assert found["candidate"]["weights"].startswith("sha256:")
