"""Every verb of the command line through its JSON, and its exit status."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest

from slimfront import cli
from slimfront.spaces.errors import BuildError

from .verified import failed

VERBS = (
    "studies",
    "init",
    "space",
    "profile",
    "search",
    "front",
    "report",
    "pick",
    "explain",
    "ship",
    "verify",
    "build",
    "evaluate",
    "predict",
    "runner",
)
CANDIDATE_KEYS = {
    "trial",
    "candidate",
    "sha256",
    "size_bytes",
    "speedup",
    "speedup_low",
    "speedup_high",
    "latency_ms",
    "latency_low_ms",
    "latency_high_ms",
    "predicted_speedup",
    "psnr_db",
    "fidelity_db",
    "ssim",
    "worst_psnr_db",
}
TRIALS = 9


class Done(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        def refuse(name: str) -> None:
            raise AssertionError(f"{name} in JSON")

        return json.loads(self.out, parse_constant=refuse)


Cli = Callable[..., Done]


def call(capture: Any, *arguments: object) -> Done:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["slimfront", *map(str, arguments)])
        capture.readouterr()
        status: Any = 0
        try:
            cli.main()
        except SystemExit as end:
            status = end.code or 0
        out, err = capture.readouterr()
    return Done(status, out, err)


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return lambda *arguments: call(capsys, *arguments)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, pictures: Callable) -> Path:
    """A study of the tiny model; its targets are the reference's outputs and a little noise."""
    import onnxruntime as ort

    folder = tmp_path_factory.mktemp("cli study")
    session = ort.InferenceSession(tiny_model, providers=["CPUExecutionProvider"])
    (folder / "tiny.onnx").write_bytes(tiny_model.read_bytes())
    np.savez(folder / "calibration.npz", input=pictures(4, 1))
    for name, seed in (("evaluation", 2), ("test", 3)):
        inputs = pictures(3, seed)
        outputs = np.concatenate([session.run(None, {"x": one[None]})[0] for one in inputs])
        noisy = np.clip(outputs + np.random.default_rng(seed).normal(0, 0.02, outputs.shape), 0, 1)
        np.savez(folder / f"{name}.npz", input=inputs, target=np.round(255 * noisy).astype(np.uint8))
    (folder / "study.toml").write_text(
        'name = "tiny"\n[model]\nfile = "tiny.onnx"\n'
        '[data]\ncalibration = "calibration.npz"\nevaluation = "evaluation.npz"\ntest = "test.npz"\n'
        f'[search]\ntrials = {TRIALS}\nsampler = "random"\n'
    )
    return folder


