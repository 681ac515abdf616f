"""What every objective keeps to, on a real session."""

import math

import numpy as np
import pytest

from slimfront.objectives.diversity import Diversity
from slimfront.objectives.memory import Memory
from slimfront.objectives.protocol import OpenModel, Reading, Subject
from slimfront.objectives.quality import Quality
from slimfront.objectives.samples import Samples
from slimfront.objectives.size import Size
from slimfront.objectives.texture import Texture
from slimfront.objectives.timing import Timing
from slimfront.objectives.worst_group import WorstGroup
from slimfront.spaces.errors import BuildError

FURTHER = [Diversity(1), Texture(), WorstGroup(), Memory(processes=2)]
OBJECTIVES = [Size(), Quality(), Timing(least_rounds=3, most_rounds=3), *FURTHER]


@pytest.fixture(params=OBJECTIVES, ids=lambda objective: objective.name)
def objective(request):
    return request.param


@pytest.fixture
def reference(tiny_model, pictures):
    return OpenModel(tiny_model, Samples({"x": pictures(3, 0)}, pictures(3, 1), group=np.array(["a", "b", "a"])))


def test_readings_are_finite_and_named_and_survive_json(objective, reference):
    other = OpenModel(reference.path, reference.samples)
    readings = objective.measure(Subject(other, reference))
    assert readings
    for name, reading in readings.items():
        assert name == name.lower()
        assert math.isfinite(reading.value)
        assert (reading.low is None) == (reading.high is None)
        assert reading.low is None or reading.low <= reading.value <= reading.high
        assert Reading.from_json(reading.to_json()) == reading


def test_the_reference_can_be_measured_against_itself(objective, reference):
    assert objective.measure(Subject(reference, reference))


def test_a_file_that_is_no_model_is_a_build_error(objective, reference, tmp_path):
    if objective.name == "size":
        pytest.skip("the size of any file can be told")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(BuildError):
        objective.measure(Subject(OpenModel(broken, reference.samples), reference))


@pytest.mark.parametrize("further", FURTHER, ids=lambda one: one.name)
def test_a_further_objective_reads_what_it_says_in_the_units_it_says(further, reference):
    readings = further.measure(Subject(reference, reference))
    assert {name: readings[name].unit for name in further.readings} == {n: a.unit for n, a in further.readings.items()}
    assert all(about.title == about.title.strip() and about.explanation for about in further.readings.values())


def test_size_counts_external_data(tmp_path, reference):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"123")
    (tmp_path / "model.onnx.data").write_bytes(b"12345")
    assert Size().measure(Subject(OpenModel(path, reference.samples), reference))["size_bytes"].value == 8


def test_outputs_are_clipped_to_the_range(tiny_model, pictures):
    narrow = OpenModel(tiny_model, Samples({"x": pictures(3, 0)}, low=0.05, high=0.1))
    assert narrow.outputs.min() == pytest.approx(0.05)
    assert narrow.outputs.max() == pytest.approx(0.1)


def test_a_last_incomplete_batch_changes_nothing(tiny_model, pictures):
    alone = OpenModel(tiny_model, Samples({"x": pictures(3, 0)[:1]}))
    assert (OpenModel(tiny_model, Samples({"x": pictures(3, 0)})).outputs[:1] == alone.outputs).all()
