"""A study whose runtime reads files of another form than ONNX, from its search to a bundle that holds."""

from __future__ import annotations

import json
import shutil
import zlib

import numpy as np
import onnx
import pytest

from slimfront.objectives.agreement import Agreement
from slimfront.objectives.memory import measure_once, predicted
from slimfront.objectives.protocol import OpenModel, Subject
from slimfront.search.evaluate import evaluate
from slimfront.search.loop import search
from slimfront.spaces.build import built_hash
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.errors import InputError
from slimfront.studies.board.albums import Albums
from slimfront.studies.board.followed import Followed
from slimfront.studies.bundle import read_bundle
from slimfront.studies.candidates import build, build_file
from slimfront.studies.explain import explain
from slimfront.studies.profile import profile
from slimfront.studies.report import run_gallery
from slimfront.studies.run import Run
from slimfront.studies.study import Study, load_study
from slimfront.studies.verify import verify

from ..verified import failed
from ..zipped import NAME, Zipped, enter, enter_others

SUFFIX = ".zipped"


@pytest.fixture(scope="module", autouse=True)
def zipped(tmp_path_factory):
    """A runtime that reads zipped graphs, here and in processes that are started from here."""
    with pytest.MonkeyPatch.context() as patch:
        enter(patch)
        enter_others(patch, tmp_path_factory.mktemp("site"))
        patch.setattr("slimfront.search.timing_queue.doubtful", lambda run: [])  # as `nobody_in_doubt`
        yield


@pytest.fixture(scope="module")
def study(tiny_model, pictures):
    return Study(tiny_model, pictures(4, 1), (pictures(6, 2), pictures(6, 3)), runtime=NAME)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def run(study, place, tmp_path_factory):
    return search(
        study, trials=8, run_dir=tmp_path_factory.mktemp("runs") / "run", sampler="random", artifacts=f"file://{place}"
    )


@pytest.fixture(scope="module")
def shipped(run, tmp_path_factory):
    return run.ship(run.pick(prefer="size"), tmp_path_factory.mktemp("shipped") / "bundle")


def kept(run):
    return {trial.candidate.key: trial for trial in (run.reference, *run.front_trials())}


def test_a_run_keeps_the_files_that_were_measured_under_the_runtime_s_suffix(run):
    names = {path.name for path in (run.folder / "models").iterdir()}
    assert names == {f"{key}{SUFFIX}" for key in kept(run)}
    for trial in kept(run).values():
        assert built_hash(run.model_path(trial)) == trial.sha256
        assert run.model_path(trial).stat().st_size == trial.value("size_bytes")


def test_every_candidate_agrees_with_the_graph_that_it_was_made_of(run):
    assert not [trial.reason for trial in run.trials if trial.state == "failed"]
    assert all(trial.readings["agreement_db"].value > 30 for trial in run.trials if trial.measured)


def test_files_go_to_the_place_of_the_run_s_models_and_come_back(run, place, tmp_path):
    assert {path.name for path in place.rglob(f"*{SUFFIX}")} == {
        f"{key}.{trial.sha256[:16]}{SUFFIX}" for key, trial in kept(run).items()
    }
    shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("models", "study"))
    elsewhere = Run(tmp_path / "run")
    assert built_hash(elsewhere.model_path(elsewhere.reference)) == elsewhere.reference.sha256


def test_a_file_that_is_gone_is_built_again(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("models"))
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({k: v for k, v in facts.items() if k[:9] != "artifacts"}))
    again = Run(tmp_path / "run")
    assert again.model_path(again.reference).name == f"{Candidate().key}{SUFFIX}"
    assert built_hash(again.model_path(again.reference)) == again.reference.sha256


