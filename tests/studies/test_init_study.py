"""Init: the study file it writes can be read, and says what it looked up."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from slimfront.spaces.errors import InputError
from slimfront.studies.init import evident_range, init_study


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for seed, name in enumerate(("calibration", "evaluation")):
        np.savez(folder / f"{name}.npz", input=np.random.default_rng(seed).random((2, 3, 16, 16), np.float32))
    return folder


def test_paths_are_relative_to_the_study_file(tiny_model: Path, data: Path, tmp_path: Path):
    (tmp_path / "studies").mkdir()
    output = tmp_path / "studies" / "mine.toml"
    assert init_study(tiny_model, data, output) == []
    study = tomllib.loads(output.read_text())
    assert (output.parent / study["model"]["file"]).resolve() == tiny_model.resolve()
    assert study["data"]["calibration"] == "../data/calibration.npz"
    assert "input_shape" not in study["model"]
    assert "# input x: float32 [1, 3, 16, 16]" in output.read_text()


def test_free_axes_get_a_shape_to_measure_at(tiny_model: Path, tmp_path: Path):
    import onnx

    model = onnx.load(tiny_model)
    for axis, name in ((0, "batch"), (2, "height"), (3, "width")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    onnx.save(model, tmp_path / "free.onnx")
    todo = init_study(tmp_path / "free.onnx", None, tmp_path / "study.toml")
    text = (tmp_path / "study.toml").read_text()
    assert tomllib.loads(text)["model"]["input_shape"] == [1, 3, 256, 256]
    assert "[batch, 3, height, width]" in text
    assert {"fill in data.calibration", "fill in data.evaluation", "check model.input_shape"} <= set(todo)


def test_several_inputs_with_free_axes_get_a_table_of_shapes(tmp_path: Path):
    import onnx

    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 21]> g (float[N,3,H,W] x, float[N,8] z, float[1] k) => (float[N,3,H,W] y)'
        " { y = Mul(x, k) }"
    )
    onnx.save(model, tmp_path / "two.onnx")
    todo = init_study(tmp_path / "two.onnx", None, tmp_path / "study.toml")
    shapes = tomllib.loads((tmp_path / "study.toml").read_text())["model"]["input_shape"]
    assert shapes == {"x": [1, 3, 256, 256], "z": [1, 8]}
    assert "check model.input_shape" in todo


def test_names_with_quotes_and_newlines_stay_readable(tiny_model: Path, tmp_path: Path):
    odd = tmp_path / 'a "b"\\ c\n.onnx'
    odd.write_bytes(tiny_model.read_bytes())
    init_study(odd, None, tmp_path / "study.toml")
    assert tomllib.loads((tmp_path / "study.toml").read_text())["model"]["file"] == odd.name


def test_a_pytorch_model_gets_a_shape_to_check(tmp_path: Path):
    (tmp_path / "model.py").write_text("def build(): ...\n")
    todo = init_study(f"{tmp_path}/model.py:build", None, tmp_path / "study.toml")
    model = tomllib.loads((tmp_path / "study.toml").read_text())["model"]
    assert model == {"file": "model.py:build", "input_shape": [1, 3, 256, 256]}
    assert "check model.input_shape" in todo


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.1, 0.9, (0.0, 1.0)), (-0.02, 1.1, (0.0, 1.0)), (-0.9, 0.8, (-1.0, 1.0)), (3.0, 240.0, (0.0, 255.0))],
)
def test_evident_ranges(low: float, high: float, expected: tuple[float, float]):
    assert evident_range(low, high) == expected


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x08"])
def test_a_file_that_is_no_model_is_one_clear_line(content: bytes, tmp_path: Path):
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.onnx"):
        init_study(tmp_path / "bad.onnx", None, tmp_path / "study.toml")
    assert not (tmp_path / "study.toml").exists()


def test_a_folder_without_the_two_sets_says_what_is_wanted(tiny_model: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"calibration\.npz and evaluation\.npz") as caught:
        init_study(tiny_model, tmp_path, tmp_path / "study.toml")
    assert "tiny_calibration.npz and tiny_evaluation.npz" in str(caught.value)
    assert "folders of images named calibration and evaluation" in str(caught.value)


@pytest.mark.parametrize("name", ["tiny_calibration.npz", "calibration.npz", "calibration"])
def test_data_are_found_under_each_of_the_names_told(name: str, tiny_model: Path, tmp_path: Path):
    (tmp_path / name).mkdir() if name == "calibration" else np.savez(tmp_path / name)
    init_study(tiny_model, tmp_path, tmp_path / "study.toml")
    assert tomllib.loads((tmp_path / "study.toml").read_text())["data"]["calibration"] == name
