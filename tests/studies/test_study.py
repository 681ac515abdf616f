"""Studies: from files, by name, in memory; what makes them the same; what is refused."""

import json

import numpy as np
import onnx
import pytest

from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.errors import InputError
from slimfront.studies.candidates import build
from slimfront.studies.definition import to_toml
from slimfront.studies.environment import usable_cores
from slimfront.studies.study import Study, load_study, ready_made


@pytest.fixture
def in_memory(tiny_model, pictures):
    def make(**changes):
        parts = {"model": tiny_model, "calibration": pictures(4, 1), "evaluation": pictures(3, 2), "name": "tiny"}
        return Study(**{**parts, **changes})

    return make


def test_a_study_is_found_by_its_file_and_by_its_folder(study_folder):
    by_file, by_folder = load_study(study_folder / "study.toml"), load_study(str(study_folder))
    assert by_file.digest == by_folder.digest
    assert by_file.name == "tiny"
    by_file.check()


def test_ready_made_studies_are_found_by_name():
    assert "painting" in ready_made()
    study = load_study("painting")
    assert (study.name, study.source) == ("painting", "painting")


def test_an_unknown_study_names_the_nearest(tmp_path):
    with pytest.raises(InputError, match="did you mean 'painting'"):
        load_study("paintng")
    with pytest.raises(InputError, match=r"a folder without study\.toml"):
        load_study(tmp_path)


def test_a_study_in_memory_is_that_of_the_file(in_memory, study_folder):
    assert in_memory().digest == load_study(study_folder).digest
    assert in_memory().source is None


def test_a_module_in_memory(in_memory, pictures):
    import torch

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 3, 1))
    study = in_memory(model=module, input_shape=(1, 3, 16, 16), evaluation=(pictures(3, 2), pictures(3, 3)))
    study.check()
    assert len(study.graph.layers) == 2
    assert (study.evaluation.target == pictures(3, 3)).all()


def test_a_pair_may_be_a_list_and_so_may_samples(in_memory, pictures):
    inputs, target = pictures(3, 2), pictures(3, 3)
    for pair in ((inputs, target), [inputs, target], [{"x": inputs}, target], {"x": inputs, "target": target}):
        study = in_memory(evaluation=pair)
        assert (study.evaluation.inputs["x"] == inputs).all()
        assert (study.evaluation.target == target).all()
    study = in_memory(evaluation=[inputs[0], inputs[1]])
    assert (study.evaluation.inputs["x"] == inputs[:2]).all()
    assert study.evaluation.target is None


@pytest.mark.parametrize(
    "wrong", [[np.zeros((3, 3, 16, 16)), np.zeros((3, 8)), 1], [[1.0], [2.0, 3.0]], object(), iter([1]), {"x": {}}]
)
def test_what_is_no_samples_is_told_what_is_accepted(in_memory, wrong):
    with pytest.raises(
        InputError, match=r"data\.evaluation: x cannot be read as an array.*; give an array \[N, \.\.\.\], a d"
    ):
        in_memory(evaluation=wrong).check()


def test_tensors_are_samples_unless_they_have_a_gradient(in_memory, pictures):
    import torch

    tensor = torch.from_numpy(pictures(3, 2))
    assert (in_memory(evaluation=tensor).evaluation.inputs["x"] == tensor.numpy()).all()
    with pytest.raises(InputError, match=r"cannot be read as an array.*detach"):
        in_memory(evaluation=tensor.clone().requires_grad_()).check()


def test_a_module_needs_an_input_shape(in_memory):
    import torch

    with pytest.raises(InputError, match="input_shape is missing"):
        in_memory(model=torch.nn.Conv2d(3, 3, 1)).check()
    with pytest.raises(InputError, match=r"must be a torch\.nn.Module or the path of an ONNX file, but got int"):
        in_memory(model=3).check()


def test_several_inputs_in_memory_are_saved_with_their_names(tmp_path, pictures):
    import torch

    class Masked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 3, 1)

        def forward(self, image, mask):
            return self.conv(image) * mask

    def inputs(count, seed):
        return {"image": pictures(count, seed), "mask": np.full((count, 1), seed, np.float32)}

    def make(**shapes):
        return Study(Masked(), inputs(4, 1), (inputs(3, 2), pictures(3, 3)), input_shape=shapes)

    study = make(image=(1, 3, 16, 16), mask=(1, 1))
    study.check()
    study.save(tmp_path)
    assert load_study(tmp_path).digest == study.digest
    with pytest.raises(InputError, match=r"must share their first axis, the batch.*'mask': \[1, 1\]"):
        make(image=(2, 3, 16, 16), mask=(1, 1)).check()


