"""One set of weights for many students: a smaller one has the first channels, and learns without touching the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from slimfront.search.alone import RATE, Lone, halved
from slimfront.search.losses import Loss
from slimfront.search.sandwich import Sandwich
from slimfront.search.shared_network import SharedNetwork
from slimfront.search.students import Judged, most_promising
from slimfront.search.training import Schedule, Training
from slimfront.spaces.errors import BuildError, InputError
from slimfront.spaces.family import Family
from slimfront.spaces.graph import Port
from slimfront.spaces.student import Student
from slimfront.spaces.torch_view import TorchView
from slimfront.studies.front import hypervolume

INPUT = Port("x", (1, 3, 16, 16), (1, 3, 16, 16), "float32")
OUTPUT = Port("y", (1, 3, 16, 16), (1, 3, 16, 16), "float32")
SIZES = {"width": (4, 8, 12), "fine_width": (4, 8), "depth": (1, 2, 3)}


def family(**more):
    return Family(INPUT, OUTPUT, (4,), (2,), **{**SIZES, **more})


class Pairs:
    """Noise, and the noise blurred."""

    def __init__(self, count=4):
        x = torch.from_numpy(np.random.default_rng(1).random((count, 3, 16, 16), dtype=np.float32))
        self.pairs = [({"x": image[None]}, functional.avg_pool2d(image[None], 3, 1, 1), None) for image in x]

    def draw(self, random):
        return self.pairs[random.integers(len(self.pairs))]

    def each(self):
        return self.pairs


@pytest.fixture
def network():
    return SharedNetwork(family())


@pytest.mark.parametrize("scales", [(1.0, 1.0), (0.25, 255.0)])
def test_a_student_has_the_first_channels_of_the_shared_weights(scales):
    network = SharedNetwork(family(), *scales)
    student = Student(4, 2, 8, 4, 2)
    arrays = network.arrays()
    graph = network.graph_of(student)
    for name in TorchView(graph).weights:
        own = graph.constant(name)
        assert np.array_equal(own, arrays[name][tuple(slice(side) for side in own.shape)]), name
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(network(student, {"x": x}), TorchView(graph)({"x": x}), atol=1e-5 * scales[1])


def test_a_step_of_the_smallest_touches_its_slices_alone(network):
    smallest = network.family.smallest(network.family.kinds[0])
    shapes = {name: tuple(weight.shape) for name, weight in network.view(smallest).weights.items()}
    network(smallest, {"x": torch.rand(1, 3, 16, 16)}).square().mean().backward()
    for name, own in network._names.items():
        slope = getattr(network, own).grad
        if name not in shapes:
            assert slope is None, name
            continue
        touched = slope != 0
        assert touched[tuple(slice(side) for side in shapes[name])].any(), name
        outside = touched.clone()
        outside[tuple(slice(side) for side in shapes[name])] = False
        assert not outside.any(), name


def test_every_step_has_the_largest_and_the_smallest(network):
    lesson = Sandwich(network, Pairs(), Loss({"l1": 1.0}))
    kind = network.family.kinds[0]
    drawn = [lesson.chosen(np.random.default_rng(seed)) for seed in range(30)]
    assert all(students[:2] == [kind, network.family.smallest(kind)] for students in drawn)
    assert len({student for students in drawn for student in students[2:]}) > 5


def test_the_loss_is_the_mean_over_the_students_of_a_step(network):
    lesson = Sandwich(network, Pairs(1), Loss({"l1": 1.0}, span=2.0))
    feed, wanted, _ = lesson.examples.each()[0]
    random = np.random.default_rng(5)
    loss = float(lesson.loss(random).detach())
    again = np.random.default_rng(5)
    lesson.examples.draw(again)
    students = lesson.chosen(again)
    with torch.no_grad():
        losses = [float((network(student, feed) - wanted).abs().mean()) / 2.0 for student in students]
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)


def test_plain_blocks_are_trained_with_branches_and_are_one_convolution():
    network = SharedNetwork(family(block=("plain",)))
    student = Student(4, 2, 8, 8, 1, block="plain")
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=random)
    arrays, x = network.arrays(), torch.rand(1, 8, 4, 4)
    name = "coarse 0 plain1 weight"
    whole = torch.from_numpy(arrays[name][:8, :8])
    beside = torch.from_numpy(arrays[f"{name} 1x1"][:8, :8])
    through = torch.from_numpy(arrays[f"{name} identity"][:8])[:, None, None]
    apart = functional.conv2d(x, whole, padding=1) + functional.conv2d(x, beside) + through * x
    folded = torch.from_numpy(network.graph_of(student).constant(name))
    assert torch.allclose(functional.conv2d(x, folded, padding=1), apart, atol=1e-5)
    assert all("1x1" not in layer and "identity" not in layer for layer in network.graph_of(student).layers)


def test_weights_are_read_as_they_were_given(network):
    arrays = network.arrays()
    again = SharedNetwork(family(), 0.25, 255.0, arrays)
    assert all(np.allclose(array, arrays[name], rtol=1e-6) for name, array in again.arrays().items())
    with pytest.raises(
        InputError, match=r"another family's: 'stem 2 weight' must be \[10, 3, 6, 6\], but it has \[8, 3, 6, 6\]"
    ):
        SharedNetwork(family(fine_width=(10,)), weights=arrays)
    with pytest.raises(InputError, match="but it has none"):
        SharedNetwork(family(block=("separable",)), weights=arrays)


def test_all_students_learn_together(network, tmp_path):
    lesson = Sandwich(network, Pairs(), Loss({"l1": 1.0}))
    students = [network.family.kinds[0], Student(4, 2, 8, 4, 2), network.family.smallest(network.family.kinds[0])]
    before = [lesson.loss_of(student) for student in students]
    Training(lesson, Schedule(150, 3e-3, clipped=True), tmp_path / "training" / "it.pt").run()
    assert all(lesson.loss_of(student) < 0.8 * loss for student, loss in zip(students, before, strict=True))


def lone(network, student, folder, steps=9):
    return Lone(student.to_json(), network.graph_of(student), Pairs(), Loss(), Schedule(steps, RATE), folder)


def best(lones, count):
    return sorted(lones, key=lambda lone: lone.lesson.standing())[:count]


def test_who_promises_little_after_a_third_of_the_steps_stops_there(network, tmp_path, monkeypatch):
    students = [Student(4, 2, width, 4, 1) for width in (4, 8, 12)]
    lones = [lone(network, student, tmp_path) for student in students]
    for each, loss in zip(lones, (0.3, 0.1, 0.2), strict=True):
        monkeypatch.setattr(each.lesson, "standing", lambda loss=loss: loss)
    told = []
    left = halved(lones, 1, best, lambda _, part: told.append(part))
    assert left == lones[1:2]
    assert [each.training.step for each in lones] == [3, 9, 3]
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_one_whose_training_fails_drops_out(network, tmp_path, monkeypatch):
    lones = [lone(network, Student(4, 2, width, 4, 1), tmp_path) for width in (4, 8)]

    def fails(*_):
        raise BuildError("no number")

    monkeypatch.setattr(lones[0].training, "go_on", fails)
    told = []
    assert halved(lones, 2, best, failed=lambda lone, reason: told.append((lone, reason))) == lones[1:]
    assert told == [(lones[0], "no number")]
    monkeypatch.setattr(lones[1].training, "go_on", fails)
    with pytest.raises(BuildError, match="no number"):
        halved(lones, 2, best)


def test_trained_alone_it_is_better_than_it_was_among_others(network, tmp_path):
    each = lone(network, Student(4, 2, 8, 4, 2), tmp_path, steps=100)
    before = each.lesson.standing()
    (left,) = halved([each], 1, best)
    feed = Pairs().each()[0][0]
    with torch.no_grad():
        found = TorchView(left.graph())(feed)
        assert left.lesson.standing() < 0.9 * before
        assert torch.equal(found, left.lesson.module(**feed))


def test_those_are_chosen_whose_front_is_largest():
    random = np.random.default_rng(0)
    judged = [Judged(Student(1, 1, 1 + number, 1, 1), 0.0, tuple(random.random(3).tolist())) for number in range(12)]
    chosen = most_promising(judged, 3)
    points = [each.point for each in chosen]
    others = [[each.point for each in random.choice(np.array(judged, object), 3, replace=False)] for _ in range(100)]
    assert hypervolume(points, (1.0,) * 3) >= 0.95 * max(hypervolume(some, (1.0,) * 3) for some in others)
    assert points == sorted(points, key=lambda point: -point[1])
    assert most_promising([replace(judged[0], point=(2.0, 2.0, 2.0))], 3), "one that is no better is one all the same"
