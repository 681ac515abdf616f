"""A study for each runtime that is not the default one, from its file to a bundle that holds, and what is wrong in one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import slimfront as sf
from slimfront.search.evaluate import evaluate
from slimfront.search.polish import polish
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.errors import InputError
from slimfront.studies.bundle import read_bundle
from slimfront.studies.candidates import build_file
from slimfront.studies.definition import parse_settings
from slimfront.studies.describe import describe_space
from slimfront.studies.environment import current_environment
from slimfront.studies.explain import explain
from slimfront.studies.profile import profile
from slimfront.studies.records import read_records
from slimfront.studies.report import report
from slimfront.studies.run import Run
from slimfront.studies.verify import verify

from ..runners import TOKEN, running
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


ABOUT = {  # title, what runs it, what makes files for it, their suffix, weight bits of the test's that it stores
    "openvino": SimpleNamespace(title="OpenVINO", needs=("openvino",), suffix=".onnx", bits=[4, 8, 32]),
    "litert": SimpleNamespace(title="LiteRT", needs=("ai_edge_litert", "litert_torch"), suffix=".tflite", bits=[8, 32]),
    "executorch": SimpleNamespace(title="ExecuTorch", needs=("executorch",), suffix=".pte", bits=[8, 32]),
}
SHIPPED = pytest.mark.parametrize(  # processes that import a converter and PyTorch take long to start
    "runtime",
    ["openvino", *(pytest.param(name, marks=pytest.mark.slow) for name in ("litert", "executorch"))],
    indirect=True,
)
BITS = (4, 8, 32)
TRIALS = 5


class Interrupt:
    """A log that interrupts a search when so many trials are finished."""

    def __init__(self, after: int) -> None:
        self.left = after

    def begin(self, study, folder):
        pass

    def trial(self, trial, hypervolume):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt

    def end(self, run, whole):
        pass


def network():
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
    return Network()


def study_for(runtime: str, **more):
    random = np.random.default_rng(0)
    samples = [random.random((4, 3, 24, 24), np.float32) for _ in range(2)]
    return sf.Study(
        model=network(),
        calibration=samples[0],
        evaluation=samples[1],
        input_shape=(1, 3, 24, 24),
        weight_bits=BITS,
        pruning_ratios=(0.0, 0.5),
        sparsities=(0.0, 0.5),
        training={"steps": 4},
        runtime=runtime,
        **more,
    )


@pytest.fixture(scope="module", params=ABOUT)
def runtime(request):
    for module in ABOUT[request.param].needs:
        pytest.importorskip(module)
    return request.param


@pytest.fixture(scope="module")
def interrupted(runtime, tmp_path_factory):
    """A run that was interrupted, and went on; what had been recorded before that."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.raises(KeyboardInterrupt):
        sf.search(study_for(runtime), trials=TRIALS, run_dir=folder, logs=[Interrupt(3)])
    before = list(read_records(folder / "records.jsonl"))
    return sf.search(study_for(runtime), trials=TRIALS, run_dir=folder), before


@pytest.fixture(scope="module")
def run(interrupted):
    return interrupted[0]


def saved(text: str, constants: dict[str, np.ndarray], path: Path) -> Path:
    """Write a model in ONNX's text form, ``(inputs) => (outputs) { nodes }``, with its constants."""
    import onnx

    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 21]> g {text}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def onnx_model(tmp_path_factory):
    """Convolutions around an op that has no form in PyTorch here."""
    random = np.random.default_rng(0)
    text = (
        "(float[1,3,16,16] x) => (float[n,c,h,w] y) {\n"
        "[first] a = Conv<pads=[1,1,1,1]>(x, w)\n [warp] b = GridSample(a, g)\n [last] y = Conv<pads=[1,1,1,1]>(b, v) }"
    )
    shapes = {"w": (3, 3, 3, 3), "v": (3, 3, 3, 3), "g": (1, 16, 16, 2)}
    constants = {name: random.random(shape, np.float32) for name, shape in shapes.items()}
    return saved(text, constants, tmp_path_factory.mktemp("warped") / "warped.onnx")