def test_a_search_goes_on_and_files_that_left_the_front_go(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    for name in ("old", run.trials[-1].candidate.key):
        (tmp_path / "run" / "models" / f"{name}{SUFFIX}").touch()
    longer = search(run.load(), trials=10, run_dir=tmp_path / "run", sampler="random")
    assert {path.stem for path in (longer.folder / "models").iterdir()} >= set(kept(longer)) - {"old"}
    assert {path.suffix for path in (longer.folder / "models").iterdir()} == {SUFFIX}
    assert len(longer.trials) == 10


def test_what_asks_for_kernels_is_given_the_graph(run, study):
    chosen = max((trial for trial in run.trials if trial.measured), key=lambda trial: trial.value("speedup"))
    assert {row["name"] for row in explain(run, chosen)["layers"]} == set(study.graph.layers)
    document = profile(study)
    assert all(layer["ms"] > 0 for layer in document["layers"])
    assert document["memory"]["peak_bytes"] > 0


def test_what_shows_pictures_runs_the_files(run, study):
    members = [trial for trial in run.front_trials() if trial.number]
    assert run_gallery(run, study) is not None
    album = Albums(Followed(run.folder)).of(members[0])
    assert album.pictures.shape == (6, 16, 16, 3)


def test_memory_is_foretold_from_the_graph_where_it_can_be_had_and_measured_on_the_file(run, study):
    path = run.model_path(run.reference)
    alone = OpenModel(path, study.evaluation, 1, study.target)
    assert predicted(alone) == {} and Agreement().measure(Subject(alone, alone)) == {}
    built = study.builder.build(Candidate())
    whole = OpenModel(path, study.evaluation, 1, study.target, built.save_graph)
    assert predicted(whole)["predicted_memory_bytes"].value > 0
    assert max(measure_once(whole).values()) > 0


def test_candidates_are_measured_outside_any_run(study):
    candidate = Candidate({name: LayerChoice(4, 8) for name in study.graph.layers})
    [row] = evaluate(study, [candidate])
    assert row["sha256"] == study.builder.build(candidate).sha256


def test_a_candidate_s_file_is_that_of_the_runtime(study, tmp_path):
    candidate = Candidate({name: LayerChoice(8, 8) for name in study.graph.layers})
    facts = build_file(study, candidate, tmp_path / f"small{SUFFIX}")
    data = (tmp_path / f"small{SUFFIX}").read_bytes()
    assert build(study, candidate) == data and len(data) == facts["size_bytes"]
    onnx.load_from_string(zlib.decompress(data.partition(b"\n")[2]))


def test_a_name_of_another_runtime_s_files_is_refused(study, study_folder, tmp_path):
    told = rf"m.onnx would be no .onnx file: the study's runtime 'zipped' reads \{SUFFIX} files; name it m\{SUFFIX}"
    with pytest.raises(InputError, match=told):
        build_file(study, Candidate(), tmp_path / "m.onnx")
    with pytest.raises(InputError, match=r"'onnxruntime' reads \.onnx files; name it m\.onnx"):
        build_file(load_study(study_folder), Candidate(), tmp_path / f"m{SUFFIX}")
    build_file(study, Candidate(), tmp_path / "m.bin")
    assert [path.name for path in tmp_path.glob("m.*")] == ["m.bin"]


def test_a_bundle_names_its_file_and_holds(shipped, run):
    chosen = run.pick(prefer="size")
    names = {f"model{SUFFIX}", "candidate.json", "card.md", "bundle.json", "check.npz"}
    assert {path.name for path in shipped.iterdir()} == names
    assert (shipped / f"model{SUFFIX}").read_bytes() == run.model_path(chosen).read_bytes()
    facts = read_bundle(shipped)
    assert facts["model"] == f"model{SUFFIX}" and facts["runtime"] == NAME
    assert not failed(verify(shipped))


def test_a_bundle_claims_nothing_of_onnx_where_its_file_is_none(shipped):
    assert not {"opset", "ir_version", "least_onnxruntime"} & set(read_bundle(shipped))
    card = (shipped / "card.md").read_text(encoding="utf-8")
    assert "- the module zlib.\n" in card and f"sha256 of model{SUFFIX}: " in card
    assert not any(word in card for word in ("opset", "operators", ".onnx", "free axes"))
    assert "The file takes no other shapes." in card


def test_a_damaged_or_lost_file_is_found(shipped, tmp_path):
    copy = shutil.copytree(shipped, tmp_path / "bundle")
    model = copy / f"model{SUFFIX}"
    model.write_bytes(model.read_bytes() + b"\0")
    assert verify(copy)["failed"] == ["sha256"]
    model.unlink()
    [check] = [check for check in verify(copy)["checks"] if not check["holds"]]
    assert check["found"] == f"model{SUFFIX} is missing"


def test_the_target_is_the_one_that_was_named(study):
    assert isinstance(study.target, Zipped) and study.rules.format.suffix == SUFFIX
    assert np.isfinite(study.target.open(build(study, Candidate())).run(None, study.feed)[0]).all()
