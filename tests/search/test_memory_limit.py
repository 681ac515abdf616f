"""A search within a limit of memory, on a network whose tensors are most of what it takes."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest

from slimfront.objectives.memory import Memory
from slimfront.search.loop import search
from slimfront.search.memory_gate import SURE, MemoryGate
from slimfront.search.propose import propose
from slimfront.spaces.candidate import Candidate
from slimfront.spaces.errors import InputError
from slimfront.studies.profile import profile
from slimfront.studies.study import load_study

SIDE, CHANNELS = 96, 64
LIMIT = 7_500_000  # the reference takes twice as much; with a half of its channels it keeps that


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A study of three convolutions with tensors of 2.4 MB, limited to `LIMIT`."""
    import onnx
    from onnx import numpy_helper

    monkeypatch.setattr(Memory.__init__, "__defaults__", (2,))
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 21]> g (float[1,3,{SIDE},{SIDE}] x) => (float[n,c,h,w] y) {{\n'
        "[a] p = Conv<pads=[1,1,1,1]>(x, wa) r = Relu(p) [b] q = Conv<pads=[1,1,1,1]>(r, wb) s = Relu(q)\n"
        "[c] y = Conv<pads=[1,1,1,1]>(s, wc) }"
    )
    random = np.random.default_rng(0)
    for name, shape in {"wa": (CHANNELS, 3), "wb": (CHANNELS, CHANNELS), "wc": (3, CHANNELS)}.items():
        values = random.standard_normal((*shape, 3, 3)).astype(np.float32) / np.float32(3.0 * shape[1] ** 0.5)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    onnx.save(onnx.shape_inference.infer_shapes(model), tmp_path / "model.onnx")
    for name in ("calibration", "evaluation"):
        np.savez(tmp_path / f"{name}.npz", input=random.random((2, 3, SIDE, SIDE), dtype=np.float32))
    (tmp_path / "study.toml").write_text(
        'name = "limited"\n[model]\nfile = "model.onnx"\n'
        '[data]\ncalibration = "calibration.npz"\nevaluation = "evaluation.npz"\n'
        f"[space]\nweight_bits = [8, 32]\npruning_ratios = [0.0, 0.5]\n[constraints]\nmax_memory = {LIMIT}\n"
        '[search]\ntrials = 6\nsampler = "random"\n'
    )
    return tmp_path


def test_what_surely_needs_too_much_is_not_proposed_and_all_others_are_measured(folder):
    run = search(load_study(folder), run_dir=folder / "run")
    proposed = [trial for trial in run.trials if not trial.label]
    assert proposed
    assert all(trial.value("predicted_memory_bytes") <= SURE * LIMIT for trial in proposed)
    assert run.reference.value("memory_bytes") > LIMIT
    assert run.violation(run.reference) == pytest.approx(run.reference.value("memory_bytes") / LIMIT - 1.0)
    assert all("memory" in trial.stages for trial in run.trials if trial.measured)
    chosen = run.pick(prefer="psnr")
    assert chosen.value("memory_bytes") <= LIMIT < run.reference.value("memory_bytes")
    row = json.loads(json.dumps(run.to_json()))["reference"]
    assert row["memory_bytes"] == int(run.reference.value("memory_bytes"))
    assert row["predicted_memory_bytes"] == pytest.approx(row["memory_bytes"], rel=0.15)
    with pytest.raises(InputError, match="no measured candidate keeps peak memory at most 1,000,000 bytes"):
        run.pick(max_memory="1MB")


def test_a_study_without_the_limit_measures_no_memory_and_refuses_nothing(folder):
    text = (folder / "study.toml").read_text()
    (folder / "study.toml").write_text(text.replace(f"[constraints]\nmax_memory = {LIMIT}\n", ""))
    study = load_study(folder)
    run = search(study, trials=2, run_dir=folder / "run")
    assert not any("memory" in trial.stages for trial in run.trials)
    for ask in (run.pick, partial(propose, run)):
        with pytest.raises(InputError, match="max_memory cannot be kept"):
            ask(max_memory="1GB")
    assert len(run.trials) == 2
    gate = MemoryGate(study)
    assert gate.passed([Candidate()]) == [Candidate()]
    assert gate.refused == []


def test_the_profile_says_which_layers_hold_memory_and_what_compressing_them_saves(folder):
    study = load_study(folder)
    memory = profile(study)["memory"]
    assert memory["peak_bytes"] == max(memory["loading_bytes"], memory["running_bytes"])
    tensor = 4 * CHANNELS * SIDE**2
    assert [each["bytes"] for each in memory["alive"]][:2] == [tensor, tensor]
    assert [each["by"] for each in memory["alive"]][:2] in (["a", "b"], ["b", "a"])
    assert memory["live_bytes"] == sum(each["bytes"] for each in memory["alive"])
    layers = memory["layers"]
    assert set(layers) == set(study.graph.layers)
    assert layers["b"]["weight_bytes"] >= 4 * 9 * CHANNELS**2
    assert layers["a"]["alive_bytes"] == layers["b"]["alive_bytes"] == tensor
    saved = {name: row["saved_bytes"] for name, row in memory["groups"].items()}
    assert len(saved) == 2
    assert all(value > 0 for value in saved.values())
