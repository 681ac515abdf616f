"""Diversity, texture and the worst group against independent computations, their laws, and what they refuse."""

from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import convolve2d
from skimage.filters import gaussian
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from slimfront.objectives import manifold
from slimfront.objectives.diversity import SAMPLES_A_NEIGHBOUR, Diversity
from slimfront.objectives.embedding import AT_ONCE, SIDE, random_features
from slimfront.objectives.own import Given, Own
from slimfront.objectives.protocol import About, Reading, Subject
from slimfront.objectives.quality import psnr_db
from slimfront.objectives.samples import Samples
from slimfront.objectives.texture import SIGMA, Texture, gradient_similarity, high_frequencies
from slimfront.objectives.worst_group import WorstGroup
from slimfront.spaces.errors import BuildError, InputError

ALL = [Diversity(2), Texture(), WorstGroup()]


@pytest.fixture(scope="module")
def digits():
    return (load_digits().images[:120] / 16.0).astype(np.float32)[:, None]


def model(outputs, target=None, group=None):
    return SimpleNamespace(outputs=outputs, samples=Samples({"x": outputs}, target, group=group))


def subject(outputs, reference, target=None, group=None):
    return Subject(model(outputs, target, group), model(reference, target, group))


def points(seed, count, size=3):
    return np.random.default_rng(seed).standard_normal((count, size))


def sums_of_neighbours(real, made, k):
    """Coverage and recall by scikit-learn."""
    own = NearestNeighbors(n_neighbors=k + 1).fit(real)
    radii = own.kneighbors(real)[0][:, k]
    nearest = NearestNeighbors(n_neighbors=1).fit(made).kneighbors(real)[0][:, 0]
    made_radii = NearestNeighbors(n_neighbors=k + 1).fit(made).kneighbors(made)[0][:, k]
    distances = np.linalg.norm(real[:, None] - made[None], axis=2)
    return float(np.mean(nearest <= radii)), float(np.mean((distances <= made_radii).any(axis=1)))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 5), st.floats(0.0, 3.0))
def test_coverage_and_recall_are_those_of_nearest_neighbours(seed, k, shift):
    real, made = points(seed, 40), points(seed + 1, 35) + shift
    coverage = manifold.coverage(real, made, manifold.radii(real, k))
    recall = manifold.recall(real, made, manifold.radii(made, k))
    assert (coverage, recall) == pytest.approx(sums_of_neighbours(real, made, k))


def test_distances_are_taken_in_parts_that_change_nothing(monkeypatch):
    real, made = points(0, 30), points(1, 30)
    whole = manifold.radii(real, 3), manifold.coverage(real, made, manifold.radii(real, 3))
    monkeypatch.setattr(manifold, "AT_ONCE", 7)
    assert np.array_equal(manifold.radii(real, 3), whole[0])
    assert manifold.coverage(real, made, whole[0]) == whole[1]


@pytest.mark.parametrize("objective", ALL, ids=lambda one: one.name)
def test_a_model_that_is_equal_to_the_reference_has_the_best_value(objective, digits):
    group = np.arange(len(digits)) % 3
    readings = objective.measure(subject(digits, digits, group=group))
    for name, about in objective.readings.items():
        assert readings[name].value == (100.0 if about.unit == "dB" else 1.0)
        assert readings[name].unit == about.unit
        assert about.maximise and about.explanation


@pytest.mark.parametrize("objective", ALL, ids=lambda one: one.name)
def test_the_order_of_the_samples_changes_nothing(objective, digits):
    random = np.random.default_rng(0)
    outputs = np.clip(digits + 0.2 * random.standard_normal(digits.shape).astype(np.float32), 0.0, 1.0)
    group, order = np.arange(len(digits)) % 3, random.permutation(len(digits))
    one = objective.measure(subject(outputs, digits, group=group))
    other = objective.measure(subject(outputs[order], digits[order], group=group[order]))
    assert {n: r.value for n, r in one.items()} == pytest.approx({n: r.value for n, r in other.items()}, abs=1e-5)


def test_a_model_that_makes_one_picture_has_hardly_any_diversity(digits):
    one = np.repeat(digits[:1], len(digits), axis=0)
    readings = Diversity(5).measure(subject(one, digits))
    assert readings["coverage"].value < 0.1
    assert readings["recall"].value < 0.1


