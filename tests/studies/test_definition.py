"""The study file: defaults, and one clear line for whatever is wrong."""

import re
import tomllib

import pytest

from slimfront.spaces.errors import InputError
from slimfront.studies.definition import DEFAULT_STEPS, StudentsTable, parse_settings, read_settings, to_toml
from slimfront.studies.limits import Limits

LEAST = {
    "name": "a",
    "model": {"file": "m.onnx"},
    "data": {"calibration": "c.npz", "evaluation": "e.npz"},
}


def with_tables(**tables):
    changed = {key: dict(value) if isinstance(value, dict) else value for key, value in LEAST.items()}
    for table, values in tables.items():
        if values is None:
            changed.pop(table)
        elif isinstance(values, dict):
            changed[table] = {**changed.get(table, {}), **values}
        else:
            changed[table] = values
    return changed


def test_defaults_are_those_of_the_design():
    settings = parse_settings(LEAST)
    assert settings.space.weight_bits == (2, 3, 4, 5, 6, 8, 32)
    assert settings.space.activation_bits == (8, 32)
    assert settings.data.range == settings.data.input_range == (0.0, 1.0)
    assert settings.target.model_dump() == {
        "runtime": "onnxruntime",
        "provider": "CPUExecutionProvider",
        "threads": 1,
        "device": None,
        "saturation_safe": False,
    }
    assert settings.search.model_dump() == {"trials": 200, "sampler": "frontier", "seed": 0, "stage_timeout": None}
    assert settings.limits == Limits()


def test_an_absent_key_of_a_present_space_does_not_vary():
    assert parse_settings(with_tables(space={"weight_bits": [4, 8]})).space.activation_bits == (32,)
    assert parse_settings(with_tables(space={"activation_bits": [8, 32]})).space.weight_bits == (32,)
    assert parse_settings(with_tables(space={})).space.weight_bits == (32,)
    assert parse_settings(with_tables(space={"weight_bits": [4]})).space.pruning_ratios == (0.0,)
    assert parse_settings(with_tables(space={"weight_bits": [4]})).space.sparsities == (0.0,)


def test_constraints_are_read_as_numbers():
    settings = parse_settings(with_tables(constraints={"max_size": "1MB", "max_latency": "40ms", "min_psnr": 28}))
    assert settings.limits == Limits(max_size=1e6, max_latency=40.0, min_psnr=28.0)


def test_what_is_trained_may_be_told():
    assert parse_settings(with_tables()).training.student_steps(shared_here=False) == 0
    assert parse_settings(with_tables()).training.student_steps(shared_here=True) == DEFAULT_STEPS
    told = parse_settings(with_tables(training={"steps": 9, "share": 0.2})).training
    assert (told.student_steps(False), told.polish_steps, told.share) == (9, 9, 0.2)
    with pytest.raises(InputError, match=r"training.share must be below 1"):
        parse_settings(with_tables(training={"share": 1.0}))


