"""Training of a candidate: it learns, goes on from its checkpoint as if nothing had been, and sees calibration data alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slimfront.search import training as module
from slimfront.search.distillation import Distillation, Examples
from slimfront.search.losses import Loss
from slimfront.search.training import HALVINGS, Schedule, Training
from slimfront.search.variation import moved
from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.errors import BuildError
from slimfront.spaces.torch_view import TorchView

STEPS = 30


@pytest.fixture(scope="module")
def builder(residual_model, pictures):
    return Builder(capture_onnx(residual_model), {"x": pictures(6, 1)})


@pytest.fixture
def make(builder, tmp_path):
    def made(steps=STEPS, **more):
        student = builder.to_torch(Candidate(dict.fromkeys("abcde", LayerChoice(3, 8)), {"b": 0.5}))
        schedule = Schedule(steps, **more).for_layers(5)
        examples = Examples(TorchView(builder.graph), builder.calibration, 1)
        lesson = Distillation(student, student.graph, examples, Loss())
        return Training(lesson, schedule, tmp_path / "training" / "it.pt")

    return made


def error(builder, student, inputs) -> float:
    """Return the mean error, one sample at a time as in training: in other batches sums may round the other way."""
    teacher, samples = TorchView(builder.graph), torch.from_numpy(inputs).split(1)
    with torch.no_grad():
        errors = [(student(sample) - teacher({"x": sample})).square().mean() for sample in samples]
    return float(torch.stack(errors).mean())


def weights_of(training) -> bytes:
    return training.lesson.module.trained().to_bytes()


def test_it_learns_what_it_was_not_shown(make, builder, pictures):
    training, others = make(300), pictures(8, 9)
    before = error(builder, training.lesson.module, others)
    earlier, later = training.run()
    assert later < earlier
    assert later == pytest.approx(error(builder, training.lesson.module, builder.calibration["x"]), rel=1e-4)
    assert error(builder, training.lesson.module, others) < 0.85 * before


@pytest.mark.parametrize("stopped_at", [1, 11, STEPS - 1])
def test_killed_and_begun_again_it_gives_the_same_weights(make, monkeypatch, stopped_at):
    whole = make()
    whole.run()
    whole.checkpoint.unlink()
    monkeypatch.setattr(module, "SAVED_SECONDS", 0.0)

    def stop(text, part):
        if round(part * STEPS) == stopped_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make().run(stop)
    again, parts = make(), []
    again.run(lambda text, part: parts.append(part))
    assert parts[0] == pytest.approx((stopped_at + 1) / STEPS)
    assert weights_of(again) == weights_of(whole)
    assert weights_of(make()) != weights_of(whole)


def test_a_checkpoint_of_another_kind_is_no_harm(make, tmp_path):
    first = make(3)
    first.run()
    for content in (b"", b"nothing of the sort"):
        (tmp_path / "training" / "it.pt").write_bytes(content)
        again = make(3)
        again.run()
        assert weights_of(again) == weights_of(first)


def test_a_checkpoint_runs_no_code(make, tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "evil"), "w"))

    (tmp_path / "training").mkdir()
    torch.save({"step": Evil()}, tmp_path / "training" / "it.pt", pickle_module=pickle)
    make(1).run()
    assert not (tmp_path / "evil").exists()


def test_a_loss_that_is_no_number_halves_the_rate_from_the_last_checkpoint(make, monkeypatch):
    training = make(10)
    real, seen = type(training.lesson.module).forward, []

    def spoilt(student, **inputs):
        seen.append(training.halvings)
        return real(student, **inputs) * (float("nan") if len(seen) in (9, 12) else 1.0)

    monkeypatch.setattr(type(training.lesson.module), "forward", spoilt)
    training.run()
    assert training.halvings == 2
    assert seen == [0] * (6 + 3) + [1] * 3 + [2] * (10 + 6), "from the beginning: nothing was saved"
    assert training._optimizer.param_groups[0]["lr"] == pytest.approx(
        training.schedule.rate * training.schedule.part(9) / 4
    )


def test_a_gradient_that_is_no_number_changes_nothing(make, monkeypatch):
    training, before = make(), weights_of(make())
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: spoil(training.lesson.module))

    def spoil(student):
        for parameter in student.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.full_like(parameter, float("inf"))

    with pytest.raises(BuildError, match="or its gradient, is no number"):
        training.run()
    assert weights_of(training) == before


def test_a_loss_that_is_never_a_number_ends_the_training(make, monkeypatch):
    training, seen = make(), []
    monkeypatch.setattr(
        type(training.lesson.module), "forward", lambda student, **inputs: seen.append(1) or inputs["x"] * float("nan")
    )
    with pytest.raises(BuildError, match="is no number at step 0, at a quarter of the rate too"):
        training.run()
    assert len(seen) == 6 + HALVINGS + 1, "six samples before, and then one for each try"


def test_the_step_at_which_there_is_no_number_is_told(make, monkeypatch):
    training = make()
    real = training.lesson.loss
    monkeypatch.setattr(
        training.lesson, "loss", lambda random: real(random) * (float("nan") if training.step == 3 else 1.0)
    )
    with pytest.raises(BuildError, match="is no number at step 3, at a quarter"):
        training.run()
    assert training.step == 0, "as it was last kept"


def test_a_training_that_goes_back_twice_goes_back_to_the_same(make, monkeypatch):
    monkeypatch.setattr(module, "SAVED_SECONDS", 1e9)
    training = make(20)
    for _ in range(5):
        assert training._one_step()
        training.step += 1
    training._save()
    kept = training._state()["optimizer"]["state"]
    for _ in range(2):
        training._go_back()
        assert training._one_step()
    again = training._good["optimizer"]["state"]
    assert all(torch.equal(kept[key]["exp_avg"], again[key]["exp_avg"]) for key in kept)


def test_where_no_gradient_comes_from_it_is_told(make, monkeypatch):
    training = make(3)
    forward = type(training.lesson.module).forward
    monkeypatch.setattr(
        type(training.lesson.module), "forward", lambda student, **inputs: forward(student, **inputs).detach()
    )
    with pytest.raises(BuildError, match="no gradient reaches the weights"):
        training.run()


def test_the_rate_rises_and_falls_to_nothing():
    schedule = Schedule(1000)
    parts = [schedule.part(step) for step in range(1000)]
    assert parts[0] == pytest.approx(0.02)
    assert max(parts) == parts[49] > 0.99
    assert parts[-1] < 1e-5
    assert Schedule(1).part(0) == 1.0


@given(st.integers(0, 100), st.integers(2, 5), st.integers(2, 5))
def test_inputs_are_turned_alike_and_nothing_of_them_is_lost(seed, height, width):
    random = np.random.default_rng(seed)
    shape = (2, 3, height, width)
    one = random.random(shape)
    inputs = {"image": one, "mask": one.copy(), "style": random.random((2, 8))}
    found = moved(inputs, int(random.integers(4)), bool(random.integers(2)))
    assert np.array_equal(found["image"], found["mask"])
    assert found["image"].shape == shape
    assert np.array_equal(np.sort(found["image"].reshape(6, -1)), np.sort(one.reshape(6, -1)))
    assert found["style"] is inputs["style"]


def test_all_eight_ways_to_lie_come_up():
    image = np.arange(9.0).reshape(1, 1, 3, 3)
    ways = {moved({"x": image}, turns, mirrored)["x"].tobytes() for turns in range(4) for mirrored in (False, True)}
    assert len(ways) == 8


def test_what_is_drawn_is_what_the_teacher_makes_of_it_and_is_asked_once(builder, monkeypatch):
    teacher = TorchView(builder.graph)
    examples, seen = Examples(teacher, builder.calibration, 2, varied=0.0), []
    real = TorchView.forward
    monkeypatch.setattr(TorchView, "forward", lambda view, inputs: seen.append(1) or real(view, inputs))
    random = np.random.default_rng(0)
    drawn = [examples.draw(random) for _ in range(300)]
    assert len(seen) == 3 * 8
    assert len({feed["x"].numpy().tobytes() for feed, _, _ in drawn}) == 3 * 8
    for feed, wanted, _ in drawn[:5]:
        assert torch.equal(wanted, real(teacher, feed))
