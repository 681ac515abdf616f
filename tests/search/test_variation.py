"""New inputs made of samples: unlike any of them, and never beyond what the samples are like."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfront.search import variation
from slimfront.search.variation import Variation, moved


def images(count=4, channels=3, height=12, width=12, seed=0):
    return np.random.default_rng(seed).uniform(0.0, 255.0, (count, channels, height, width)).astype(np.float32)


@given(seed=st.integers(0, 1000), height=st.integers(2, 9), width=st.integers(2, 9), batch=st.integers(1, 3))
def test_images_stay_within_what_each_channel_has(seed, height, width, batch):
    samples = images(height=height, width=width)
    found = Variation({"x": samples}).draw(np.random.default_rng(seed), batch)["x"]
    assert found.shape == (batch, 3, height, width) and found.dtype == np.float32
    low, high = samples.min((0, 2, 3), keepdims=True), samples.max((0, 2, 3), keepdims=True)
    assert (found >= low - 1e-3).all() and (found <= high + 1e-3).all()
    assert found.flags.c_contiguous


def test_equal_seeds_give_equal_inputs_and_others_do_not():
    made = Variation({"x": images()})
    first, again, other = (made.draw(np.random.default_rng(seed), 2)["x"] for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


def test_an_image_is_made_of_several_samples():
    samples = np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1) * np.ones((1, 1, 16, 16), np.float32)
    made = Variation({"x": samples})
    found = [len(np.unique(made.draw(np.random.default_rng(seed), 1)["x"])) for seed in range(30)]
    assert max(found) == 4, "four patches"
    assert np.mean(found) > 2


def test_several_images_are_cut_turned_and_mixed_alike(monkeypatch):
    monkeypatch.setattr(variation, "COLOURED", 0.0)
    one = images()
    both = Variation({"image": one, "twice": np.repeat(one, 2, 1)})
    for seed in range(10):
        found = both.draw(np.random.default_rng(seed), 1)
        assert (found["twice"][:, ::2] == found["image"]).all()
    halves = Variation({"image": one, "half": one[:, :, ::2, ::2]}).draw(np.random.default_rng(0), 1)
    assert halves["half"].shape == (1, 3, 6, 6)


@settings(max_examples=20)
@given(seed=st.integers(0, 100))
def test_noise_keeps_mean_and_variance(seed):
    samples = np.random.default_rng(seed).normal(2.0, 3.0, (400, 8)).astype(np.float32)
    found = Variation({"z": samples}).draw(np.random.default_rng(seed), 400)["z"]
    assert found.dtype == np.float32
    assert found.mean() == pytest.approx(2.0, abs=0.4) and found.std() == pytest.approx(3.0, rel=0.1)
    assert not any((row == samples).all(1).any() for row in found), "no sample as it is"


def test_conditions_stay_those_of_a_sample():
    style = np.random.default_rng(0).uniform(size=(4, 5)).astype(np.float32)
    found = Variation({"image": images(), "style": style}).draw(np.random.default_rng(3), 6)
    assert all((row == style).all(1).any() for row in found["style"])
    label = np.eye(4, dtype=np.float32)
    noise = np.random.default_rng(1).normal(size=(4, 7, 1, 1)).astype(np.float32)
    found = Variation({"noise": noise, "label": label}).draw(np.random.default_rng(3), 6)
    assert all((row == label).all(1).any() for row in found["label"])
    assert found["noise"].shape == (6, 7, 1, 1)
    whole = np.arange(12).reshape(4, 3)
    found = Variation({"index": whole}).draw(np.random.default_rng(0), 2)["index"]
    assert found.dtype == whole.dtype and all((row == whole).all(1).any() for row in found)


def test_what_is_no_square_is_mirrored_instead_of_turned():
    wide = images(height=4, width=6)
    assert moved({"x": wide}, 1, False)["x"].shape == wide.shape
    assert Variation({"x": wide}).draw(np.random.default_rng(0), 1)["x"].shape == (1, 3, 4, 6)


def test_maps_stay_maps_and_belong_to_their_images():
    mask = (images(channels=1, seed=5) > 100.0).astype(np.float32)
    made = Variation({"image": images(), "mask": mask})
    for seed in range(20):
        found = made.draw(np.random.default_rng(seed), 1)
        assert np.isin(found["mask"], (0.0, 1.0)).all()
    assert Variation({"mask": mask}).able


def test_patches_are_of_the_sample_that_a_condition_belongs_to(monkeypatch):
    monkeypatch.setattr(variation, "COLOURED", 0.0)
    pictures = np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1) * np.ones((1, 1, 8, 8), np.float32)
    level = np.linspace(0.1, 0.7, 4, dtype=np.float32)[:, None]
    made = Variation({"image": pictures, "level": level})
    for seed in range(20):
        found = made.draw(np.random.default_rng(seed), 1)
        (row,) = np.flatnonzero(level == found["level"])
        assert found["image"] == pytest.approx(row, abs=1e-6)


def test_where_nothing_can_be_made_it_is_said():
    tokens = np.arange(12).reshape(4, 3)
    series = np.random.default_rng(0).standard_normal((4, 5, 6)).astype(np.float32)
    one = np.random.default_rng(0).standard_normal((1, 8)).astype(np.float32)
    for inputs in (tokens, series, one):
        assert not Variation({"x": inputs}).able
    assert Variation({"x": images()}).able and Variation({"x": np.repeat(one, 2, 0)}).able


def test_noise_stays_within_the_values_of_the_samples():
    samples = np.random.default_rng(0).uniform(-1.0, 1.0, (50, 8)).astype(np.float32)
    found = Variation({"z": samples}).draw(np.random.default_rng(1), 200)["z"]
    assert found.min() >= samples.min() and found.max() <= samples.max()
