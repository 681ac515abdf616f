"""The ready-made studies: their data, what their networks can do, and that they compress."""

from __future__ import annotations

from functools import cache
from importlib import import_module

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio
from sklearn.neighbors import KNeighborsClassifier

from slimfront.search.loop import search
from slimfront.spaces.session import infer, open_session
from slimfront.studies.candidates import build, given_candidates
from slimfront.studies.data import check_distinct
from slimfront.studies.digits_vae.digits import digits
from slimfront.studies.study import Study, load_study, ready_made
from slimfront.studies.styles.filters import FILTERS, mosaic, pencil
from slimfront.studies.styles.model import STYLES
from slimfront.studies.superres.train import bicubic

NAMES = ("digits_gan", "digits_vae", "strokes_rvae", "styles", "superres")
SMALL = ("digits_gan", "strokes_rvae")  # whose statistics are soon made
MAX_WEIGHTS_BYTES = 7_000_000


@cache
def study(name: str) -> Study:
    return load_study(name)


def outputs(name: str, part: str, model: bytes | None = None) -> NDArray[np.float32]:
    """What a study's reference, or a model made of it, gives on its evaluation or test data, clipped to its range."""
    loaded = study(name)
    session = open_session(loaded.graph.to_bytes() if model is None else model, threads=2)
    samples = getattr(loaded, part)
    low, high = loaded.settings.data.range
    return np.clip(infer(session, samples.inputs, loaded.graph.batch), low, high)


def mean_psnr_db(images: NDArray, targets: NDArray, value_range: float = 1.0) -> float:
    pairs = zip(images, targets, strict=True)
    return float(np.mean([peak_signal_noise_ratio(target, image, data_range=value_range) for image, target in pairs]))


@pytest.mark.parametrize("name", NAMES)
def test_no_sample_is_in_two_sets_and_making_the_data_again_gives_the_same(name):
    loaded, made = study(name), import_module(f"slimfront.studies.{name}.data")
    sets = {"calibration": loaded.calibration, "evaluation": loaded.evaluation.inputs, "test": loaded.test.inputs}
    check_distinct(sets)
    for part, inputs in sets.items():
        for input_name, array in inputs.items():
            assert np.array_equal(getattr(made, part)()[input_name], array)


@pytest.mark.parametrize(("name", "condition"), [("digits_gan", "digit"), ("styles", "style")])
def test_a_sample_s_group_is_its_condition(name, condition):
    for samples in (study(name).evaluation, study(name).test):
        conditions = samples.inputs[condition].argmax(axis=1)
        assert (
            len({*zip(conditions, samples.group, strict=True)})
            == len({*conditions})
            == samples.inputs[condition].shape[1]
        )


@pytest.mark.parametrize("name", NAMES)
def test_weights_lie_beside_the_study_and_are_no_more_than_they_should_be(name):
    folder = ready_made()[name]
    stored = folder / f"{name}.safetensors"
    assert 4 * sum(layer.parameters for layer in study(name).graph.layers.values()) < stored.stat().st_size * 1.01
    assert stored.stat().st_size < MAX_WEIGHTS_BYTES
    for file in ("train.py", "README.md", "front.png", f"{name}.png"):
        assert (folder / file).is_file(), file


def test_the_digits_drawn_are_those_that_were_asked_for():
    asked = study("digits_gan").test.inputs["digit"].argmax(axis=1)
    drawn = (outputs("digits_gan", "test") + 1.0) / 2.0
    true, labels = digits("training")
    reader = KNeighborsClassifier(3).fit(true.reshape(len(true), -1), labels)
    assert (reader.predict(drawn.reshape(len(drawn), -1)) == asked).mean() >= 0.85


def test_the_digits_of_one_kind_differ():
    drawn = outputs("digits_gan", "test").reshape(8, 10, -1)
    apart = np.abs(drawn[:, None] - drawn[None, :]).mean(axis=3)[~np.eye(8, dtype=bool)]
    assert apart.min() > 0.02


@pytest.mark.parametrize(("name", "least_db"), [("digits_vae", 22.0), ("strokes_rvae", 20.0)])
def test_the_decoder_draws_digits_that_it_never_saw_readably(name, least_db):
    images, labels = digits("training")
    reader = KNeighborsClassifier(3).fit(images.reshape(len(images), -1), labels)
    for part in ("evaluation", "test"):
        samples, drawn = getattr(study(name), part), outputs(name, part)
        assert mean_psnr_db(drawn, samples.target) > least_db
        true, read = (reader.predict(x.reshape(len(x), -1)) for x in (samples.target, drawn))
        assert (true == read).mean() >= 0.85


@pytest.mark.parametrize("part", ["evaluation", "test"])
def test_super_resolution_is_nearer_to_the_photographs_than_bicubic_enlargement(part):
    samples = getattr(study("superres"), part)
    enlarged = bicubic(samples.inputs["input"])
    assert mean_psnr_db(outputs("superres", part), samples.target) > mean_psnr_db(enlarged, samples.target) + 0.5


@pytest.mark.parametrize("part", ["evaluation", "test"])
def test_each_style_is_nearest_to_its_own_filter(part):
    samples = getattr(study("styles"), part)
    painted, targets = outputs("styles", part).reshape(4, 4, -1), samples.target.reshape(4, 4, -1)
    assert (samples.inputs["style"].argmax(axis=1).reshape(4, 4) == np.arange(4)).all()
    apart = np.square(painted[:, :, None] - targets[:, None]).mean(axis=(0, 3))
    assert (apart.argmin(axis=1) == np.arange(4)).all()
    assert apart.diagonal().max() < 0.01


def test_filters_of_styles_keep_the_size_and_the_range():
    photograph = np.random.default_rng(0).random((32, 48, 3))
    assert tuple(FILTERS) == STYLES
    for filtered in (FILTERS[style](photograph) for style in STYLES):
        assert filtered.shape == photograph.shape
        assert filtered.min() >= 0.0
        assert filtered.max() <= 1.0


def test_paper_stays_blank_under_the_pencil_and_a_tile_has_one_colour():
    assert np.ptp(pencil(np.full((32, 32, 3), 0.7))) < 1e-9
    tiles = mosaic(np.random.default_rng(0).random((16, 16, 3))).reshape(4, 4, 4, 4, 3)
    inner = tiles[:, 1:3, :, 1:3]
    assert np.ptp(inner, axis=(1, 3)).max() < 1e-9
    with pytest.raises(ValueError, match="multiples of 4, but got 30 x 32"):
        mosaic(np.zeros((30, 32, 3)))


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in SMALL)) for name in NAMES])
def test_a_uniform_candidate_of_eight_bits_is_a_third_of_the_size_and_much_the_same(name):
    loaded = study(name)
    [candidate], _ = given_candidates(loaded, [], "weight_bits=8,activation_bits=8")
    model = build(loaded, candidate)
    assert len(model) < len(loaded.graph.to_bytes()) / 3
    low, high = loaded.settings.data.range
    same = mean_psnr_db(outputs(name, "evaluation", model), outputs(name, "evaluation"), high - low)
    assert same > 30.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in NAMES if name != "strokes_rvae"]
)  # which is searched by its own tests
def test_the_default_search_finds_a_front_of_eight(name, tmp_path):
    run = search(study(name), run_dir=tmp_path / name)
    assert len(run.front_trials()) >= 8
