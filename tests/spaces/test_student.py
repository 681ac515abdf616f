"""A student's parameters are checked, and its graph fits the reference's input and output, whatever they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfront.spaces.candidate import Candidate
from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.errors import BuildError, InputError
from slimfront.spaces.family import Family, family_of
from slimfront.spaces.graph import Graph, Port
from slimfront.spaces.student import BLOCKS, UPSAMPLINGS, Student
from slimfront.spaces.student_graph import scale_of, student_graph
from slimfront.spaces.torch_view import TorchView

SMALL = Student(4, 2, 12, 8, 2)


def port(name, *shape):
    return Port(name, shape, shape, "float32")


KINDS = {
    "image to image": (port("x", 1, 3, 16, 24), port("y", 1, 3, 16, 24), {}),
    "image to more channels": (port("x", 1, 1, 16, 16), port("y", 1, 3, 16, 16), {}),
    "all at one size": (port("x", 1, 3, 16, 16), port("y", 1, 3, 16, 16), {"coarse": 1, "fine": 1}),
    "twice as large": (port("x", 2, 3, 8, 8), port("y", 2, 3, 16, 16), {"coarse": 2, "fine": 2}),
    "twice as large, coarse below the input": (
        port("x", 1, 3, 8, 8),
        port("y", 1, 3, 16, 16),
        {"coarse": 4, "fine": 1},
    ),
    "latent to image": (port("x", 1, 16, 4, 4), port("y", 1, 3, 32, 32), {"coarse": 8, "fine": 2}),
    "noise to image": (port("z", 4, 20), port("y", 4, 1, 28, 28), {"coarse": 4, "fine": 2}),
    "noise to image, four axes": (port("z", 2, 20, 1, 1), port("y", 2, 3, 16, 16), {"coarse": 4, "fine": 1}),
}


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize("name", KINDS)
def test_it_runs_and_gives_the_reference_s_shape(name, block, upsampling, tmp_path):
    inputs, output, sizes = KINDS[name]
    student = replace(SMALL, block=block, upsampling=upsampling, fine_depth=1, **sizes)
    graph = student_graph(student, inputs, output)
    graph.save(tmp_path / "student.onnx")
    x = np.random.default_rng(0).random(inputs.shape, dtype=np.float32)
    found = onnxruntime.InferenceSession(tmp_path / "student.onnx").run(None, {inputs.name: x})[0]
    assert found.shape == output.shape
    with torch.no_grad():
        assert np.allclose(TorchView(graph)({inputs.name: torch.from_numpy(x)}).numpy(), found, atol=1e-5)
    assert capture_onnx(tmp_path / "student.onnx").layers.keys() == graph.layers.keys()


def test_free_axes_stay_free(tmp_path):
    inputs = Port("x", (1, 3, 16, 16), ("n", 3, "h", "w"), "float32")
    output = Port("y", (1, 3, 32, 32), ("n", 3, "h2", "w2"), "float32")
    student_graph(replace(SMALL, coarse=2, fine=2), inputs, output).save(tmp_path / "student.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "student.onnx")
    assert session.run(None, {"x": np.zeros((2, 3, 8, 24), np.float32)})[0].shape == (2, 3, 16, 48)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 3), st.sampled_from(BLOCKS))
def test_a_smaller_one_has_names_of_the_larger_one_s_and_no_larger_weights(width, fine_width, depth, block):
    inputs, output, _ = KINDS["image to image"]
    large = student_graph(Student(4, 2, 12, 12, 3, 1, block), inputs, output)
    small = student_graph(Student(4, 2, width, fine_width, depth, 0, block), inputs, output)
    for name, layer in small.layers.items():
        assert all(np.array(layer.shape) <= large.layers[name].shape), name


def test_between_the_sizes_channels_change_by_equal_factors():
    student = Student(8, 1, 64, 8, 1)
    assert [student.channels(size) for size in student.sizes] == [64, 32, 16, 8]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 0}, "width must be a whole number, at least 1, but got 0"),
        ({"depth": 1.5}, "depth must be a whole number, at least 0, but got 1.5"),
        ({"coarse": 3}, "coarse must be a power of 2, but got 3"),
        ({"fine": 8}, "fine must be at most its coarse 4, but got 8"),
        (
            {"block": "plane"},
            r"block must be one of residual, plain, separable, but got 'plane' \(did you mean 'plain'\?\)",
        ),
    ],
)
def test_wrong_parameters_are_told(changes, words):
    with pytest.raises(InputError, match=words):
        Student.from_json(SMALL.to_json() | changes)


def test_parameters_are_read_as_they_were_written():
    assert Student.from_json(SMALL.to_json()) == SMALL
    with pytest.raises(InputError, match="a student has no key 'widht'"):
        Student.from_json({"widht": 3})
    with pytest.raises(InputError, match="a student needs the key 'fine'"):
        Student.from_json({"coarse": 4})


@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        (port("x", 1, 3, 16, 16), port("y", 1, 3, 48, 48)),
        (port("x", 1, 3, 16, 16), port("y", 1, 3, 32, 16)),
        (port("x", 1, 3, 16, 16), port("y", 1, 3, 8, 8)),
        (port("x", 1, 3, 16, 16), port("y", 1, 10)),
        (port("x", 1, 3, 8, 16, 16), port("y", 1, 3, 16, 16)),
    ],
)
def test_where_no_student_fits_both_shapes_are_named(inputs, output):
    with pytest.raises(BuildError) as told:
        scale_of(inputs, output)
    assert str(list(inputs.shape)) in str(told.value)
    assert str(list(output.shape)) in str(told.value)


def test_sizes_that_do_not_divide_the_input_are_told():
    with pytest.raises(BuildError, match=r"do not fit an input of 1/1 of it, of shape \[1, 3, 18, 18\]"):
        student_graph(SMALL, port("x", 1, 3, 18, 18), port("y", 1, 3, 18, 18))


@pytest.mark.parametrize("name", KINDS)
def test_a_family_is_made_for_every_kind_of_reference(name):
    inputs, output, sizes = KINDS[name]
    student = student_graph(replace(SMALL, **sizes), inputs, output)
    family = family_of(student, width=(8, 12), fine_width=(4, 8), depth=(1, 2))
    random = np.random.default_rng(0)
    every = set(family.students())
    for kind in family.kinds:
        assert {kind, family.smallest(kind), *(family.draw(kind, random) for _ in range(20))} <= every
        assert all(student.width <= kind.width for student in every)
    assert all(family.graph_of(each).outputs[0].shape == output.shape for each in every)


def test_a_family_leaves_out_what_does_not_fit_and_tells_where_nothing_does():
    inputs, output, _ = KINDS["image to image"]
    family = Family(inputs, output, coarse=(4, 16), fine=(2, 8), width=(8,), fine_width=(8,), depth=(1,))
    assert {(kind.coarse, kind.fine) for kind in family.kinds} == {(4, 2)}
    with pytest.raises(BuildError, match="do not fit an input"):
        _ = Family(inputs, output, coarse=(16,), fine=(16,)).kinds


def test_a_reference_of_two_inputs_has_no_family(tmp_path):
    import onnx

    text = (
        '<ir_version: 10, opset_import: ["": 21]> g (float[1,3,8,8] x, float[1,3,8,8] mask) => (float[1,3,8,8] y) '
        "{ y = Add(x, mask) }"
    )
    import onnx_ir as ir

    onnx.save(onnx.parser.parse_model(text), tmp_path / "two.onnx")
    with pytest.raises(BuildError, match="students read one input, but the model has 2: x, mask"):
        family_of(Graph(ir.load(tmp_path / "two.onnx"), {}))


def test_a_candidate_knows_its_base_and_is_told_apart_by_it():
    base = "sha256:" + "1" * 64
    plain = Candidate()
    other = Candidate(base=base, student=SMALL.to_json())
    assert other != plain
    assert Candidate.from_json(other.to_json()) == other
    assert Candidate.from_json(other.to_json()).student == SMALL.to_json()
    assert Candidate(base=base) == other, "the base says it all"
    assert Candidate.from_canonical(other.to_json(), "").base == base
    assert other.uncompressed == other
    assert not other.is_reference
    assert plain.is_reference
    with pytest.raises(InputError, match="candidate key 'student' must be an object, but got 7"):
        Candidate.from_json({"base": base, "student": 7})
