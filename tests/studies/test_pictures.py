"""Pictures of the report against plain NumPy."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from slimfront.studies.pictures import as_pictures, data_uri, difference, difference_factor, make_gallery


def decoded(uri: str) -> np.ndarray:
    header, _, body = uri.partition(",")
    assert header == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("RGB"))


@pytest.fixture
def reference() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 20, 24, 3), np.uint8)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_black_and_white_are_the_ends_of_the_range(low: float, high: float):
    ramp = np.linspace(low, high, 256).reshape(1, 1, 16, 16)
    pictures = as_pictures(ramp, low, high)
    assert pictures is not None
    assert pictures.shape == (1, 16, 16, 3)
    np.testing.assert_array_equal(pictures[0].reshape(256, 3), np.arange(256)[:, None].repeat(3, 1))


@pytest.mark.parametrize("shape", [(2, 10), (2, 3, 8), (2, 3, 1, 1)])
def test_outputs_that_are_no_pictures_give_none(shape: tuple[int, ...]):
    assert as_pictures(np.zeros(shape), 0.0, 1.0) is None


def test_difference_is_the_amplified_gap(reference: np.ndarray):
    other = np.random.default_rng(1).integers(0, 256, reference.shape, np.uint8)
    expected = np.clip(4 * np.abs(reference.astype(int) - other.astype(int)), 0, 255)
    np.testing.assert_array_equal(difference(reference, other, 4), expected)


def test_factor_grows_as_differences_shrink(reference: np.ndarray):
    factors = [difference_factor(reference, [reference // 2]), difference_factor(reference, [reference])]
    assert factors[0] < factors[1]
    assert set(factors) <= {1, 2, 4, 8, 16, 32}


def test_lossless_tiles_hold_the_exact_values(reference: np.ndarray):
    np.testing.assert_array_equal(decoded(data_uri(reference[0], None)), reference[0])


def test_each_candidate_shows_its_own_worst_image_first(reference: np.ndarray):
    psnr = {7: np.array([30.0, 20.0, 25.0, 31.0, 32.0]), 9: np.array([30.0, 29.0, 10.0, 31.0, 32.0])}
    gallery = make_gallery(reference, {7: reference, 9: reference}, psnr)
    assert [row.image for row in gallery.comparisons[7]] == [1, 2, 0]
    assert [row.image for row in gallery.comparisons[9]] == [2, 1, 0]
    assert gallery.lossless
    tile = decoded(gallery.tiles[gallery.comparisons[9][0].reference])
    np.testing.assert_array_equal(tile, reference[2])


@pytest.mark.parametrize("budget", [200_000, 40_000, 10_000])
def test_gallery_keeps_its_budget(budget: int):
    random = np.random.default_rng(0)
    reference = random.integers(0, 256, (4, 300, 300, 3), np.uint8)
    candidates = {i: random.integers(0, 256, reference.shape, np.uint8) for i in range(3)}
    gallery = make_gallery(reference, candidates, {i: random.random(4) for i in candidates}, budget)
    assert sum(map(len, gallery.tiles.values())) <= budget
    if gallery.tiles:
        assert gallery.cropped
        assert set(gallery.comparisons) == set(candidates)