def in_a_fresh_process(code: str, folder) -> str:
    """Run code in a folder, in a process that cannot import slimfront; return the last line that it prints."""
    hidden = "import sys; sys.modules['slimfront'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", hidden + code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_a_search_measures_all_it_says_on_the_runtime(run, runtime):
    assert run.front_trials()
    assert not [trial.reason for trial in run.trials if trial.state == "failed"]
    compressed = [trial for trial in run.trials if trial.measured and trial.number]
    assert all(trial.readings["agreement_db"].value > 30 for trial in compressed)
    assert all(trial.value("fidelity_db") > 10 for trial in compressed)
    assert all(about["runtime"].startswith(f"{ABOUT[runtime].title} ") for about in run.environments().values())
    assert not any("float_fallbacks" in t.readings and t.readings["float_fallbacks"].value for t in run.trials)


def test_a_run_that_was_interrupted_goes_on_and_files_made_again_are_the_same_bytes(interrupted, runtime):
    run, before = interrupted
    after = list(read_records(run.folder / "records.jsonl"))
    assert after[: len(before)] == before and run.count == TRIALS
    kept = {path.name for path in (run.folder / "models").iterdir()}
    assert kept >= {f"{trial.candidate.key}{ABOUT[runtime].suffix}" for trial in run.front_trials()}
    trial = run.pick(prefer="size")
    assert run.load().builder.build(trial.candidate).sha256 == trial.sha256


@pytest.fixture(scope="module")
def shipped(run, runtime, tmp_path_factory):
    """The folder of two bundles, of a copy of the run that was searched on until its front held two: timings decide when."""
    folder = tmp_path_factory.mktemp("shipped")
    shutil.copytree(run.folder, folder / "run")
    trials, copy = TRIALS, Run(folder / "run")
    while len([trial for trial in copy.front_trials() if trial.number]) < 2 and trials < 5 * TRIALS:
        trials += 1
        copy = sf.search(study_for(runtime), trials=trials, run_dir=folder / "run")
    return copy.ship_spread(2, folder / "several")


@SHIPPED
def test_a_bundle_says_how_it_is_run_and_holds(shipped, runtime):
    about = ABOUT[runtime]
    bundle = min(shipped.glob("trial-*"))
    card = (bundle / "card.md").read_text(encoding="utf-8")
    assert f"- {about.title} " in card and f"Measured with {about.title} " in card
    code = card.split("```python\n")[1].split("```")[0]
    assert in_a_fresh_process(f"{code}\nprint(tuple(output.shape))", bundle) == "(1, 3, 24, 24)"
    assert not failed(verify(bundle))
    facts = read_bundle(bundle)
    assert facts["runtime"] == runtime and (bundle / f"model{about.suffix}").is_file()


@SHIPPED
def test_the_loader_beside_several_bundles_runs(shipped, runtime):
    code = (
        "import numpy as np; from load import load\n"
        "model = load(milliseconds=1e6)\n"
        "print(model.run({'input': np.zeros((1, 3, 24, 24), np.float32)})[0].shape)"
    )
    assert in_a_fresh_process(code, shipped) == "(1, 3, 24, 24)"


def test_what_the_target_cannot_do_is_said_of_each_layer(run, runtime):
    about, space = ABOUT[runtime], describe_space(run.load())
    assert all(layer["sparsities"] == [0.0] for layer in space["layers"])
    assert all(layer["weight_bits"] == about.bits for layer in space["layers"])
    names = {layer["name"] for layer in space["layers"]}
    assert {item["name"] for item in space["frozen"] if "sparsity is 0" in item["reason"]} == names
    told = {item["name"] for item in space["frozen"] if "store no weights in 4 bits" in item["reason"]}
    assert told == (set() if 4 in about.bits else names)


def test_where_the_time_goes_is_explained(run):
    trial = max((trial for trial in run.trials if trial.measured), key=lambda trial: trial.value("speedup"))
    document = explain(run, trial)
    integer = {name for name, choice in trial.candidate.layers.items() if choice.integer}
    found = {row["name"] for row in document["layers"] if row["kernel"] == "integer"}
    rounded = {name for name, choice in trial.candidate.layers.items() if choice.rounded}
    assert (
        integer <= found <= rounded
    )  # between integer neighbours LiteRT runs what it stores in 8 bits in integers too


def test_a_reference_is_profiled_and_a_run_reported(run, tmp_path):
    study = run.load()
    layers = profile(study)["layers"]
    assert {layer["name"] for layer in layers} == set(study.graph.layers) and all(layer["ms"] > 0 for layer in layers)
    assert report(run, tmp_path / "report.html") == []