def test_students_are_asked_for_or_described():
    assert parse_settings(with_tables()).students is None
    assert parse_settings(with_tables(space={"students": False})).students is None
    assert parse_settings(with_tables(space={"students": True})).students == StudentsTable()
    told = parse_settings(with_tables(space={"students": {"count": 2, "width": [16, 32], "block": ["plain"]}})).students
    assert told.count == 2
    assert told.sizes == {"width": (16, 32), "block": ("plain",)}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"widht": [16]}, "unknown key 'widht' (did you mean 'width'?)"),
        ({"count": 0}, "space.students.count must be above 0"),
        ({"block": ["residul"]}, "must be of residual, plain, separable, but got 'residul' (did you mean 'residual'?)"),
        ({"coarse": [3]}, "must be powers of 2, but got 3"),
        ({"depth": [-1]}, "space.students.depth must be at least 0"),
    ],
)
def test_what_is_wrong_about_students_is_told(table, words):
    with pytest.raises(InputError, match=re.escape(words)):
        parse_settings(with_tables(space={"students": table}))


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"serch": {"trials": 3}}, ["unknown key 'serch'", "did you mean 'search'", "allowed: name, model"]),
        ({"search": {"trails": 3}}, ["[search] unknown key 'trails'", "did you mean 'trials'"]),
        ({"search": {"trials": 0}}, ["search.trials must be above 0", "got 0"]),
        ({"search": {"trials": "4"}}, ["search.trials must be a whole number", "'4'"]),
        ({"search": {"trials": True}}, ["search.trials must be a whole number"]),
        ({"search": {"seed": -1}}, ["search.seed must be at least 0"]),
        ({"search": {"stage_timeout": "5 parsecs"}}, ["search.stage_timeout must be a time", "'5 parsecs'"]),
        ({"search": {"stage_timeout": 0}}, ["search.stage_timeout must be above 0"]),
        ({"search": {"stage_timeout": True}}, ["search.stage_timeout", "True"]),
        ({"search": {"sampler": "tpee"}}, ["search.sampler", "frontier, tpe, nsga2, gp, random", "mean 'tpe'"]),
        ({"name": None}, ["'name' is missing"]),
        ({"name": "a/b"}, ["name must be a plain name", "'a/b'"]),
        ({"model": None}, ["'model' is missing"]),
        ({"model": {"file": 3}}, ["model.file must be a text"]),
        ({"model": {"file": "m.py:build"}}, ["[model]", "input_shape is missing"]),
        ({"model": {"weights": "w.pt"}}, ["[model]", "weights go with a PyTorch model"]),
        ({"model": {"input_shape": [1, 0]}}, ["model.input_shape must be above 0", "got 0"]),
        ({"model": {"input_shape": 3}}, ["model.input_shape must be a list", "got 3"]),
        ({"model": {"input_shape": {"style": [1, 0]}}}, ["model.input_shape.style must be above 0", "got 0"]),
        ({"data": {"calibraton": "x"}}, ["[data] unknown key 'calibraton'", "did you mean 'calibration'"]),
        ({"data": {"range": [1.0, 0.0]}}, ["data.range must be [black, white]", "[1.0, 0.0]"]),
        ({"data": {"range": [0, 1, 2]}}, ["data.range must have at most 2"]),
        ({"data": {"range": [0.0, float("nan")]}}, ["data.range", "finite"]),
        ({"space": {"weight_bits": [1, 4]}}, ["space.weight_bits must be one of 2, 3,", "got 1"]),
        ({"space": {"weight_bits": [9]}}, ["space.weight_bits", "16, 32, but got 9"]),
        ({"space": {"weight_bits": []}}, ["space.weight_bits", "empty"]),
        ({"space": {"activation_bits": [16]}}, ["space.activation_bits must be one of 8, 32", "got 16"]),
        (
            {"space": {"weight_bits": [16, 32], "activation_bits": [8]}},
            ["[space] activation_bits [8] needs", "[16, 32]"],
        ),
        ({"space": {"pruning_ratios": [1.0]}}, ["space.pruning_ratios", "1.0"]),
        ({"space": {"fixed": {"a": {"weight_bit": 8}}}}, ["[space.fixed.a]", "did you mean 'weight_bits'"]),
        ({"space": {"fixed": {"a": {"form": "phase"}}}}, ["must be one of native, phases", "did you mean 'phases'"]),
        (
            {"space": {"fixed": {"a": {"weight_bits": 16, "activation_bits": 8}}}},
            ["[space.fixed.a]", "needs weight_bits 2-8"],
        ),
        ({"space": 3}, ["space must be a table"]),
        ({"constraints": {"max_size": "1XB"}}, ["constraints.max_size must be a size", "'1XB'"]),
        ({"constraints": {"max_latency": "fast"}}, ["constraints.max_latency must be a time", "'fast'"]),
        ({"constraints": {"min_psnr": "high"}}, ["constraints.min_psnr must be a number"]),
        ({"constraints": {"max_memory": "much"}}, ["constraints.max_memory must be a size", "'much'"]),
        ({"constraints": {"max_memory": 0}}, ["constraints.max_memory must be above 0"]),
        ({"constraints": {"max_memry": 1}}, ["did you mean 'max_memory'"]),
        ({"constraints": {"max_sise": 1}}, ["did you mean 'max_size'"]),
        ({"target": {"threads": 0}}, ["target.threads must be above 0"]),
        ({"target": {"saturation_safe": "yes"}}, ["target.saturation_safe must be true or false"]),
    ],
)
def test_what_is_wrong_is_one_clear_line(tables, words):
    with pytest.raises(InputError) as caught:
        parse_settings(with_tables(**tables))
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_a_file_that_is_no_toml_or_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_settings(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(InputError, match=r"bad\.toml: this is no valid TOML"):
        read_settings(tmp_path / "bad.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="no valid TOML"):
        read_settings(tmp_path / "binary.toml")
    (tmp_path / "key.toml").write_text('nam = "a"')
    with pytest.raises(InputError, match=r"key\.toml: unknown key 'nam'"):
        read_settings(tmp_path / "key.toml")


@pytest.mark.parametrize(
    "tables",
    [
        {},
        {"model": {"input_shape": {"image": [1, 3, 8, 8], "odd name": [1, 8]}}},
        {"model": {"input_shape": [1, 3, 8, 8]}, "data": {"test": "tést.npz", "range": [-1.0, 1.0]}},
        {"space": {"weight_bits": [4], "fixed": {'odd "name" [0].x': {"weight_bits": 8}}}},
        {"constraints": {"max_size": "1MB"}, "target": {"threads": 2}, "search": {"seed": 3}},
    ],
)
def test_what_is_written_as_toml_is_read_back(tables):
    settings = parse_settings(with_tables(**tables))
    assert parse_settings(tomllib.loads(to_toml(settings))) == settings
