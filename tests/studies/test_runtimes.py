"""A study for OpenVINO from its file to a bundle that holds, and what is wrong in one."""

from __future__ import annotations

import json

import numpy as np
import pytest

import slimfront as sf
from slimfront.spaces.errors import InputError
from slimfront.studies.definition import parse_settings
from slimfront.studies.describe import describe_space
from slimfront.studies.environment import current_environment
from slimfront.studies.verify import verify

from ..verified import failed

STUDY = {"name": "s", "model": {"file": "m.onnx"}, "data": {"calibration": "c.npz", "evaluation": "e.npz"}}


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (
            {"runtime": "openvno"},
            "target.runtime must be one of onnxruntime, openvino, litert, executorch, but got 'openvno'.*openvino",
        ),
        ({"runtime": "tflite"}, "target.runtime must be one of .*litert, .* got 'tflite'"),
        (
            {"runtime": "openvino", "provider": "CUDAExecutionProvider"},
            "provider 'CUDAExecutionProvider' is ONNX Runtime's",
        ),
    ],
)
def test_a_wrong_target_is_named(table, told):
    with pytest.raises(InputError, match=told):
        parse_settings({**STUDY, "target": table})


def test_studies_without_a_runtime_are_what_they_were():
    plain, told = (parse_settings({**STUDY, "target": table}) for table in ({}, {"runtime": "onnxruntime"}))
    assert (
        plain.target.defined
        == told.target.defined
        == {
            "provider": "CPUExecutionProvider",
            "threads": 1,
            "saturation_safe": False,
        }
    )
    assert "runtime" not in current_environment("CPUExecutionProvider", 1).to_json()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short search for OpenVINO; free height and width."""
    pytest.importorskip("openvino")
    import torch

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Conv2d(3, 16, 3, padding=1)
            self.second = torch.nn.Conv2d(16, 16, 3, padding=1)
            self.last = torch.nn.Conv2d(16, 3, 3, padding=1)

        def forward(self, x):
            found = torch.relu(self.first(x))
            return torch.sigmoid(self.last(torch.relu(self.second(found)) + found))

    torch.manual_seed(0)
    random = np.random.default_rng(0)
    samples = [random.random((4, 3, 24, 24), np.float32) for _ in range(2)]
    study = sf.Study(
        model=Network(),
        calibration=samples[0],
        evaluation=samples[1],
        input_shape=(1, 3, 24, 24),
        weight_bits=(4, 8, 32),
        pruning_ratios=(0.0, 0.5),
        sparsities=(0.0, 0.5),
        runtime="openvino",
    )
    return sf.search(study, trials=8, run_dir=tmp_path_factory.mktemp("runs") / "run")


def test_a_search_measures_all_it_says_on_the_runtime(run):
    front = run.front()
    assert len(front) >= 2
    trial = next(trial for trial in run.trials if trial.measured and trial.number)
    assert trial.readings["agreement_db"].value > 30
    assert all(about["runtime"].startswith("OpenVINO ") for about in run.environments().values())
    assert not any("float_fallbacks" in t.readings and t.readings["float_fallbacks"].value for t in run.trials)


def test_a_bundle_says_how_it_is_run_and_holds(run, tmp_path):
    chosen = run.pick(prefer="size")
    bundle = run.ship(chosen, tmp_path / "bundle")
    card = (tmp_path / "bundle" / "card.md").read_text(encoding="utf-8")
    assert "import numpy as np, openvino as ov" in card and "- OpenVINO " in card and "Measured with OpenVINO " in card
    code = card.split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(code.replace('"model.onnx"', repr(str(tmp_path / "bundle" / "model.onnx"))), names)
    assert names["output"].shape == (1, 3, 24, 24)
    document = verify(bundle)
    assert not failed(document)
    facts = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    assert facts["runtime"] == "openvino"


def test_what_the_target_cannot_do_is_said_of_each_layer(run):
    space = describe_space(run.load())
    assert all(layer["sparsities"] == [0.0] for layer in space["layers"])
    told = {item["name"] for item in space["frozen"] if "sparsity is 0" in item["reason"]}
    assert told == {layer["name"] for layer in space["layers"]}


def test_where_the_time_goes_is_explained(run):
    from slimfront.studies.explain import explain

    trial = max((trial for trial in run.trials if trial.measured), key=lambda trial: trial.value("speedup"))
    document = explain(run, trial)
    integer = {name for name, choice in trial.candidate.layers.items() if choice.integer}
    assert {row["name"] for row in document["layers"] if row["kernel"] == "integer"} == integer