@pytest.fixture(scope="module")
def run(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli run") / "run"
    command = [sys.executable, "-m", "slimfront.cli", "search", str(study), "--run", str(folder), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{TRIALS}/{TRIALS}" in done.stderr
    assert json.loads(done.stdout)["front"]
    return folder


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_shows_an_example(verb: str, run_cli: Cli):
    done = run_cli(verb, "--help")
    assert done.status == 0
    assert f"Example: slimfront {verb}" in done.out


def test_version_is_one_line(run_cli: Cli):
    done = run_cli("--version")
    assert done.status == 0
    assert len(done.out.split()) == 1


def test_studies_lists_the_ready_made_one(run_cli: Cli):
    assert "painting" in [study["name"] for study in run_cli("studies", "--json").json]


def test_init_writes_a_study_that_works_and_never_overwrites(run_cli: Cli, study: Path, tmp_path: Path):
    file = tmp_path / "made.toml"
    done = run_cli("init", study / "tiny.onnx", "--data", study, "-o", file, "--json")
    assert (done.status, done.json) == (0, {"file": str(file), "todo": []})
    assert run_cli("space", file, "--json").status == 0
    before = file.read_text()
    again = run_cli("init", study / "tiny.onnx", "-o", file)
    assert (again.status, file.read_text()) == (2, before)


def test_space_tells_layers_and_choices(run_cli: Cli, study: Path):
    space = run_cli("space", study, "--json").json
    assert [layer["name"] for layer in space["layers"]] == ["conv0", "conv1", "conv2"]
    keys = {"name", "op", "parameters", "weight_bits", "activation_bits", "sparsities", "forms"}
    assert set(space["layers"][0]) == keys
    assert space["layers"][0]["parameters"] == 16 * 3 * 9 + 16
    assert space["layers"][0]["weight_bits"] == [2, 3, 4, 5, 6, 8, 32]
    assert [set(group) for group in space["groups"]] == [{"name", "channels", "layers", "pruning_ratios"}] * 2
    assert [(group["name"], group["channels"], group["layers"]) for group in space["groups"]] == [
        ("conv0", 16, ["conv0", "conv1"]),
        ("conv1", 16, ["conv1", "conv2"]),
    ]
    frozen = {item["name"]: item["reason"] for item in space["frozen"]}
    assert "output of the model" in frozen["conv2"]
    for group in space["groups"]:
        assert (group["name"] in frozen) == (len(group["pruning_ratios"]) == 1)


def test_profile_shares_add_up(run_cli: Cli, study: Path):
    profile = run_cli("profile", study, "--json").json
    assert {layer["name"] for layer in profile["layers"]} == {"conv0", "conv1", "conv2"}
    shares = [layer["share"] for layer in profile["layers"]]
    assert shares == sorted(shares, reverse=True)
    assert all(share > 0 for share in shares)
    assert math.isclose(sum(shares) + profile["other"]["share"], 1.0, abs_tol=0.05)
    for layer in profile["layers"]:
        curve = [layer["weight_bits_db"][str(bits)] for bits in (2, 3, 4, 5, 6, 8)]
        assert curve == sorted(curve)
    assert [group["name"] for group in profile["groups"]] == ["conv0", "conv1"]


def test_search_again_finds_everything_done(run_cli: Cli, study: Path, run: Path):
    before = (run / "records.jsonl").read_bytes()
    done = run_cli("search", study, "--run", run, "--json", "--quiet")
    assert (done.status, done.err) == (0, "")
    assert done.json["run"] == str(run)
    assert (run / "records.jsonl").read_bytes() == before


def test_search_refuses_a_changed_study_and_shows_the_difference(run_cli: Cli, study: Path, run: Path, tmp_path: Path):
    for file in study.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "study.toml").write_text((study / "study.toml").read_text() + "[space]\nweight_bits = [4, 8]\n")
    done = run_cli("search", tmp_path, "--run", run)
    assert done.status == 2
    assert "space.weight_bits" in done.err


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("tiny.onnx", "the model, its weights or its input shape (model.file 'tiny.onnx') changed: "),
        ("calibration.npz", "the calibration data (data.calibration 'calibration.npz') changed: 4 samples, "),
        ("evaluation.npz", "the inputs of the evaluation data (data.evaluation 'evaluation.npz') changed: 3 samples, "),
        (
            "evaluation.npz",
            "the targets of the evaluation data (data.evaluation 'evaluation.npz') changed: 3 samples, ",
        ),
    ],
)
def test_search_says_in_words_which_file_changed(
    file: str, told: str, run_cli: Cli, study: Path, run: Path, tmp_path: Path
):
    for path in study.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    if file.endswith(".npz"):
        with np.load(study / file) as stored:
            np.savez(tmp_path / file, **{name: array // 2 for name, array in stored.items()})
    else:
        model = onnx.load(study / file)
        model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
        onnx.save(model, tmp_path / file)
    done = run_cli("search", tmp_path, "--run", run)
    assert done.status == 2
    assert told in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "STUDY", "--run", "STUDY/run", "--trials", "1"],
        ["evaluate", "STUDY", "--uniform", "weight_bits=32"],
        ["build", "STUDY", "--uniform", "weight_bits=32", "-o", "STUDY/m.onnx"],
        ["profile", "STUDY"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_was_done_to_images_is_told_unless_quiet(arguments: list[str], run_cli: Cli, study_folder: Path):
    from PIL import Image

    (study_folder / "photos").mkdir()
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (16, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(study_folder / "photos" / f"{seed}.png")
    text = (study_folder / "study.toml").read_text()
    (study_folder / "study.toml").write_text(text.replace('"calibration.npz"', '"photos"'))
    given = [part.replace("STUDY", str(study_folder)) for part in arguments]
    told = "data.calibration: 2 of 2 images are larger than the model's input; their middle is taken"
    done = run_cli(*given, "--json")
    assert done.status == 0
    assert done.err.splitlines().count(told) == 1
    assert run_cli(*given, "--quiet").err == ""


def test_front_holds_the_contract(run_cli: Cli, run: Path):
    document = run_cli("front", run, "--json").json
    assert set(document) == {"study", "reference", "hypervolume", "front", "search"}
    assert set(document["reference"]) == CANDIDATE_KEYS
    assert all(set(row) == CANDIDATE_KEYS | {"front_probability"} for row in document["front"])
    assert all(0 <= row["front_probability"] <= 1 for row in document["front"])
    assert 0 <= document["hypervolume"] <= 1


def test_front_of_all_tells_state_reason_and_stages(run_cli: Cli, run: Path):
    trials = run_cli("front", run, "--all", "--json").json["trials"]
    assert len(trials) == TRIALS
    assert all(set(row) == CANDIDATE_KEYS | {"state", "reason", "stages"} for row in trials)


def test_front_writes_tables(run_cli: Cli, run: Path, tmp_path: Path):
    import pandas as pd

    csv, parquet = tmp_path / "front.csv", tmp_path / "front.parquet"
    pytest.importorskip("pyarrow")
    done = run_cli("front", run, "--all", "--csv", csv, "--parquet", parquet, "--json")
    numbers = [row["size_bytes"] for row in done.json["trials"]]
    assert pd.read_csv(csv)["size_bytes"].tolist() == numbers
    assert pd.read_parquet(parquet)["size_bytes"].tolist() == numbers


def test_front_without_pyarrow_says_what_to_install(run_cli: Cli, run: Path, tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = run_cli("front", run, "--parquet", tmp_path / "front.parquet")
    assert done.status == 2
    assert "pip install pyarrow" in done.err


def test_tables_without_json_are_for_people(run_cli: Cli, run: Path, study: Path):
    for arguments in (("front", run, "--all"), ("pick", run), ("space", study), ("profile", study), ("studies",)):
        done = run_cli(*arguments, "--quiet")
        assert (done.status, done.err) == (0, "")
        assert len(done.out.splitlines()) > 1


def test_report_writes_a_page(run_cli: Cli, run: Path, tmp_path: Path):
    page = tmp_path / "report.html"
    done = run_cli("report", run, "-o", page, "--json")
    assert (done.status, done.json["notes"]) == (0, [])
    assert page.read_text().startswith("<!doctype html>")


def test_pick_keeps_the_limits(run_cli: Cli, run: Path):
    reference = run_cli("front", run, "--json").json["reference"]
    limit = reference["size_bytes"] // 2
    row = run_cli("pick", run, "--max-size", limit, "--prefer", "psnr", "--json").json
    assert set(row) == CANDIDATE_KEYS
    assert row["size_bytes"] <= limit


def test_pick_proposes_what_was_never_measured(run_cli: Cli, run: Path, tmp_path: Path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    limit = int(run_cli("front", run, "--json").json["reference"]["size_bytes"] * 0.6)
    measured = run_cli("pick", copy, "--max-size", limit, "--prefer", "psnr", "--json").json
    done = run_cli("pick", copy, "--max-size", limit, "--prefer", "psnr", "--propose", "--json")
    assert set(done.json) == CANDIDATE_KEYS
    assert done.json["size_bytes"] <= limit
    assert done.json["psnr_db"] >= measured["psnr_db"]
    if done.json["trial"] >= TRIALS:
        assert f"proposed trial {done.json['trial']}" in done.err
    assert run_cli("pick", copy, "--max-size", limit, "--prefer", "psnr", "--json").json == done.json


def test_pick_asks_for_what_people_prefer(run_cli: Cli, run: Path, tmp_path: Path):
    from slimfront.studies.review import Judgement, Review
    from slimfront.studies.run import Run

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    done = run_cli("pick", copy, "--min-preference", 0.4)
    assert done.status == 2 and "slimfront board --judge" in done.err
    read = Run(copy)
    liked, other = [trial for trial in read.front_trials() if trial.number][:2]
    for trial, better in ((liked, "left"), (other, "right")):
        sides = {"left": trial.candidate.key, "right": read.reference.candidate.key}
        one = Judgement(who="", when="", session="", image=0, better=better, **sides)
        Review(copy).add(*[one] * 10)
    for prefer in ("size", "latency"):
        done = run_cli("pick", copy, "--min-preference", 0.6, "--prefer", prefer, "--json")
        assert done.json["trial"] == liked.number
    assert "comes closest" in run_cli("pick", copy, "--min-preference", 0.999).err
    assert run_cli("pick", copy, "--min-preference", 40).status == 2
    assert run_cli("pick", copy, "--min-preference", 0.4, "--propose").status == 2


def test_ship_keeps_the_reason_in_the_run_and_in_the_card(run_cli: Cli, run: Path, tmp_path: Path):
    from slimfront.studies.review import Review

    copy, bundle = tmp_path / "run", tmp_path / "bundle"
    shutil.copytree(run, copy)
    row = run_cli("ship", copy, "--prefer", "size", "--why", "small | enough", "-o", bundle, "--json").json
    (decision,) = Review(copy).decisions
    assert (decision.trial, decision.text, decision.bundle) == (row["trial"], "small | enough", str(bundle))
    assert "small \\| enough" in (bundle / "card.md").read_text(encoding="utf-8")


def test_board_of_what_is_no_run_is_told_in_a_line(run_cli: Cli, tmp_path: Path):
    for folder, text in ((tmp_path, "is neither a run nor a folder of runs"), (tmp_path / "none", "does not exist")):
        done = run_cli("board", folder)
        assert (done.status, done.out) == (2, "") and text in done.err
        assert len(done.err.strip().splitlines()) == 1


def test_explain_tells_of_each_layer_where_its_time_goes(run_cli: Cli, run: Path):
    done = run_cli("explain", run, "--trial", 1, "--json", "--quiet")
    assert (done.status, done.err) == (0, "")
    assert done.json["trial"] == 1
    assert {layer["name"] for layer in done.json["layers"]} == {"conv0", "conv1", "conv2"}
    table = run_cli("explain", run, "--trial", 1, "--quiet")
    assert (table.status, table.err) == (0, "")
    assert all(name in table.out for name in ("conv0", "conv1", "conv2", "the whole model"))


def test_explain_of_a_trial_that_is_not_there_names_those_that_are(run_cli: Cli, run: Path):
    done = run_cli("explain", run, "--trial", 99)
    assert (done.status, done.out) == (2, "")
    assert f"it has trials 0 to {TRIALS - 1}" in done.err
    assert len(done.err.splitlines()) == 1


def test_pick_says_what_comes_closest_where_nothing_fits(run_cli: Cli, run: Path):
    done = run_cli("pick", run, "--max-size", "1B")
    assert (done.status, done.out) == (2, "")
    assert "closest" in done.err
    assert len(done.err.splitlines()) == 1


def test_ship_then_verify_then_a_damaged_file(run_cli: Cli, run: Path, tmp_path: Path):
    bundle = tmp_path / "new" / "bundle"
    chosen = run_cli("pick", run, "--prefer", "size", "--json").json
    row = run_cli("ship", run, "--prefer", "size", "-o", bundle, "--json").json
    assert set(row) == CANDIDATE_KEYS | {"reference", "test"}
    assert (row["trial"], row["sha256"]) == (chosen["trial"], chosen["sha256"])
    assert row["psnr_db"] == pytest.approx(chosen["psnr_db"], abs=1e-6)

    verified = run_cli("verify", bundle, "--json")
    checks = {check["name"] for check in verified.json["checks"]}
    assert {
        "candidate",
        "sha256",
        "runs",
        "outputs",
        "psnr_db, evaluation data",
        "psnr_db, test data",
        "speedup",
    } == checks - {
        "ssim, evaluation data",
        "ssim, test data",
    }
    assert not failed(verified.json)

    model = bundle / "model.onnx"
    model.write_bytes(model.read_bytes() + b"\0")
    damaged = run_cli("verify", bundle, "--json")
    assert damaged.status == 1
    assert damaged.json["failed"] == ["sha256"]
    assert "sha256" in damaged.err


def test_several_are_shipped_and_verified_and_wrong_flags_are_refused(run_cli: Cli, run: Path, tmp_path: Path):
    refused = run_cli("ship", run, "--bundle", 2, "--trial", 1, "-o", tmp_path / "several")
    assert (refused.status, refused.out) == (2, "")
    assert "leave --trial" in refused.err
    members = run_cli("ship", run, "--bundle", 2, "-o", tmp_path / "several", "--json").json["members"]
    assert [set(row) for row in members] == [CANDIDATE_KEYS | {"reference", "test"}] * 2
    assert len({row["sha256"] for row in members}) == 2
    assert not failed(run_cli("verify", tmp_path / "several", "--json").json)


def test_ship_refuses_a_folder_that_holds_something(run_cli: Cli, run: Path, tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    done = run_cli("ship", run, "--trial", 1, "-o", tmp_path)
    assert done.status == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_ship_takes_a_number_or_limits(run_cli: Cli, run: Path, tmp_path: Path):
    done = run_cli("ship", run, "--trial", 1, "--max-size", "1MB", "-o", tmp_path / "bundle")
    assert done.status == 2
    assert "not both" in done.err


def test_build_writes_what_evaluate_measures(run_cli: Cli, study: Path, tmp_path: Path):
    uniform = "weight_bits=4,activation_bits=8"
    built = run_cli("build", study, "--uniform", uniform, "-o", tmp_path / "small.onnx", "--json").json
    assert (tmp_path / "small.onnx").stat().st_size == built["size_bytes"]
    (tmp_path / "candidate.json").write_text(json.dumps(built["candidate"]))
    rows = run_cli("evaluate", study, tmp_path / "candidate.json", tmp_path / "candidate.json", "--json").json
    assert [row["sha256"] for row in rows] == [built["sha256"]] * 2
    assert all(set(row) == CANDIDATE_KEYS for row in rows)
    assert {path.name for path in tmp_path.iterdir()} == {"small.onnx", "candidate.json"}


def test_a_module_of_several_inputs_is_measured(run_cli: Cli, tmp_path: Path):
    (tmp_path / "model.py").write_text(
        "import torch\n"
        "class Styled(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.first, self.last = torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.Conv2d(16, 3, 3, padding=1)\n"
        "        self.scale = torch.nn.Linear(8, 16)\n"
        "    def forward(self, image, style):\n"
        "        return self.last(self.first(image).relu() * self.scale(style)[:, :, None, None])\n"
    )
    (tmp_path / "study.toml").write_text(
        'name = "styled"\n[model]\nfile = "model.py:Styled"\n'
        "input_shape = { image = [1, 3, 16, 16], style = [1, 8] }\n"
        '[data]\ncalibration = "calibration.npz"\nevaluation = "evaluation.npz"\n'
    )
    for seed, name in enumerate(("calibration", "evaluation")):
        random = np.random.default_rng(seed)
        image, style = random.random((4, 3, 16, 16), np.float32), random.random((4, 8), np.float32)
        target = np.zeros((4, 3, 16, 16), np.uint8)
        np.savez(tmp_path / f"{name}.npz", image=image, style=style, target=target)
    done = run_cli("evaluate", tmp_path, "--uniform", "weight_bits=8,activation_bits=8", "--json")
    assert done.status == 0, done.err
    assert done.json[0]["fidelity_db"] > 30


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["frnt"], "front"),
        (["search"], "STUDY"),
        (["search", "paintin"], "painting"),
        (["search", "painting", "--trials", "many"], "--trials"),
        (["front", "nowhere"], "nowhere"),
        (["pick", "nowhere", "--prefer", "beauty"], "nowhere"),
        (["explain", "nowhere", "--trial", "1"], "nowhere"),
        (["explain", "nowhere"], "--trial"),
        (["verify", "nowhere"], "nowhere"),
        (["init", "nowhere.onnx", "-o", "study.toml"], "nowhere.onnx"),
        (["build", "painting", "-o", "x.onnx"], "--uniform"),
        (["build", "painting", "--uniform", "", "-o", "x.onnx"], "--uniform needs values"),
        (["evaluate", "painting", "nowhere.json"], "nowhere.json"),
    ],
)
def test_wrong_input_ends_with_2_and_names_it(arguments: list[str], told: str, run_cli: Cli, tmp_path: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        done = run_cli(*arguments)
    assert (done.status, done.out) == (2, "")
    assert told in done.err
    assert len(done.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.fixture
def closed_folder(tmp_path: Path) -> Path:
    """A folder that this user, root included, cannot write to."""
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o500)
    return folder if os.geteuid() else Path("/sys")


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "RUN", "-o"],
        ["front", "RUN", "--csv"],
        ["front", "RUN", "--parquet"],
        ["ship", "RUN", "--trial", "0", "-o"],
        ["build", "STUDY", "--uniform", "weight_bits=4", "-o"],
        ["init", "STUDY/tiny.onnx", "-o"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_place_that_cannot_be_written_is_told_before_the_work(
    arguments: list[str], run_cli: Cli, study: Path, run: Path, tmp_path: Path, closed_folder: Path, monkeypatch: Any
):
    def begin(*_: object) -> None:
        raise AssertionError("the work has begun")

    for work in ("run.Run.load", "run.Run.to_json", "study.Study.check", "init.read_inputs"):
        monkeypatch.setattr(f"slimfront.studies.{work}", begin)
    (tmp_path / "file").write_text("mine")
    places = [closed_folder / "result", tmp_path / "file" / "result"]
    if arguments[0] == "ship":  # makes the folders it needs
        places.append(tmp_path / "file")
    else:
        places += [tmp_path / "none" / "result", tmp_path]
    given = [part.replace("RUN", str(run)).replace("STUDY", str(study)) for part in arguments]
    before = sorted(tmp_path.rglob("*"))
    for place in places:
        done = run_cli(*given, place)
        assert (done.status, done.out) == (2, "")
        assert len(done.err.splitlines()) == 1
        assert str(place) in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failure_ends_with_1(run_cli: Cli, study: Path, monkeypatch: Any):
    def fail(*_: object) -> None:
        raise BuildError("it does not run")

    monkeypatch.setattr("slimfront.search.evaluate.evaluate", fail)
    done = run_cli("evaluate", study, "--uniform", "weight_bits=4")
    assert (done.status, done.err.splitlines()[-1]) == (1, "slimfront: it does not run")


def test_an_interrupt_ends_with_130(run_cli: Cli, study: Path, monkeypatch: Any):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("slimfront.search.loop.search", interrupt)
    done = run_cli("search", study)
    assert done.status == 130
    assert "kept" in done.err


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_continues(study: Path, tmp_path: Path):
    command = [sys.executable, "-m", "slimfront.cli", "search", str(study), "--run", str(tmp_path / "run"), "--json"]

    def heeds_interrupts() -> None:
        """Where the tests run in the background, what they start ignores interrupts."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(
        [*command, "--trials", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeds_interrupts,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    while not process.stderr.readline().startswith("3/60"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    err = process.stderr.read()
    assert (process.wait(), process.stdout.read()) == (130, "")
    assert "Traceback" not in err
    kept = (tmp_path / "run" / "records.jsonl").read_bytes()
    done = subprocess.run([*command, "--trials", "3"], capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)["front"]) >= 1
    assert (tmp_path / "run" / "records.jsonl").read_bytes().startswith(kept)


def test_a_broken_pipe_is_quiet(run: Path):
    command = [sys.executable, "-m", "slimfront.cli", "front", str(run), "--all", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.wait()


@pytest.fixture
def short_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    from slimfront.studies import predict

    monkeypatch.setattr(predict, "CALIBRATION_SECONDS", 0.2)


@pytest.mark.usefixtures("short_calibration")
def test_predict_gives_each_candidate_s_speedup_with_its_interval(run_cli: Cli, study: Path, tmp_path: Path):
    own = tmp_path / "own.json"
    own.write_text('{"layers": {"conv1": {"weight_bits": 4, "activation_bits": 8}}}')
    nothing = tmp_path / "nothing.json"
    nothing.write_text("{}")
    done = run_cli("predict", study, own, nothing, "--json")
    assert done.status == 0, done.err
    keys = ["predicted_speedup", "predicted_speedup_low", "predicted_speedup_high", "predicted_latency_ms"]
    assert [list(row) for row in done.json] == [["candidate", *keys]] * 2
    mine, reference = done.json
    assert mine["candidate"]["layers"] == {"conv1": {"weight_bits": 4, "activation_bits": 8}}
    assert mine["predicted_speedup_low"] <= mine["predicted_speedup"] <= mine["predicted_speedup_high"]
    assert [reference[key] for key in keys[:3]] == [1.0, 1.0, 1.0]
    table = run_cli("predict", study, own).out
    assert "90 %" in table and "×" in table


@pytest.mark.parametrize(
    ("text", "about"),
    [
        ('{"layers": {"conv9": {"weight_bits": 8}}}', "conv9"),
        ('{"layers": {"conv1": {"weight_bits": 9}}}', "9"),
        ("{", "JSON"),
    ],
)
def test_predict_refuses_a_wrong_candidate(text: str, about: str, run_cli: Cli, study: Path, tmp_path: Path):
    file = tmp_path / "wrong.json"
    file.write_text(text)
    done = run_cli("predict", study, file)
    assert (done.status, about in done.err) == (2, True), done.err
    assert "Traceback" not in done.err


@pytest.mark.usefixtures("short_calibration")
def test_predict_needs_a_candidate(run_cli: Cli, study: Path):
    done = run_cli("predict", study)
    assert done.status == 2 and "Traceback" not in done.err


def test_the_runner_is_packed_as_one_file_that_runs_by_itself(run_cli: Cli, tmp_path: Path):
    file = tmp_path / "runner.pyz"
    done = run_cli("runner", "--pack", file, "--json")
    assert done.json == {"file": str(file), "size_bytes": file.stat().st_size}
    told = subprocess.run([sys.executable, str(file), "--version"], capture_output=True, text=True, check=True)
    assert told.stdout == run_cli("--version").out


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ([], "--port must be given"),
        (["--port", "0", "--token", "short"], "at least 8 characters, but has 5"),
        (["--port", "0", "--token", "long enough", "--space", "-1"], "--space must be a size"),
    ],
)
def test_a_runner_that_cannot_serve_says_why(flags: list[str], told: str, run_cli: Cli):
    done = run_cli("runner", *flags)
    assert done.status == 2 and told in done.err and "Traceback" not in done.err
