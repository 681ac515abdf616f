"""What was measured of layers shapes a study's space, is kept by the run, and comes back when the run goes on."""

from __future__ import annotations

import json

import numpy as np
import pytest

from slimfront.search.loop import search
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.offers import FormOffer, Offer
from slimfront.studies import study as study_module
from slimfront.studies.candidates import build_file
from slimfront.studies.describe import describe_space
from slimfront.studies.run import Run
from slimfront.studies.run_folder import RUN_FILE
from slimfront.studies.show import space_table
from slimfront.studies.study import Study

OFFERS = {"up": Offer(forms={"phases": FormOffer(16 / 9, {8: 0.5, 32: 0.8})}), "last": Offer(integer=False)}
NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A convolution "first", 2x nearest upsampling and "up", and "last", on [1, 3, 8, 8]."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    shapes = {"w0": (16, 3, 3, 3), "w1": (16, 16, 3, 3), "w2": (3, 16, 3, 3)}
    weights = {name: (random.standard_normal(s) / np.sqrt(9 * s[1])).astype(np.float32) for name, s in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], "first", pads=[1] * 4),
        helper.make_node("Resize", ["a", "", "f"], ["u"], "resize", **NEAREST),
        helper.make_node("Conv", ["u", "w1"], ["b"], "up", pads=[1] * 4),
        helper.make_node("Conv", ["b", "w2"], ["y"], "last", pads=[1] * 4),
    ]
    graph = helper.make_graph(
        nodes,
        "upsampling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 16, 16])],
        [numpy_helper.from_array(array, name) for name, array in {**weights, "f": np.float32([1, 1, 2, 2])}.items()],
    )
    path = tmp_path_factory.mktemp("upsampling") / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


@pytest.fixture
def made(model, monkeypatch):
    """A function (offers, ...) that returns a study on a machine where these were measured."""
    random = np.random.default_rng(1)
    samples = [random.random((count, 3, 8, 8), np.float32) for count in (4, 3)]

    def study(offers=OFFERS, **more) -> Study:
        monkeypatch.setattr(study_module, "layer_offers", lambda *_: offers)
        return Study(model, *samples, **{"weight_bits": (8, 32), "pruning_ratios": (0.0,), **more})

    return study


def test_the_space_document_names_the_forms(made):
    layers = {layer["name"]: layer for layer in describe_space(made())["layers"]}
    assert {name: layer["forms"] for name, layer in layers.items()} == {
        "first": ["native"],
        "up": ["native", "phases"],
        "last": ["native"],
    }
    assert layers["last"]["activation_bits"] == [32] and layers["first"]["activation_bits"] == [8, 32]


def test_the_space_table_shows_forms_where_there_are_some(made):
    from io import StringIO

    from rich.console import Console

    def shown(study: Study) -> str:
        console = Console(file=StringIO(), width=200)
        console.print(space_table(describe_space(study)))
        return console.file.getvalue()

    assert "native phases" in shown(made()) and "forms" not in shown(made({}))


def test_people_are_told_which_layers_never_gain_from_integers(made):
    study = made()
    study.check()
    assert any("last" in note and "integer" in note for note in study.warnings)
    plain = made({})
    plain.check()
    assert not any("slower in integer kernels" in note for note in plain.warnings)


def test_nothing_is_measured_where_bits_do_not_vary(made):
    study = made(weight_bits=(8,), activation_bits=(8,))
    assert study.layer_offers == {} and describe_space(study)["layers"][1]["forms"] == ["native"]


def test_a_held_form_needs_no_measurement(made):
    study = made({}, fixed={"up": {"weight_bits": 8, "activation_bits": 8, "form": "phases"}})
    document = describe_space(study)
    assert document["layers"][1]["forms"] == ["phases"]
    reasons = {item["name"]: item["reason"] for item in document["frozen"]}
    assert "form 'phases'" in reasons["up"]


def test_a_continued_run_offers_what_it_was_begun_with(made, tmp_path):
    run = search(made(), trials=4, run_dir=tmp_path / "run", sampler="random")
    kept = json.loads((tmp_path / "run" / RUN_FILE).read_text())
    assert {name: Offer.from_json(offer) for name, offer in kept["layer_offers"].items()} == OFFERS
    study = made({})  # on this day it measures otherwise
    assert study.space.choices["up"][-1].form == "native"  # looked at before: the run's offers count all the same
    run = search(study, trials=14, run_dir=tmp_path / "run", sampler="random")
    assert study.layer_offers == OFFERS and study.space.choices["up"][-1].form == "phases"
    assert len(run.trials) == 14 and not any(trial.state == "failed" for trial in run.trials)
    assert any(trial.candidate.choice("up").form == "phases" for trial in run.trials)
    assert not any(trial.candidate.choice("last").integer for trial in run.trials)


def test_a_run_that_was_begun_before_forms_goes_on_without(made, tmp_path):
    search(made({}), trials=2, run_dir=tmp_path / "run", sampler="random")
    file = tmp_path / "run" / RUN_FILE
    about = json.loads(file.read_text())
    del about["layer_offers"]
    file.write_text(json.dumps(about))
    study = made()
    search(study, trials=3, run_dir=tmp_path / "run", sampler="random")
    assert study.layer_offers == {}
    assert Run(tmp_path / "run").trials


def test_every_valid_form_can_be_built_offered_or_not(made, tmp_path):
    study = made({})
    candidate = Candidate({"up": LayerChoice(8, 8, form="phases")})
    assert not study.space.contains(candidate)
    found = build_file(study, candidate, tmp_path / "formed.onnx")
    assert found["candidate"]["layers"]["up"]["form"] == "phases" and (tmp_path / "formed.onnx").exists()


@pytest.mark.parametrize("sampler", ["frontier", "tpe"])
def test_samplers_search_forms(made, tmp_path, sampler):
    run = search(made(), trials=16, run_dir=tmp_path / "run", sampler=sampler)
    assert [trial.reason for trial in run.trials if trial.state == "failed"] == []
    assert any(trial.candidate.choice("up").form == "phases" for trial in run.trials)
