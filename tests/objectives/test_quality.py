"""PSNR and SSIM against scikit-image, fidelity and caps."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from slimfront.objectives.protocol import Subject
from slimfront.objectives.quality import Quality, psnr_db, ssim
from slimfront.objectives.samples import Samples


def images(seed, shape=(2, 3, 24, 20), low=0.0, high=1.0):
    return (low + (high - low) * np.random.default_rng(seed).random(shape)).astype(np.float32)


def model(outputs, target=None, low=0.0, high=1.0):
    return SimpleNamespace(outputs=outputs, samples=Samples({"x": outputs}, target, low, high))


@given(st.integers(0, 100), st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)]))
def test_psnr_is_that_of_scikit_image(seed, bounds):
    low, high = bounds
    a, b = images(seed, low=low, high=high), images(seed + 1000, low=low, high=high)
    expected = [peak_signal_noise_ratio(y, x, data_range=high - low) for x, y in zip(a, b, strict=True)]
    assert psnr_db(a, b, low, high) == pytest.approx(expected, abs=1e-4)


def test_psnr_of_equal_images_is_capped():
    assert psnr_db(images(0), images(0), 0.0, 1.0).tolist() == [100.0, 100.0]


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.0, 255.0)])
def test_ssim_is_that_of_scikit_image(bounds):
    low, high = bounds
    a = images(0, low=low, high=high)
    b = np.clip(a + 0.2 * (images(1, low=low, high=high) - low), low, high)
    values, window = ssim(a, b, low, high)
    expected = [
        structural_similarity(
            x, y, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=high - low
        )
        for x, y in zip(a, b, strict=True)
    ]
    assert values == pytest.approx(expected, abs=1e-6)
    assert window == 11


@pytest.mark.parametrize(("side", "window"), [(8, 7), (7, 7), (2, 1), (1, 1), (11, 11)])
def test_images_smaller_than_the_window_get_the_largest_odd_one_that_fits(side, window):
    a, b = images(0, (2, 1, side, side)), images(1, (2, 1, side, side))
    values, used = ssim(a, b, 0.0, 1.0)
    assert used == window
    assert np.isfinite(values).all()


def test_quality_is_against_the_target_and_fidelity_against_the_reference():
    target, reference, outputs = images(0), images(1), images(2)
    readings = Quality().measure(Subject(model(outputs, target), model(reference, target)))
    psnr = psnr_db(outputs, target, 0.0, 1.0)
    assert readings["psnr_db"].value == pytest.approx(psnr.mean())
    assert readings["worst_psnr_db"].value == pytest.approx(psnr.min())
    assert readings["fidelity_db"].value == pytest.approx(psnr_db(outputs, reference, 0.0, 1.0).mean())


def test_without_a_target_quality_is_fidelity():
    reference, outputs = images(1), images(2)
    readings = Quality().measure(Subject(model(outputs), model(reference)))
    assert readings["psnr_db"].value == readings["fidelity_db"].value < 20
    assert "the reference's output" in readings["psnr_db"].how


def test_a_small_window_is_told():
    small = images(0, (1, 1, 8, 8))
    readings = Quality().measure(Subject(model(small), model(small)))
    assert "window of 7 pixels" in readings["ssim"].how
