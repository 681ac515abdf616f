"""A study whose models run on a device: from its file to a bundle, and a device that goes away in the middle."""

from __future__ import annotations

import json
import re
import time

import pytest

import slimfront as sf
from slimfront.objectives import connection as module
from slimfront.search.evaluate import evaluate
from slimfront.search.loop import search
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.errors import InputError
from slimfront.studies import predict as predict_module
from slimfront.studies.definition import parse_settings
from slimfront.studies.predict import predict
from slimfront.studies.profile import profile
from slimfront.studies.records import read_records
from slimfront.studies.study import load_study
from slimfront.studies.verify import verify

from ..runners import TOKEN, running
from ..verified import failed

STUDY = {"name": "s", "model": {"file": "m.onnx"}, "data": {"calibration": "c.npz", "evaluation": "e.npz"}}
INTEGER = Candidate({"conv1": LayerChoice(8, 8)})


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    with running(tmp_path_factory.mktemp("device") / "runner") as found:
        yield found


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("SLIMFRONT_TOKEN", TOKEN)


@pytest.fixture
def on_device(study_folder, token):
    """A function that returns a study on the device at an address."""

    def opened(address: str):
        file = study_folder / "study.toml"
        file.write_text(file.read_text() + f'[target]\ndevice = "{address}"\n')
        return load_study(study_folder)

    return opened


def target(**keys):
    return parse_settings({**STUDY, "target": keys}).target


def test_a_study_on_a_device_is_another_than_here_wherever_the_device_is():
    assert target(device="pi:7007").defined == target(device="[::1]:9").defined != target().defined
    assert "device" not in target().defined, "older runs stay what they are"


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"device": "pi"}, "target.device must be 'host:port', such as 'raspberrypi:7007', but got 'pi'"),
        ({"device": 7007}, "target.device must be a text, but got 7007"),
        ({"devise": "pi:7007"}, "unknown key 'devise'.*'device'"),
    ],
)
def test_a_wrong_device_is_named(keys, told):
    with pytest.raises(InputError, match=told):
        target(**keys)


def test_without_a_token_it_is_said_where_to_put_it(on_device, monkeypatch):
    monkeypatch.delenv("SLIMFRONT_TOKEN")
    with pytest.raises(InputError, match="SLIMFRONT_TOKEN"):
        on_device("127.0.0.1:7007").check()


def test_what_is_known_without_the_device_is_told_without_it(on_device):
    study = on_device("127.0.0.1:1")
    assert study.digest and study.graph.layers


def test_more_threads_than_the_device_has_cores_are_counted_there(on_device, runner):
    study = on_device(runner.address)
    study.device.connection.facts  # noqa: B018
    study.device.connection._told["facts"]["usable_cores"] = 0
    study.device.connection._told["facts"]["cores"] = 0
    with pytest.raises(InputError, match="may use 0 cores"):
        study.check()


def test_workers_are_refused(on_device, runner, tmp_path):
    with pytest.raises(InputError, match=r"one device.*leave out --workers and --ray"):
        search(on_device(runner.address), run_dir=tmp_path / "run", workers=2)


def test_a_candidate_is_evaluated_predicted_and_profiled_on_the_device(on_device, runner, monkeypatch):
    monkeypatch.setattr(predict_module, "CALIBRATION_SECONDS", 0.5)
    study = on_device(runner.address)
    [row] = evaluate(study, [INTEGER])
    assert row["speedup_low"] <= row["speedup"] <= row["speedup_high"] and row["fidelity_db"] > 30
    [predicted] = predict(study, [INTEGER])
    assert predicted["predicted_speedup"] > 0
    layers = profile(study)["layers"]
    assert {layer["name"] for layer in layers} == {"conv0", "conv1", "conv2"} and all(
        layer["ms"] > 0 for layer in layers
    )


class Ender:
    """A log that does something to the runner when so many trials are finished."""

    def __init__(self, at: int, does) -> None:
        self.at, self.does, self.seen = at, does, 0

    def begin(self, study, folder):
        pass

    def trial(self, trial, hypervolume):
        self.seen += 1
        if self.seen == self.at:
            self.does()

    def end(self, run, whole):
        pass


def end_and_wait(runner):
    runner.end()
    time.sleep(2.0)  # what it had begun looks twice a second whether it is there


def test_a_runner_that_is_killed_in_the_middle_loses_nothing_and_the_same_command_goes_on(
    on_device, tmp_path, monkeypatch, capsys
):
    with running(tmp_path / "runner") as runner:
        study = on_device(runner.address)
        monkeypatch.setattr(module, "WAITS", (0.05, 0.1))
        with pytest.raises(InputError, match=r"does not answer.*the same command continues"):
            search(study, 8, tmp_path / "run", logs=[Ender(3, lambda: end_and_wait(runner))])
        told = capsys.readouterr().err
        assert re.search(rf"slimfront: the device {runner.address} is lost .* trying again in 0\.05 s \(1 of 2\)", told)
        before = list(read_records(tmp_path / "run" / "records.jsonl"))
        assert not [record for record in before if record.state == "failed"], "it is no fault of a candidate's"
        runner.start()
        run = search(load_study(study.source), 8, tmp_path / "run")
        after = list(read_records(tmp_path / "run" / "records.jsonl"))
        assert after[: len(before)] == before and run.count == 8
        assert run.reference.measured
        assert all(trial.measured or trial.predicted for trial in run.trials)


def test_a_runner_that_is_killed_and_started_again_is_only_waited_for(on_device, tmp_path, monkeypatch):
    with running(tmp_path / "runner") as runner:
        study = on_device(runner.address)
        monkeypatch.setattr(module, "WAITS", 40 * (0.25,))

        def restart():
            end_and_wait(runner)
            runner.start()

        run = search(study, 6, tmp_path / "run", logs=[Ender(3, restart)])
        assert run.count == 6 and not [trial for trial in run.trials if trial.state == "failed"]


def test_a_run_on_a_device_ships_a_bundle_that_is_measured_there_again(on_device, runner, tmp_path, monkeypatch):
    run = search(on_device(runner.address), 4, tmp_path / "run")
    facts = runner.connection().facts
    assert {key: run.environment[key] for key in facts if facts[key] != ""} == {
        key: value for key, value in facts.items() if value != ""
    }
    bundle = run.ship(run.pick(prefer="size"), tmp_path / "bundle")
    kept = json.loads((bundle / "bundle.json").read_text())
    assert kept["device"] == runner.address
    served = len([line for line in runner.log if "a search" in line])
    verified = verify(bundle)
    assert not failed(verified) and len([line for line in runner.log if "a search" in line]) > served
    for folder in (run.folder, bundle):
        for file in folder.rglob("*"):
            assert not file.is_file() or TOKEN.encode() not in file.read_bytes(), "the token is in no file"
    monkeypatch.delenv("SLIMFRONT_TOKEN")
    here = verify(bundle)
    assert not failed(here) and any("checked on this machine" in note for note in here["notes"])


def test_a_study_in_memory_takes_a_device(runner, tiny_model, pictures, token):
    study = sf.Study(tiny_model, pictures(4, 1), pictures(3, 2), device=runner.address)
    assert evaluate(study, [INTEGER])[0]["size_bytes"] > 0
    assert study.target.runtime == f"ONNX Runtime on {runner.address}"
