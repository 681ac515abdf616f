"""Samples from files, folders and functions, and every way in which they may be wrong."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slimfront.spaces.errors import InputError
from slimfront.studies.study import Study, load_study


def save_images(folder: Path, count: int, size: tuple[int, int] = (16, 16), mode: str = "RGB") -> list[np.ndarray]:
    folder.mkdir(parents=True)
    channels = {"RGB": (3,), "L": ()}[mode]
    pixels = [
        np.random.default_rng(i).integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8) for i in range(count)
    ]
    for i, array in enumerate(pixels):
        Image.fromarray(array, mode).save(folder / f"{i}.png")
    return pixels


def change(folder: Path, old: str, new: str) -> Study:
    file = folder / "study.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    return load_study(folder)


@pytest.fixture
def study(study_folder):
    return load_study(study_folder)


def test_npz_files(study, pictures):
    study.check()
    assert (study.calibration["x"] == pictures(4, 1)).all()
    assert study.evaluation.target is None
    assert study.test is None


def test_a_uint8_target_is_scaled_to_the_range(study_folder, pictures):
    target = np.arange(3 * 3 * 16 * 16).reshape(3, 3, 16, 16).astype(np.uint8)
    np.savez(study_folder / "evaluation.npz", input=pictures(3, 2), target=target)
    study = change(study_folder, "[data]\n", "[data]\nrange = [-1.0, 1.0]\n")
    assert study.evaluation.target == pytest.approx(target / 127.5 - 1.0, abs=1e-6)
    assert study.evaluation.target.dtype == np.float32


def test_a_float_target_is_taken_as_it_is(study_folder, pictures):
    np.savez(study_folder / "evaluation.npz", input=pictures(3, 2), target=pictures(3, 3).astype(np.float64))
    assert (load_study(study_folder).evaluation.target == pictures(3, 3)).all()


def test_arrays_may_stand_under_the_inputs_names(study_folder, pictures):
    np.savez(study_folder / "calibration.npz", x=pictures(4, 1))
    assert (load_study(study_folder).calibration["x"] == pictures(4, 1)).all()


def test_a_folder_of_images(study_folder):
    pixels = save_images(study_folder / "photos", 3)
    study = change(study_folder, 'evaluation = "evaluation.npz"', 'evaluation = "photos"\ninput_range = [0.0, 255.0]')
    assert (study.evaluation.inputs["x"] == np.stack(pixels).transpose(0, 3, 1, 2)).all()
    assert study.evaluation.target is None


def test_a_folder_of_pairs(study_folder):
    save_images(study_folder / "photos/input", 2)
    targets = save_images(study_folder / "photos/target", 2)
    study = change(study_folder, '"evaluation.npz"', '"photos"')
    assert study.evaluation.target == pytest.approx(np.stack(targets).transpose(0, 3, 1, 2) / 255.0, abs=1e-6)


def test_the_middle_of_larger_images_is_taken_and_told(study_folder):
    pixels = save_images(study_folder / "photos", 2, size=(40, 20))
    study = change(study_folder, '"evaluation.npz"', '"photos"')
    middle = np.stack(pixels)[:, 2:18, 12:28].transpose(0, 3, 1, 2) / 255.0
    assert study.evaluation.inputs["x"] == pytest.approx(middle, abs=1e-6)
    assert "2 of 2 images are larger" in study.warnings[-1]


def test_a_function_of_a_python_file(study_folder, pictures):
    (study_folder / "data.py").write_text(
        "import numpy as np\n"
        "def evaluation():\n"
        "    return {'input': np.full((2, 3, 16, 16), 0.5, np.float32), 'target': np.zeros((2, 3, 16, 16), np.uint8)}\n"
    )
    study = change(study_folder, '"evaluation.npz"', '"data.py:evaluation"')
    assert study.evaluation.count == 2
    assert study.evaluation.target.max() == 0.0


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"inputs": (4, "float32")}, ["data.calibration must hold 'input'", "has 'inputs'"]),
        ({}, ["must hold 'input'", "has nothing"]),
        (
            {"input": (4, "float32"), "targets": (4, "float32")},
            ["holds 'targets', which nothing reads", "did you mean 'target'"],
        ),
        ({"input": (4, "uint8")}, ["data.calibration: input must be float32", "got uint8"]),
        ({"input": (4, "U3")}, ["must be float32"]),
        ({"input": (0, "float32")}, ["at least one sample"]),
    ],
)
def test_calibration_data_of_the_wrong_kind(study_folder, arrays, words):
    made = {name: np.zeros((count, 3, 16, 16), dtype) for name, (count, dtype) in arrays.items()}
    np.savez(study_folder / "calibration.npz", **made)
    with pytest.raises(InputError) as caught:
        load_study(study_folder).check()
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("shape", [(4, 3, 16, 17), (4, 1, 16, 16), (3, 16, 16), (4, 16, 16, 3)])
def test_calibration_data_of_the_wrong_shape(study_folder, shape):
    np.savez(study_folder / "calibration.npz", input=np.zeros(shape, np.float32))
    with pytest.raises(InputError, match=r"input must have shape \[N, 3, 16, 16\], but got"):
        load_study(study_folder).check()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_data_that_is_not_finite(study_folder, pictures, value):
    broken = pictures(4, 1)
    broken[2, 0, 3, 3] = value
    np.savez(study_folder / "calibration.npz", input=broken)
    with pytest.raises(InputError, match=r"data\.calibration: input has NaN or infinite values \(sample 2\)"):
        load_study(study_folder).check()


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e300])
def test_values_that_are_not_finite_in_float32_are_refused_from_any_source(study_folder, tiny_model, pictures, value):
    broken = pictures(4, 1).astype(np.float64)
    broken[2, 0, 3, 3] = value
    np.save(study_folder / "broken.npy", broken)
    (study_folder / "data.py").write_text(
        "from pathlib import Path\nimport numpy as np\n"
        "def broken():\n    return {'input': np.load(Path(__file__).with_name('broken.npy'))}\n"
    )
    from_function = change(study_folder, '"calibration.npz"', '"data.py:broken"')
    in_memory = Study(tiny_model, broken, pictures(3, 2))
    for study in (from_function, in_memory):
        with pytest.raises(InputError, match=r"data\.calibration: (input|x) has NaN or infinite values \(sample 2\)"):
            study.check()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (np.zeros((3, 3, 16, 17), np.uint8), r"target must have shape \[3, 3, 16, 16\]"),
        (np.zeros((2, 3, 16, 16), np.uint8), r"target must have shape \[3, 3, 16, 16\]"),
        (np.zeros((3, 3, 16, 16), np.int64), "or uint8 in 0..255, but got int64"),
        (np.full((3, 3, 16, 16), 255.0), "far outside data.range"),
        (np.full((3, 3, 16, 16), np.nan), "target has NaN"),
    ],
)
def test_targets_that_do_not_fit(study_folder, pictures, target, words):
    np.savez(study_folder / "evaluation.npz", input=pictures(3, 2), target=target)
    with pytest.raises(InputError, match=words):
        load_study(study_folder).check()


@pytest.mark.parametrize("other", ["evaluation", "test"])
def test_sets_that_share_a_sample(study_folder, pictures, other):
    shared = np.concatenate([pictures(2, 5), pictures(4, 1)[1:2]])
    np.savez(study_folder / f"{other}.npz", input=shared)
    if other == "test":
        change(study_folder, "[search]", 'test = "test.npz"\n[search]')
    with pytest.raises(
        InputError, match=rf"data\.{other} shares a sample with data\.calibration \(sample 2 is sample 1"
    ):
        load_study(study_folder).check()


def test_a_sample_twice_in_one_set_is_no_mistake(study_folder, pictures):
    np.savez(study_folder / "calibration.npz", input=np.repeat(pictures(1, 1), 3, axis=0))
    load_study(study_folder).check()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("none.npz", "there is no file or folder"),
        ("study.toml", r"must be a \.npz file, a folder of images or"),
        ("broken.npz", "cannot be read as .npz"),
        ("pickled.npz", "cannot be read as .npz"),
        ("empty", "holds no images"),
        ("none.py:f", "there is no file"),
        ("data.py:none", "has no function 'none'"),
        ("data.py:fails", r"fails\(\) of .* fails: ZeroDivisionError"),
        ("data.py:nothing", "must return a dict of arrays, but got NoneType"),
        ("syntax.py:f", "cannot be imported"),
        ("grey", r"must be 16 x 16 pixels, but is 8 x 8"),
        ("text", "cannot be read as an image"),
        ("odd", "an image of the same name in input/ and target/; alone: '2'"),
        ("lone", "there is no folder"),
    ],
)
def test_sources_that_cannot_be_read(study_folder, source, words):
    (study_folder / "broken.npz").write_bytes(b"PK\x03\x04 torn")
    np.savez(study_folder / "pickled.npz", input=np.array([{}], dtype=object))
    (study_folder / "empty").mkdir()
    (study_folder / "data.py").write_text("def fails():\n    return 1 / 0\ndef nothing():\n    pass\n")
    (study_folder / "syntax.py").write_text("def f(:\n")
    save_images(study_folder / "grey", 1, size=(8, 8), mode="L")
    (study_folder / "text").mkdir()
    (study_folder / "text/a.png").write_text("no image")
    save_images(study_folder / "odd/input", 3)
    save_images(study_folder / "odd/target", 2)
    save_images(study_folder / "lone/input", 1)
    study = change(study_folder, '"calibration.npz"', f'"{source}"')
    with pytest.raises(InputError, match=words) as caught:
        study.check()
    assert str(caught.value).startswith("data.calibration")
    assert "\n" not in str(caught.value)
