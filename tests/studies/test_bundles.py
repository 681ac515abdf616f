"""Ship and verify: what is promised is measured on the file, and every damage is found."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from slimfront.objectives.samples import Samples
from slimfront.spaces.candidate import Candidate
from slimfront.spaces.errors import InputError, SlimfrontError
from slimfront.studies import bundle
from slimfront.studies.pick import choice_notes
from slimfront.studies.run import Run
from slimfront.studies.ship import shipped_notes
from slimfront.studies.verify import verify


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, pictures: Callable) -> Run:
    from slimfront.search.loop import search
    from slimfront.studies.study import Study

    study = Study(tiny_model, pictures(4, 1), (pictures(6, 2), pictures(6, 3)), test=(pictures(2, 4), pictures(2, 5)))
    return search(study, trials=8, run_dir=tmp_path_factory.mktemp("bundles") / "run", sampler="random")


@pytest.fixture(scope="module")
def shipped(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run.ship(run.pick(prefer="size"), tmp_path_factory.mktemp("shipped") / "bundle")


@pytest.fixture
def copy(shipped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped, tmp_path / "bundle"))


def promised(folder: Path, **changes: object) -> None:
    facts = json.loads((folder / bundle.BUNDLE_FILE).read_text()) | changes
    (folder / bundle.BUNDLE_FILE).write_text(json.dumps(facts))


def test_a_bundle_is_whole_and_nothing_else_is_left(shipped: Path):
    names = {"model.onnx", "candidate.json", "card.md", "bundle.json", "check.npz"}
    assert {path.name for path in shipped.iterdir()} == names
    assert [path.name for path in shipped.parent.iterdir()] == [shipped.name]


def test_the_shipped_file_is_the_one_that_was_measured(shipped: Path, run: Run):
    chosen = run.pick(prefer="size")
    assert (shipped / "model.onnx").read_bytes() == run.model_path(chosen).read_bytes()
    assert json.loads((shipped / "candidate.json").read_text())["sha256"] == chosen.sha256


def test_a_bundle_that_does_not_tell_its_file_s_name_has_an_onnx_file(copy: Path):
    facts = json.loads((copy / bundle.BUNDLE_FILE).read_text())
    assert facts.pop("model") == "model.onnx"
    facts["study"]["source"] = "/no/such/study"
    (copy / bundle.BUNDLE_FILE).write_text(json.dumps(facts))
    assert verify(copy)["holds"]


def test_the_cards_code_runs(shipped: Path):
    code = (shipped / "card.md").read_text().split("```python\n")[1].split("```")[0]
    assert len(code.strip().splitlines()) == 3
    done = subprocess.run(
        [sys.executable, "-c", code + "print(output.shape)"], cwd=shipped, capture_output=True, text=True, check=True
    )
    assert done.stdout == "(1, 3, 16, 16)\n"


def test_the_card_names_checksum_runtime_and_test_data(shipped: Path):
    card = (shipped / "card.md").read_text()
    facts = bundle.read_bundle(shipped)
    assert facts["sha256"] in card
    assert f"ONNX Runtime {facts['least_onnxruntime']} or later (opset {facts['opset']}" in card
    assert "PSNR, test data" in card


def test_a_bundle_verifies_without_its_study(copy: Path):
    facts = bundle.read_bundle(copy)
    promised(copy, study=facts["study"] | {"source": "/no/such/study"})
    verified = verify(copy)
    assert verified["holds"]
    assert [check["name"] for check in verified["checks"]] == ["candidate", "sha256", "runs", "outputs"]
    assert "study" in verified["notes"][0]


def test_a_speed_that_is_surely_not_the_searchs_is_told(run: Run):
    trial = run.pick(prefer="size")
    then = trial.readings["speedup"]
    row = {"speedup": then.value, "speedup_low": then.low, "speedup_high": then.high}
    assert shipped_notes(trial, row) == []
    slower = {"speedup": then.low / 3, "speedup_low": then.low / 4, "speedup_high": then.low / 2}
    (note,) = shipped_notes(trial, slower)
    assert f"{then.value:.2f}" in note and f"{slower['speedup']:.2f}" in note


def test_choosing_the_uncompressed_model_is_told(run: Run):
    assert len(choice_notes(run, run.reference)) == 1
    assert choice_notes(run, run.pick(prefer="size")) == []


def test_a_changed_or_lost_candidate_fails(copy: Path):
    path = copy / bundle.CANDIDATE_FILE
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"candidate": Candidate().to_json()}))
    assert verify(copy)["failed"] == ["candidate"]
    path.unlink()
    assert verify(copy)["failed"] == ["candidate"]


def test_a_changed_file_fails(copy: Path):
    model = bytearray((copy / "model.onnx").read_bytes())
    model[len(model) // 2] ^= 1
    (copy / "model.onnx").write_bytes(model)
    assert verify(copy)["failed"] == ["sha256"]


def test_another_model_under_the_right_checksum_fails_on_its_outputs(copy: Path, tiny_model: Path):
    other = onnx.load(tiny_model)
    other.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(
            -onnx.numpy_helper.to_array(other.graph.initializer[0]), other.graph.initializer[0].name
        )
    )
    onnx.save(other, copy / "model.onnx")
    promised(copy, sha256=bundle_hash(copy))
    assert verify(copy)["failed"][0] == "outputs"


def test_a_promise_that_was_too_good_fails(copy: Path):
    facts = bundle.read_bundle(copy)
    facts["expected"]["test"]["psnr_db"] += 1.0
    promised(copy, expected=facts["expected"])
    assert "psnr_db, test data" in verify(copy)["failed"]


def bundle_hash(folder: Path) -> str:
    from slimfront.spaces.build import file_hash

    return file_hash(folder / "model.onnx")


@pytest.mark.parametrize("damage", ["bundle.json", "check.npz"])
def test_a_damaged_bundle_is_one_clear_line(copy: Path, damage: str):
    (copy / damage).write_bytes((copy / damage).read_bytes()[:20])
    with pytest.raises(InputError, match="damaged"):
        verify(copy)


def test_a_run_whose_file_was_changed_does_not_ship(run: Run, tmp_path: Path):
    shutil.copytree(run.folder, tmp_path / "run")
    changed = Run(tmp_path / "run")
    chosen = changed.pick(prefer="size")
    path = changed.model_path(chosen)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(SlimfrontError, match="not the one that was measured"):
        changed.ship(chosen, tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_kept_samples_are_whole_batches(pictures: Callable):
    samples = Samples({"x": pictures(10, 0)}, pictures(10, 1))
    assert bundle.few_samples(samples, 1000, 1).count == bundle.CHECK_SAMPLES
    assert bundle.few_samples(samples, 1000, 3).count == 6
    assert bundle.few_samples(samples, 10**9, 2).count == 2


def test_samples_come_back_as_they_were(pictures: Callable, tmp_path: Path):
    samples = Samples({"x": pictures(2, 0), "scale": np.ones((2, 1), np.float32)}, pictures(2, 1), -1.0, 1.0)
    bundle.save_samples(tmp_path / "check.npz", samples, pictures(2, 2))
    back, outputs = bundle.load_samples(tmp_path / "check.npz")
    assert (back.low, back.high) == (-1.0, 1.0)
    for name, array in samples.inputs.items():
        np.testing.assert_array_equal(back.inputs[name], array)
    np.testing.assert_array_equal(back.target, samples.target)
    np.testing.assert_array_equal(outputs, pictures(2, 2))


@pytest.mark.parametrize(
    ("opset", "ir_version", "least"),
    [(17, 8, "1.22"), (21, 10, "1.22"), (21, 11, "1.23"), (25, 10, "1.24"), (99, 10, None)],
)
def test_least_runtime_is_the_newest_that_anything_needs(
    opset: int, ir_version: int, least: str | None, tmp_path: Path
):
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert bundle.model_format(tmp_path / "m.onnx").least_runtime == least