def test_the_definition_is_plain_data_that_tells_studies_apart(in_memory, pictures):
    base = in_memory()
    assert json.loads(json.dumps(base.definition)) == base.definition
    same = [{"name": "other"}, {"trials": 3}, {"sampler": "tpe"}, {"seed": 7}, {"test": pictures(2, 9)}]
    other = [
        {"calibration": pictures(4, 5)},
        {"evaluation": pictures(4, 5)},
        {"evaluation": (pictures(3, 2), pictures(3, 3))},
        {"range": (0.0, 255.0)},
        {"weight_bits": (4, 32)},
        {"activation_bits": (32,)},
        {"fixed": {"conv2": {"weight_bits": 8}}},
        {"threads": 2},
        {"saturation_safe": True},
        {"constraints": {"max_size": "1MB"}},
    ]
    assert all(in_memory(**change).digest == base.digest for change in same)
    digests = [in_memory(**change).digest for change in other]
    assert len({base.digest, *digests}) == len(other) + 1


def test_the_order_of_bits_does_not_make_another_study(in_memory):
    assert in_memory(weight_bits=(8, 4)).digest == in_memory(weight_bits=(4, 8)).digest


def test_a_saved_study_is_the_same_study(in_memory, tmp_path, pictures):
    target = (255 * pictures(3, 3)).astype(np.uint8)
    study = in_memory(evaluation=(pictures(3, 2), target), test=(pictures(2, 8), pictures(2, 9)), range=(-1.0, 1.0))
    study.save(tmp_path / "saved")
    again = load_study(tmp_path / "saved")
    assert again.digest == study.digest
    assert (again.test.target == study.test.target).all()
    assert to_toml(again.settings) == to_toml(study.settings)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"threads": 0}, "target.threads must be above 0"),
        ({"sampler": "nsga3"}, "did you mean 'nsga2'"),
        ({"weight_bits": (1,)}, "space.weight_bits must be one of"),
        ({"weight_bits": (16,), "activation_bits": (8,)}, "activation_bits"),
        ({"fixed": {"conv2": {"weight_bits": 9}}}, "space.fixed.conv2.weight_bits must be one of"),
        ({"constraints": {"max_size": "big"}}, "constraints.max_size"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(in_memory, changes, words):
    with pytest.raises(InputError, match=words):
        in_memory(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"provider": "CPUExecutionProvide"}, "did you mean 'CPUExecutionProvider'"),
        ({"model": "none.onnx"}, "there is no file none.onnx"),
        ({"input_shape": (1, 3, 8, 8)}, "input_shape"),
        (
            {"evaluation": np.zeros((2, 3, 16, 15), np.float32)},
            "data.evaluation: x must have shape",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_check(in_memory, changes, words):
    with pytest.raises(InputError, match=words):
        in_memory(**changes).check()


def test_fixed_layers_do_not_vary(in_memory):
    space = in_memory(fixed={"conv2": {"weight_bits": 8, "activation_bits": 32}}).space
    layers = list(space.choices)
    assert [len(space.choices[layer]) for layer in layers if layer == "conv2"] == [1]


def test_build_gives_the_onnx_bytes_of_a_candidate(in_memory):
    study = in_memory()
    layer = next(iter(study.graph.layers))
    small = build(study, Candidate(layers={layer: LayerChoice(4, 32)}))
    onnx.checker.check_model(onnx.load_from_string(small))
    assert small == build(study, {"layers": {layer: {"weight_bits": 4}}})
    assert len(small) < len(build(study, Candidate()))
    with pytest.raises(InputError, match="unknown layer"):
        build(study, Candidate(layers={layer + "x": LayerChoice(4, 32)}))


def test_more_threads_than_cores_are_told_and_far_too_many_refused(tiny_model, pictures):
    cores = usable_cores()
    study = Study(tiny_model, pictures(4, 1), pictures(3, 2), threads=cores + 1)
    study.check()
    assert f"target.threads is {cores + 1}" in study.warnings[0]
    with pytest.raises(InputError, match=r"target\.threads 100000 is too many"):
        Study(tiny_model, pictures(4, 1), pictures(3, 2), threads=100_000).check()
