"""The search on a tiny model: its order, how it continues, what it refuses, what it tells."""

import errno
import json
import shutil

import numpy as np
import pytest

from slimfront.objectives.predictor import Predictor
from slimfront.objectives.protocol import Reading
from slimfront.search import evaluate as evaluate_module
from slimfront.search.agenda import TIMED_AGAIN
from slimfront.search.evaluate import evaluate
from slimfront.search.loop import search
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.errors import BuildError, InputError
from slimfront.studies import records as records_module
from slimfront.studies.definition import SAMPLERS
from slimfront.studies.records import read_records
from slimfront.studies.run import Run, open_run
from slimfront.studies.study import Study, load_study


class Listener:
    def __init__(self):
        self.notes = []
        self.steps = []
        self.fractions = []

    def note(self, text):
        self.notes.append(text)

    def prepare(self, text, fraction):
        self.fractions.append(fraction)

    def step(self, done, total, hypervolume, seconds_left, trial, gain_ahead=None):
        self.steps.append((done, total, hypervolume, seconds_left, trial.number))


@pytest.fixture
def study(study_folder):
    return load_study(study_folder)


def keys(run, stages=("build", "quality", "timing")):
    """Candidate and stage of each record; of several timings of a candidate (where it was in doubt) the first."""
    records = read_records(run.folder / "records.jsonl")
    return list(dict.fromkeys((record.key, record.stage) for record in records if record.stage in stages))


def timings(run):
    records = read_records(run.folder / "records.jsonl")
    return [record for record in records if (record.stage, record.state) == ("timing", "done")]


def test_reference_then_uniform_ones_then_proposals(study, tmp_path):
    run = search(study, run_dir=tmp_path / "run")
    labels = [trial.label for trial in run.trials]
    uniform = [f"uniform {bits}/8" for bits in (8, 6, 5, 4, 3, 2)]
    assert labels == ["reference", *uniform, "", "", ""]
    assert [trial.number for trial in run.trials] == list(range(10))
    assert len({trial.candidate for trial in run.trials}) == 10
    assert all(trial.measured or trial.predicted for trial in run.trials)
    assert all(trial.measured for trial in run.front_trials())
    assert len(keys(run)) == 30
    assert len(timings(run)) <= 10 + max(round(TIMED_AGAIN * 10), 1)
    predicted = {key for key, _ in keys(run, ["prediction"])}
    assert predicted == {trial.candidate.key for trial in run.trials} - {Candidate().key}
    assert all(trial.row()["predicted_speedup"] for trial in run.trials[1:])


def test_readings_are_those_of_the_files(study, tmp_path):
    run = search(study, trials=3, run_dir=tmp_path / "run")
    assert run.reference.row()["speedup"] == 1.0
    assert run.reference.row()["fidelity_db"] == run.reference.row()["psnr_db"] == 100.0
    for trial in run.front_trials():
        path = run.model_path(trial)
        assert path.stat().st_size == trial.value("size_bytes")
        assert study.builder.build(trial.candidate).sha256 == trial.sha256
        assert trial.latency_ms == pytest.approx(run.reference.value("reference_ms") / trial.value("speedup"))


@pytest.mark.usefixtures("nobody_in_doubt")
def test_files_are_kept_for_the_front_and_built_again_for_others(study, tmp_path):
    run = search(study, trials=9, run_dir=tmp_path / "run")
    kept = {path.stem for path in (run.folder / "models").iterdir()}
    assert kept == {trial.candidate.key for trial in run.front_trials()} | {Candidate().key}
    for trial in run.trials:
        assert run.model_path(trial).stat().st_size == trial.value("size_bytes")


def test_it_continues_and_measures_nothing_twice(study_folder, tmp_path):
    first = search(load_study(study_folder), trials=4, run_dir=tmp_path / "run")
    before = (first.folder / "records.jsonl").read_bytes()
    second = search(load_study(study_folder), trials=9, run_dir=tmp_path / "run", sampler="tpe", seed=5)
    assert (first.folder / "records.jsonl").read_bytes()[: len(before)] == before
    assert len(second.trials) == 9
    assert len(keys(second)) == 27
    again = search(load_study(study_folder), trials=9, run_dir=tmp_path / "run")
    assert again.to_json(all=True) == second.to_json(all=True)