def test_the_more_kinds_are_lost_the_less_diversity_is_left(digits):
    kinds = load_digits().target[: len(digits)]
    values = []
    for kept in (10, 6, 2):
        pool = digits[kinds < kept]
        nearest = ((digits[:, None] - pool[None]) ** 2).sum(axis=(2, 3, 4)).argmin(axis=1)
        values.append(Diversity(3).measure(subject(pool[nearest], digits))["coverage"].value)
    assert values[0] == 1.0
    assert values[0] > values[1] > values[2]


def test_a_reference_is_looked_at_once(digits):
    calls = []

    def features(images):
        calls.append(len(images))
        return images.reshape(len(images), -1)

    objective, reference = Diversity(3, features), model(digits)
    for noise in (0.0, 0.1):
        objective.measure(Subject(model(digits + np.float32(noise)), reference))
    assert len(calls) == 3


def test_random_features_do_not_depend_on_the_batch_nor_on_the_version_of_numpy(digits):
    features = random_features(digits[:4], 0.0, 1.0)
    again = random_features(np.concatenate([digits[:4]] * AT_ONCE)[: AT_ONCE + 3], 0.0, 1.0)
    assert np.allclose(features, again[:4], atol=1e-5)
    assert features.shape == (4, 64)
    assert features.mean() == pytest.approx(0.2000, abs=5e-4)  # RandomState's numbers are frozen
    assert features[0, :3] == pytest.approx([0.3092, 0.0960, 0.0019], abs=5e-4)


def test_features_of_large_pictures_are_those_of_their_means():
    small = np.random.default_rng(0).random((3, 2, SIDE, SIDE), dtype=np.float32)
    large = small.repeat(3, axis=2).repeat(2, axis=3)
    assert np.allclose(random_features(large, 0.0, 1.0), random_features(small, 0.0, 1.0), atol=1e-4)


@pytest.mark.parametrize("shape", [(5, 1, 1, 1), (5, 7), (5, 3, 40, 33), (5, 4, 2, 9, 9)])
def test_outputs_of_any_shape_have_features_and_texture(shape):
    images = np.random.default_rng(0).random(shape, dtype=np.float32)
    assert np.isfinite(random_features(images, 0.0, 1.0)).all()
    readings = Texture().measure(subject(images, images[::-1].copy()))
    assert all(np.isfinite(reading.value) for reading in readings.values())


def test_too_few_samples_are_told_with_the_number_that_would_do(digits):
    needed = 5 * SAMPLES_A_NEIGHBOUR
    with pytest.raises(InputError, match=f"5 neighbours need at least {needed} samples, but data.evaluation has 20"):
        Diversity(5).check(Samples({"x": digits[:20]}), "data.evaluation")
    with pytest.raises(InputError, match="give it 30 more, or set neighbours = 2"):
        Diversity(5).check(Samples({"x": digits[:20]}), "data.evaluation")
    Diversity(5).check(Samples({"x": digits[:needed]}), "data.evaluation")


def test_features_that_are_none_are_refused(digits):
    with pytest.raises(InputError, match=r"must return an array \[120, D\], but got \[3\]"):
        Diversity(2, lambda images: np.zeros(3)).measure(subject(digits, digits))
    with pytest.raises(BuildError, match="not finite"):
        Diversity(2, lambda images: np.full((len(images), 2), np.nan)).measure(subject(digits, digits))
    with pytest.raises(InputError, match="neighbours must be at least 1, but got 0"):
        Diversity(0)


def test_high_frequencies_are_what_the_blur_of_scikit_image_takes_away(digits):
    expected = [image - gaussian(image, SIGMA, mode="reflect", truncate=4.0) for image in digits[:5, 0]]
    assert high_frequencies(digits[:5])[:, 0] == pytest.approx(np.array(expected), abs=1e-5)


def test_gradient_similarity_is_the_mean_of_xue_and_others(digits):
    across = np.array([[1, 0, -1]] * 3) / 3.0
    one, other = digits[3, 0].astype(float), digits[8, 0].astype(float)

    def magnitude(image):
        padded = np.pad(image, 1, mode="symmetric")
        return np.hypot(*(convolve2d(padded, kernel, mode="valid") for kernel in (across, across.T)))

    a, b, c = magnitude(one), magnitude(other), 170.0 / 255.0**2
    expected = np.mean((2 * a * b + c) / (a**2 + b**2 + c))
    assert gradient_similarity(digits[3:4], digits[8:9], 0.0, 1.0) == pytest.approx([expected])
    scaled = gradient_similarity(255.0 * digits[3:4], 255.0 * digits[8:9], 0.0, 255.0)
    assert scaled == pytest.approx([expected], abs=1e-6)