def test_what_is_trained_on_stays_as_small(run, runtime, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    copy = Run(tmp_path / "run")
    before = copy.pick(prefer="size")
    after, _ = polish(copy, before.number, steps=30)
    assert after.measured and after.readings["agreement_db"].value > 30
    assert abs(after.value("size_bytes") / before.value("size_bytes") - 1) < 0.05


def test_a_candidate_is_written_under_the_runtime_s_suffix(run, runtime, tmp_path):
    study = run.load()
    file = tmp_path / f"small{ABOUT[runtime].suffix}"
    build_file(study, Candidate({name: LayerChoice(8, 8) for name in study.graph.layers}), file)
    assert study.target.open(file).run(None, study.feed)[0].shape == (1, 3, 24, 24)


@pytest.mark.parametrize("runtime", ["litert"], indirect=True)
def test_a_run_on_a_device_is_measured_there(runtime, tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMFRONT_TOKEN", TOKEN)
    with running(tmp_path / "runner") as runner:
        run = sf.search(study_for(runtime, device=runner.address), trials=3, run_dir=tmp_path / "run")
        assert run.environment["runtime"] == runner.connection(runtime=runtime).facts["runtime"]
        assert run.reference.measured
        assert [trial.state for trial in run.trials if not (trial.measured or trial.predicted)] == []
        assert any(trial.measured for trial in run.trials[1:])


@pytest.mark.parametrize("runtime", ["litert", "executorch"], indirect=True)
def test_an_op_that_a_converter_lacks_is_named_before_anything_is_searched(runtime, onnx_model):
    """ONNX Runtime knows it."""
    rows = np.random.default_rng(0).random((4, 3, 16, 16), np.float32)
    study = sf.Study(onnx_model, rows, rows + 1, runtime=runtime)
    told = rf"target.runtime '{runtime}' does not take this model: no form in PyTorch for GridSample \(at the node 'warp'\)"
    with pytest.raises(InputError, match=f"{told}.*'onnxruntime'"):
        study.check()


@pytest.fixture(scope="module")
def words_model(tmp_path_factory):
    """Two inputs, whole numbers before their weights in a table; two outputs; a free number of samples."""
    random = np.random.default_rng(0)
    text = (
        "(float[N,8] noise, int64[N,3] digits) => (float[N,1,6,6] y, float[N,8] h) {\n"
        "t = Gather(table, digits)\n s = ReduceMean<keepdims=0>(t, axis)\n h = Add(s, noise)\n [grow] g = Gemm(h, w)\n"
        " r = Relu(g)\n p = Reshape(r, sides)\n [draw] y = Conv<pads=[1,1,1,1]>(p, v) }"
    )
    constants = {"axis": np.array([1]), "sides": np.array([-1, 4, 6, 6])}
    for name, shape in {"table": (10, 8), "w": (8, 144), "v": (1, 4, 3, 3)}.items():
        constants[name] = random.standard_normal(shape).astype(np.float32) / 3
    return saved(text, constants, tmp_path_factory.mktemp("words") / "words.onnx")


def samples_of_words(seed: int):
    random = np.random.default_rng(seed)
    return {"noise": random.standard_normal((5, 8)).astype(np.float32), "digits": random.integers(0, 10, (5, 3))}


def test_whole_numbers_several_inputs_and_a_free_number_of_samples(runtime, words_model):
    """Five samples in batches of two: the last one is filled up."""
    study = sf.Study(
        words_model,
        samples_of_words(1),
        samples_of_words(2),
        input_shape={"noise": (2, 8), "digits": (2, 3)},
        range=(-2.0, 2.0),
        runtime=runtime,
    )
    candidates = [Candidate(), Candidate(dict.fromkeys(study.graph.layers, LayerChoice(8, 8)))]
    reference, integer = evaluate(study, candidates)
    assert reference["fidelity_db"] > 80 and integer["fidelity_db"] > 30


@pytest.mark.parametrize("runtime", ["litert", "executorch"], indirect=True)
def test_a_converter_that_is_not_installed_is_named_before_anything_is_searched(runtime, words_model, monkeypatch):
    """Running files needs none of it."""
    monkeypatch.setitem(sys.modules, {"litert": "litert_torch", "executorch": "executorch.exir"}[runtime], None)
    shape = {"noise": (3, 8), "digits": (3, 3)}
    study = sf.Study(words_model, samples_of_words(1), samples_of_words(2), input_shape=shape, runtime=runtime)
    with pytest.raises(InputError, match=rf'pip install "slimfront\[{runtime}\]"'):
        study.check()