def test_what_was_begun_is_finished_first(study, tmp_path):
    run = search(study, trials=4, run_dir=tmp_path / "run")
    before = keys(run)
    lines = (run.folder / "records.jsonl").read_bytes().splitlines(keepends=True)
    (run.folder / "records.jsonl").write_bytes(b"".join(lines[:10]) + lines[10][:20])  # trial 2 was not timed yet
    resumed = search(study, trials=4, run_dir=tmp_path / "run")
    assert keys(resumed) == before
    assert len(resumed.trials) == 4


def test_proposals_do_not_depend_on_where_it_was_interrupted(study, tmp_path, monkeypatch):
    """Timings differ from run to run, so here they are made equal, and none is postponed."""
    monkeypatch.setattr(Predictor, "calibrated", False)
    monkeypatch.setattr(evaluate_module, "Timing", lambda: FixedTiming())
    whole = search(study, trials=10, run_dir=tmp_path / "whole", sampler="tpe")
    for trials in (3, 8, 9, 10):
        pieces = search(study, trials=trials, run_dir=tmp_path / "pieces", sampler="tpe")
    assert [trial.candidate for trial in pieces.trials] == [trial.candidate for trial in whole.trials]


class FixedTiming:
    name = "timing"

    def measure(self, subject):
        from slimfront.objectives.protocol import Reading

        return {"speedup": Reading(2.0, "x", 2.0, 2.0), "reference_ms": Reading(1.0, "ms")}


def test_timings_of_another_environment_are_kept_and_made_again(study, tmp_path, monkeypatch):
    first = search(study, trials=3, run_dir=tmp_path / "run")
    before = (first.folder / "records.jsonl").read_bytes()
    monkeypatch.setattr("slimfront.studies.environment.cpu_name", lambda: "another processor")
    listener = Listener()
    second = search(study, trials=3, run_dir=tmp_path / "run", progress=listener)
    assert (first.folder / "records.jsonl").read_bytes()[: len(before)] == before
    here = list(read_records(first.folder / "records.jsonl"))[len(before.splitlines()) :]
    assert {record.stage for record in here} <= {"claim", "prediction", "timing"}
    assert len({record.key for record in here if record.stage == "timing"}) == 3
    assert any("another environment" in note and "are not compared" in note for note in listener.notes)
    assert len(second.environments()) == 2
    ours = {trial.stages["timing"]["environment"] for trial in second.trials}
    assert [second.environments()[digest]["cpu"] for digest in ours] == ["another processor"]


def test_a_changed_study_is_refused_with_the_difference(study_folder, tmp_path):
    search(load_study(study_folder), trials=1, run_dir=tmp_path / "run")
    file = study_folder / "study.toml"
    file.write_text(file.read_text() + "[target]\nthreads = 2\n[space]\nweight_bits = [4, 8]\n")
    with pytest.raises(InputError) as caught:
        search(load_study(study_folder), trials=2, run_dir=tmp_path / "run")
    message = str(caught.value)
    assert "\n" not in message
    assert "target.threads: 1 there, 2 now" in message
    assert "space.weight_bits: [2, 3, 4, 5, 6, 8, 32] there, [4, 8] now" in message
    assert "data" not in message
    with pytest.raises(InputError, match="another study"):
        open_run(tmp_path / "run").load()


def test_a_failing_candidate_is_a_record_and_counts(study, tmp_path, monkeypatch):
    build = study.builder.build

    def sometimes(candidate):
        if any(choice.weight_bits == 5 for choice in candidate.layers.values()):
            raise BuildError("no kernel for 5 bits")
        if any(choice.weight_bits == 3 for choice in candidate.layers.values()):
            raise ZeroDivisionError("division by zero")
        return build(candidate)

    monkeypatch.setattr(study.builder, "build", sometimes)
    run = search(study, trials=7, run_dir=tmp_path / "run")
    failed = {trial.label: trial.reason for trial in run.trials if trial.state == "failed"}
    assert failed == {"uniform 5/8": "no kernel for 5 bits", "uniform 3/8": "ZeroDivisionError: division by zero"}
    assert len(run.trials) == 7
    assert json.dumps(run.to_json(all=True), allow_nan=False)
    assert len(search(study, trials=7, run_dir=tmp_path / "run").trials) == 7


def test_a_candidate_that_gives_nan_is_a_record(study, tmp_path, monkeypatch):
    from slimfront.objectives import protocol

    infer = protocol.infer
    calls = []

    def broken(session, inputs, *more):
        calls.append(1)
        if len(calls) == 2:
            raise BuildError("the model's output has NaN or infinite values")
        return infer(session, inputs, *more)

    monkeypatch.setattr(protocol, "infer", broken)
    run = search(study, trials=3, run_dir=tmp_path / "run")
    assert [trial.state == "failed" for trial in run.trials] == [False, True, False]
    assert list(run.trials[1].stages) == ["prediction", "build", "quality"]


