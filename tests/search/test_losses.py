"""Losses against independent computations, and what a study asks for of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from skimage.metrics import structural_similarity

from slimfront.search.distillation import Examples
from slimfront.search.distilled_study import examples_of, loss_of
from slimfront.search.losses import MEASURES, OF_CLASSES, OF_PICTURES, Loss
from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.errors import InputError
from slimfront.spaces.torch_view import TorchView
from slimfront.studies import definition
from slimfront.studies.study import Study, load_study


def tensors(seed, *shape):
    random = np.random.default_rng(seed)
    return (torch.from_numpy(random.random(shape)) for _ in range(2))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 5.0), st.floats(0.0, 3.0), st.floats(0.0, 3.0))
def test_for_classifiers_it_is_the_classical_formula(seed, temperature, alpha, beta):
    """L = alpha CE(y, softmax(z_s)) + beta KL(softmax(z_s / T), softmax(z_t / T)), each the mean over samples."""
    random = np.random.default_rng(seed)
    student, teacher = random.normal(size=(2, 6, 10))
    labels = random.integers(0, 10, 6)
    p, q = softmax(student / temperature, 1), softmax(teacher / temperature, 1)
    expected = alpha * -log_softmax(student, 1)[np.arange(6), labels].mean()
    expected += beta * (p * (np.log(p) - np.log(q))).sum(1).mean()
    loss = Loss({"kl": beta}, {"cross_entropy": alpha}, temperature=temperature)
    found = loss(torch.from_numpy(student), torch.from_numpy(teacher), torch.from_numpy(labels))
    assert float(found) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_ssim_is_that_of_the_readings():
    found, wanted = tensors(0, 1, 3, 40, 40)
    expected = structural_similarity(
        found[0].numpy(), wanted[0].numpy(), channel_axis=0, data_range=1.0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    assert 1.0 - float(MEASURES["ssim"](found, wanted)) == pytest.approx(expected, abs=0.002)
    assert float(MEASURES["ssim"](found, found)) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", OF_PICTURES)
def test_measures_of_pictures_are_in_parts_of_the_range(name):
    found, wanted = tensors(1, 2, 3, 20, 20)
    plain = Loss({name: 2.0})(found, wanted)
    assert float(Loss({name: 2.0}, span=255.0)(255.0 * found, 255.0 * wanted)) == pytest.approx(float(plain), rel=1e-6)


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_pulls_towards_what_is_wanted(name):
    """The contract of a measure: a number that a step against its gradient makes smaller."""
    found, wanted = tensors(2, 4, 10) if name in OF_CLASSES else tensors(2, 2, 3, 16, 16)
    wanted = torch.softmax(wanted, 1) if name == "cross_entropy" else wanted
    found.requires_grad_(True)
    loss = MEASURES[name](found, wanted)
    assert loss.shape == ()
    loss.backward()
    with torch.no_grad():
        nearer = found - 1e-3 * found.grad / found.grad.abs().max()
        assert float(MEASURES[name](nearer, wanted)) < float(loss)


def test_what_has_no_target_is_measured_against_the_reference_alone():
    found, wanted = tensors(3, 2, 3, 8, 8)
    loss = Loss({"l1": 1.0}, {"l2": 1.0})
    assert float(loss(found, wanted)) == pytest.approx(float((found - wanted).abs().mean()))
    both = (found - wanted).abs().mean() + (found - found).square().mean()
    assert float(loss(found, wanted, found)) == pytest.approx(float(both))
    assert float(Loss({}, {"l2": 1.0})(found, wanted)) == 0.0


@pytest.fixture
def network(residual_model):
    return TorchView(capture_onnx(residual_model))


def test_targets_are_turned_with_their_samples(network, pictures):
    inputs, target = pictures(3, 1), pictures(3, 1) * 2.0
    examples = Examples(network, {"x": inputs}, 1, target, varied=0.0)
    random = np.random.default_rng(0)
    drawn = [examples.draw(random) for _ in range(40)]
    assert all(torch.equal(told, 2.0 * feed["x"]) for feed, _, told in drawn)


def test_targets_of_other_things_stay_with_samples_as_they_are(network, pictures):
    examples = Examples(network, {"x": pictures(3, 1)}, 1, np.ones((3, 5, 16, 16), np.float32), varied=0.0)
    random = np.random.default_rng(0)
    known = {
        feed["x"].numpy().tobytes(): told is not None for feed, _, told in (examples.draw(random) for _ in range(200))
    }
    assert sum(known.values()) == 3
    assert len(known) == 24
    assert all(told is not None for _, _, told in examples.each())


def test_what_is_made_of_samples_is_asked_of_the_teacher(network, pictures, monkeypatch):
    samples = pictures(3, 1)
    examples = Examples(network, {"x": samples}, 2, pictures(3, 4), varied=1.0)
    drawn = [examples.draw(np.random.default_rng(seed)) for seed in range(20)]
    for feed, wanted, target in drawn:
        assert feed["x"].shape == (2, 3, 16, 16)
        assert torch.allclose(wanted, network(feed), atol=1e-6) and target is None
        assert not any(np.array_equal(one, sample) for one in feed["x"].numpy() for sample in samples)
    again = Examples(network, {"x": samples}, 2, pictures(3, 4), varied=1.0).draw(np.random.default_rng(7))
    assert torch.equal(again[0]["x"], drawn[7][0]["x"]), "the same draws give the same, whatever was drawn before"
    half = Examples(network, {"x": samples}, 1, pictures(3, 4), varied=0.5)
    told = [half.draw(np.random.default_rng(seed))[2] is not None for seed in range(100)]
    assert 35 < sum(told) < 65
    assert all(target is not None for _, _, target in half.each())


def test_where_targets_alone_are_learned_nothing_is_made(residual_model, pictures):
    only = study_of(residual_model, pictures, True, reference={}, target={"l2": 1.0})
    assert examples_of(only).varied == 0.0
    assert examples_of(study_of(residual_model, pictures, True)).varied > 0.0


def study_of(residual_model, pictures, with_target, **training):
    calibration = (pictures(4, 1), pictures(4, 5)) if with_target else pictures(4, 1)
    return Study(residual_model, calibration, (pictures(3, 2), pictures(3, 3)), training=training)


def test_by_default_it_is_the_squared_error_against_reference_and_target(residual_model, pictures):
    with_target, without = (study_of(residual_model, pictures, there) for there in (True, False))
    assert loss_of(with_target) == Loss({"l2": 1.0}, {"l2": 1.0}, 1.0)
    assert loss_of(without) == Loss({"l2": 1.0}, {}, 1.0)
    feed, _, target = examples_of(with_target).each()[1]
    assert np.array_equal(target.numpy(), pictures(4, 5)[1:2])
    assert np.array_equal(feed["x"].numpy(), pictures(4, 1)[1:2])


def test_a_target_loss_without_targets_is_told(residual_model, pictures):
    study = study_of(residual_model, pictures, False, target={"l1": 1.0})
    with pytest.raises(InputError, match=r"training\.target asks for l1 against targets, but the calibration data"):
        study.check()
    study_of(residual_model, pictures, True, target={"l1": 1.0}).check()


def test_a_study_is_saved_with_the_targets_of_its_calibration_data(residual_model, pictures, tmp_path):
    study_of(residual_model, pictures, True, target={"l1": 1.0}).save(tmp_path / "study")
    again = load_study(tmp_path / "study")
    again.check()
    assert np.array_equal(again.calibration_target, pictures(4, 5))


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"target": {"l3": 1.0}}, r"must name l1, l2, ssim, kl, cross_entropy, but got 'l3' \(did you mean 'l"),
        ({"reference": {"l1": -1.0}}, "must be at least 0"),
        ({"reference": {}, "target": {}}, "must not both be without a measure"),
        ({"temperature": 0.0}, "must be above 0"),
    ],
)
def test_wrong_losses_are_told(residual_model, pictures, training, words):
    with pytest.raises(InputError, match=words):
        study_of(residual_model, pictures, True, **training)


def test_the_study_file_knows_the_measures_that_there_are():
    assert tuple(MEASURES) == definition.MEASURES