def test_texture_tells_a_blur_from_a_shift_of_brightness_of_the_same_psnr(digits):
    target = 0.25 + 0.5 * digits
    blurred = gaussian(target, sigma=(0, 0, 0.8, 0.8)).astype(np.float32)
    shift = np.sqrt(((blurred - target) ** 2).mean(axis=(1, 2, 3), keepdims=True)).astype(np.float32)
    shifted = target + shift
    assert psnr_db(blurred, target, 0, 1) == pytest.approx(psnr_db(shifted, target, 0, 1), abs=1e-2)
    readings = [Texture().measure(subject(each, target)) for each in (blurred, shifted)]
    assert readings[0]["texture_db"].value < readings[1]["texture_db"].value - 10.0
    assert readings[0]["gradient_similarity"].value < readings[1]["gradient_similarity"].value


def test_the_worst_group_is_the_least_of_the_means_and_is_named(digits):
    group = np.array(["ink", "chalk", "oil"])[np.arange(len(digits)) % 3]
    noise = np.where(group == "chalk", 0.3, 0.05)[:, None, None, None]
    outputs = (digits + noise * np.random.default_rng(0).standard_normal(digits.shape)).astype(np.float32)
    readings = WorstGroup().measure(subject(outputs, digits * 0, digits, group))
    psnr = psnr_db(outputs, digits, 0.0, 1.0)
    means = {name: psnr[group == name].mean() for name in ("ink", "chalk", "oil")}
    assert readings["worst_group_db"].value == pytest.approx(means["chalk"])
    assert readings["worst_group_db"].how == "group chalk, the worst of 3: mean of 40 images against the target"
    assert {n: r.value for n, r in readings.items() if n != "worst_group_db"} == pytest.approx(
        {f"group_{name}_db": value for name, value in means.items()}
    )


def test_groups_that_are_not_there_are_asked_for(digits):
    with pytest.raises(
        InputError, match=r"data\.evaluation has no array 'group': add one of 120 whole numbers or texts"
    ):
        WorstGroup().check(Samples({"x": digits}), "data.evaluation")


def test_a_function_of_ones_own_is_given_the_subject_and_its_numbers_are_read(digits):
    def sharpness(subject):
        return {"sharpness": subject.model.outputs.max(), "psnr_db": 2}

    readings = Own("sharpness", sharpness, About("sharpness", "dB")).measure(subject(digits, digits))
    assert (readings["sharpness"].value, readings["sharpness"].unit) == (1.0, "dB")
    assert (readings["sharpness_psnr_db"].value, readings["sharpness_psnr_db"].unit) == (2.0, "")
    assert "psnr_db" not in readings  # it is another's


@pytest.mark.parametrize(
    ("returned", "error", "words"),
    [
        ({"more": 2}, InputError, "must return a number under 'sharpness', but has 'more'"),
        ("sharp", InputError, "must give a number, but got str"),
        (None, InputError, "must give a number, but got NoneType"),
        (float("nan"), BuildError, "not finite"),
    ],
)
def test_what_is_no_number_is_refused(returned, error, words, digits):
    with pytest.raises(error, match=words):
        Own("sharpness", lambda _: returned, About("sharpness")).measure(subject(digits, digits))


def test_an_object_is_asked_under_the_name_that_the_study_gives_it(digits):
    class Energy:
        name = "energy"
        readings: ClassVar = {"energy_j": About("energy", "J", maximise=False)}

        def measure(self, subject):
            return {"energy_j": Reading(3.0, "J")}

    given = Given("power", Energy(), About("power"))
    assert (given.name, list(given.readings)) == ("power", ["energy_j"])
    assert given.measure(subject(digits, digits))["energy_j"].value == 3.0
    Energy.measure = lambda self, subject: {"other": Reading(3.0, "J")}
    with pytest.raises(InputError, match="must give a Reading 'energy_j', but gives other"):
        given.measure(subject(digits, digits))