def test_a_reference_that_fails_is_the_users_to_mend(study, tmp_path, monkeypatch):
    def broken(session, inputs, *more):
        raise BuildError("the model's output has NaN or infinite values")

    monkeypatch.setattr("slimfront.objectives.protocol.infer", broken)
    with pytest.raises(InputError, match="the study's model itself fails: the model's output has NaN"):
        search(study, trials=3, run_dir=tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"trials": 0}, "trials must be a whole number, at least 1, but got 0"),
        ({"trials": 2.5}, "trials must be a whole number"),
        ({"timeout": "soon"}, "timeout must be a time"),
        ({"sampler": "tpee"}, "sampler must be one of frontier, .*did you mean 'tpe'"),
        ({"storage": "sqlite:////nowhere/at/all.db"}, "storage 'sqlite:////nowhere/at/all.db' cannot be opened"),
    ],
)
def test_wrong_arguments_leave_nothing_behind(study, tmp_path, arguments, words):
    with pytest.raises(InputError, match=words) as caught:
        search(study, run_dir=tmp_path / "run", **arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_space_in_which_nothing_varies_is_refused(tiny_model, pictures, tmp_path):
    study = Study(tiny_model, pictures(4, 1), pictures(3, 2), weight_bits=(8,), activation_bits=(8,))
    with pytest.raises(InputError, match="nothing varies"):
        search(study, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_second_search_on_the_same_folder_is_refused(study, tmp_path):
    class Nested(Listener):
        def step(self, *_):
            with pytest.raises(InputError, match="another search is writing"):
                search(study, trials=5, run_dir=tmp_path / "run")
            self.steps.append(True)

    nested = Nested()
    search(study, trials=1, run_dir=tmp_path / "run", progress=nested)
    assert nested.steps == [True]


def test_a_full_disk_ends_the_search_with_one_line_and_loses_nothing(study, tmp_path, monkeypatch):
    search(study, trials=2, run_dir=tmp_path / "run")
    before = keys(Run(tmp_path / "run"))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(records_module.os, "write", full)
        with pytest.raises(InputError, match=r"cannot write to the run folder .*: No space left on device") as caught:
            search(study, trials=4, run_dir=tmp_path / "run")
        assert "\n" not in str(caught.value)
    assert keys(Run(tmp_path / "run")) == before
    assert len(search(study, trials=4, run_dir=tmp_path / "run").trials) == 4


def test_ctrl_c_passes_through_and_everything_finished_is_kept(study, tmp_path):
    class Impatient(Listener):
        def step(self, done, *_):
            if done == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(study, trials=5, run_dir=tmp_path / "run", progress=Impatient())
    assert len(Run(tmp_path / "run").trials) == 3
    assert len(search(study, trials=5, run_dir=tmp_path / "run").trials) == 5


def test_a_timeout_ends_in_time_and_the_run_can_go_on(study, tmp_path):
    listener = Listener()
    run = search(study, trials=9, run_dir=tmp_path / "run", timeout="1ms", progress=listener)
    assert len(run.trials) == 1
    assert "the time is over" in listener.notes
    assert len(search(study, trials=3, run_dir=tmp_path / "run").trials) == 3


def test_a_small_space_ends_before_the_trials_do(tiny_model, pictures, tmp_path):
    study = Study(tiny_model, pictures(4, 1), pictures(3, 2), weight_bits=(4, 32), activation_bits=(32,))
    listener = Listener()
    run = search(study, trials=50, run_dir=tmp_path / "run", sampler="random", progress=listener)
    static = [trial for trial in run.trials if trial.candidate.repair == "static"]
    assert len(static) == study.space.size == 8
    assert len(run.trials) < 50  # the others are the same ones, repaired in the order of the data
    assert "every candidate of the space is measured" in listener.notes


@pytest.mark.usefixtures("nobody_in_doubt")
def test_progress_is_told_of_every_trial(study, tmp_path):
    """A timing that is repeated at the end would move the hypervolume after the last trial: here none is."""
    listener = Listener()
    run = search(study, trials=4, run_dir=tmp_path / "run", progress=listener)
    assert [(done, total, number) for done, total, _, _, number in listener.steps] == [(n + 1, 4, n) for n in range(4)]
    assert listener.steps[-1][2] == run.hypervolume()
    assert listener.steps[-1][3] == 0.0
    assert all(left >= 0 for _, _, _, left, _ in listener.steps)


def test_a_wrong_range_is_told(study_folder, pictures, tmp_path):
    np.savez(study_folder / "evaluation.npz", input=pictures(3, 2), target=np.full((3, 3, 16, 16), 255, np.uint8))
    listener = Listener()
    search(load_study(study_folder), trials=1, run_dir=tmp_path / "run", progress=listener)
    assert any("are data.range and data.input_range right?" in note for note in listener.notes)


def test_constraints_guide_the_search(tiny_model, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate_module, "Timing", FixedTiming)
    study = Study(tiny_model, pictures(4, 1), pictures(3, 2), constraints={"min_psnr": 40})
    run = search(study, trials=16, run_dir=tmp_path / "run")
    proposed = run.trials[7:]
    assert sum(run.violation(trial) == 0.0 for trial in proposed) >= 5


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_searches(study, tmp_path, sampler):
    assert len(search(study, trials=9, run_dir=tmp_path / "run", sampler=sampler).trials) == 9


def test_a_study_in_memory_is_kept_in_its_run(tiny_model, pictures, tmp_path):
    study = Study(tiny_model, pictures(4, 1), (pictures(3, 2), pictures(3, 3)), name="mine")
    run = search(study, trials=2, run_dir=tmp_path / "run")
    loaded = open_run(tmp_path / "run").load()
    assert loaded.digest == study.digest
    assert (loaded.evaluation.target == study.evaluation.target).all()
    assert len(search(loaded, trials=3, run_dir=tmp_path / "run").trials) == 3
    assert run.study_name == "mine"


def test_the_default_folder_is_named_after_the_study(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert search(study, trials=1).folder.resolve() == tmp_path / "runs" / "tiny"


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_an_optuna_storage_mirrors_the_run_once(study, tmp_path, kind):
    import optuna

    url = {"journal": str(tmp_path / "journal.log"), "sqlite": f"sqlite:///{tmp_path}/runs.db"}[kind]
    search(study, trials=2, run_dir=tmp_path / "run")
    search(study, trials=4, run_dir=tmp_path / "run", storage=url)
    run = search(study, trials=5, run_dir=tmp_path / "run", storage=url)
    backend = (
        url if kind == "sqlite" else optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(url))
    )
    (name,) = optuna.get_all_study_names(backend)
    mirrored = optuna.load_study(study_name=name, storage=backend).trials
    assert [trial.user_attrs["trial"] for trial in mirrored] == [0, 1, 2, 3, 4]
    assert [tuple(trial.values) for trial in mirrored] == [run.point(trial) for trial in run.trials]
    assert mirrored[1].params == dict.fromkeys(study.graph.layers, "8/8")


def test_evaluate_measures_candidates_outside_any_run(study):
    layer = next(iter(study.graph.layers))
    candidates = [Candidate({layer: LayerChoice(16, 32)}), Candidate(), Candidate({layer: LayerChoice(4, 8)})]
    rows = evaluate(study, candidates)
    assert [row["candidate"] for row in rows] == [candidate.to_json() for candidate in candidates]
    assert [row["trial"] for row in rows] == [None] * 3
    assert rows[1]["speedup"] == 1.0
    assert rows[0]["size_bytes"] < rows[1]["size_bytes"]
    with pytest.raises(InputError, match="unknown layer"):
        evaluate(study, [Candidate({"none": LayerChoice(4, 8)})])


@pytest.mark.parametrize("written", ["study", "models", "environments"])
def test_whatever_cannot_be_written_is_one_clear_line(tiny_model, pictures, tmp_path, written):
    """A file where a folder is to be stands for a folder that cannot be written to."""
    study = Study(tiny_model, pictures(4, 1), pictures(3, 2))
    search(study, trials=1, run_dir=tmp_path / "run")
    for path in ("models", "environments", "study"):
        if path == written:
            shutil.rmtree(tmp_path / "run" / path)
            (tmp_path / "run" / (".study.part" if path == "study" else path)).write_text("")
    with pytest.raises(InputError, match="cannot write to the run folder") as caught:
        search(study, trials=2, run_dir=tmp_path / "run")
    assert "\n" not in str(caught.value)


@pytest.fixture
def clock(monkeypatch):
    """A function (step) after which the reference takes 10 ms alone and 10 + step ms beside a candidate."""

    def patch(step):
        class Clock:
            name = "timing"

            def measure(self, subject):
                milliseconds = 10.0 if subject.is_reference else 10.0 + step
                speedup = 1.0 if subject.is_reference else 2.0
                readings = {"reference_ms": milliseconds, "reference_drift": 0.0, "speedup": speedup}
                return {name: Reading(value, "") for name, value in readings.items()}

        monkeypatch.setattr(evaluate_module, "Timing", Clock)

    return patch


def test_evaluate_warns_of_a_reference_whose_time_moved(study, clock):
    clock(5.0)
    evaluate(study, [Candidate()])
    assert "the reference's own time moved" not in " ".join(study.warnings)
    evaluate(study, [Candidate({"conv1": LayerChoice(4, 32)})])
    assert "up to 50% (medians from 10.0 ms to 15.0 ms)" in study.warnings[-1]


def test_constraints_that_nothing_keeps_are_told(tiny_model, pictures, tmp_path):
    listener = Listener()
    tight = Study(tiny_model, pictures(4, 1), pictures(3, 2), constraints={"max_size": 100})
    search(tight, trials=2, run_dir=tmp_path / "run", progress=listener)
    assert "no candidate keeps the constraints yet: size at most 100 bytes" in listener.notes


def test_evaluate_names_an_unknown_layer_before_anything_is_prepared(study, monkeypatch):
    monkeypatch.setattr(study.builder, "prepare", lambda *_: pytest.fail("the preparation has begun"))
    with pytest.raises(InputError, match=r"unknown layer 'conv11' \(did you mean 'conv1'\?\)"):
        evaluate(study, [Candidate({"conv11": LayerChoice(4, 32)})])


@pytest.mark.parametrize(("step", "told"), [(0.0, []), (5.0, ["up to 50% (medians from 10.0 ms to 15.0 ms)"])])
def test_a_reference_whose_time_moved_is_told_at_the_end(study, tmp_path, clock, step, told):
    clock(step)
    listener = Listener()
    search(study, trials=2, run_dir=tmp_path / "run", progress=listener)
    notes = [note for note in listener.notes if "the reference's own time moved" in note]
    assert len(notes) == len(told)
    assert all(words in note for words, note in zip(told, notes, strict=True))
    again = Listener()
    search(study, trials=2, run_dir=tmp_path / "run", progress=again)
    assert again.notes == ["the run has 2 candidates already, and no more were asked for (2)"]


def test_a_continued_run_offers_the_widths_that_it_was_begun_with(tiny_model, pictures, tmp_path, monkeypatch):
    from slimfront.studies import study as study_module

    def made() -> Study:
        ratios = {"pruning_ratios": (0.0, 0.25, 0.5), "weight_bits": (8, 32)}
        return Study(tiny_model, pictures(4, 1), pictures(3, 2), name="tiny", **ratios)

    monkeypatch.setattr(study_module, "kernel_step", lambda *_: 4)
    run = search(made(), trials=3, run_dir=tmp_path / "run", sampler="random")
    monkeypatch.setattr(study_module, "kernel_step", lambda *_: 16)
    study = made()
    assert study.space.ratios["conv0"] == (0.0,)  # looked at before: the run's widths count all the same
    run = search(study, trials=8, run_dir=tmp_path / "run", sampler="random")
    assert study.space.ratios["conv0"] == (0.0, 0.25, 0.5)
    assert len(run.trials) == 8 and all(trial.state != "failed" for trial in run.trials)
    assert any(trial.candidate.groups for trial in run.trials)


@pytest.mark.parametrize("sampler", ["frontier", "random"])
def test_bits_and_ratios_are_searched_together(tiny_model, pictures, tmp_path, monkeypatch, sampler):
    from slimfront.studies import study as study_module

    monkeypatch.setattr(study_module, "kernel_step", lambda *_: 4)
    study = Study(tiny_model, pictures(4, 1), pictures(3, 2), weight_bits=(4, 6, 32), sparsities=(0.0, 0.5))
    run = search(study, trials=18, run_dir=tmp_path / "run", sampler=sampler)
    assert all(trial.state != "failed" for trial in run.trials)
    chosen = [trial.candidate for trial in run.trials]
    assert any(candidate.groups and candidate.layers for candidate in chosen)
    assert any(choice.sparsity for candidate in chosen for choice in candidate.layers.values())
