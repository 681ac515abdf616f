"""Files of another form than ONNX: what a build makes of the graph that it lowers to, and when."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import onnx
import pytest

from slimfront.spaces import build
from slimfront.spaces.build import Builder, built_hash, file_hash, file_parts, file_size
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.errors import BuildError
from slimfront.spaces.formats import ONNX, Format
from slimfront.spaces.rules import ONNX_RUNTIME, OPENVINO

from ..zipped import ZIPPED, pack


@pytest.fixture(scope="module")
def graph(tiny_model):
    from slimfront.spaces.capture import capture_onnx

    return capture_onnx(tiny_model)


@pytest.fixture(scope="module")
def calibration(pictures):
    return {"x": pictures(4, 1)}


@pytest.fixture(scope="module")
def candidate(graph):
    return Candidate({name: LayerChoice(4, 8) for name in graph.layers})


@pytest.fixture(scope="module")
def plain(graph, calibration, candidate):
    return Builder(graph, calibration).build(candidate)


@pytest.fixture(scope="module")
def zipped(graph, calibration, candidate):
    return Builder(graph, calibration, rules=ZIPPED).build(candidate)


def test_a_runtime_s_files_are_onnx_unless_its_rules_say_otherwise():
    assert ONNX_RUNTIME.format == OPENVINO.format == ONNX == Format(".onnx", None)


def test_size_hash_and_bytes_are_those_of_the_packed_file(zipped, plain, tmp_path):
    expected = pack(plain.model, {"x": (1, 3, 16, 16)})
    zipped.save(tmp_path / "model.zipped")
    assert zipped.to_bytes() == expected == (tmp_path / "model.zipped").read_bytes()
    assert zipped.size_bytes == len(expected) == file_size(tmp_path / "model.zipped") != plain.size_bytes
    assert zipped.sha256 == hashlib.sha256(expected).hexdigest()
    assert zipped.sha256 == file_hash(tmp_path / "model.zipped") == built_hash(tmp_path / "model.zipped")


def test_the_graph_that_was_lowered_to_is_written_whatever_the_format(zipped, plain, tmp_path):
    for name, built in {"zipped": zipped, "plain": plain}.items():
        built.save_graph(tmp_path / name)
        assert (tmp_path / name).read_bytes() == plain.to_bytes()


def test_shapes_are_those_to_measure_at_by_input(zipped, plain):
    assert zipped.shapes == plain.shapes == {"x": (1, 3, 16, 16)}


def test_a_file_is_packed_once_and_only_when_it_is_asked_for(graph, calibration, candidate, tmp_path):
    packed = []

    def counted(model, shapes):
        packed.append(shapes)
        return pack(model, shapes)

    builder = Builder(graph, calibration, rules=replace(ZIPPED, format=Format(".zipped", counted)))
    skeleton, built = builder.skeleton(candidate), builder.build(candidate)
    for made in (skeleton, built):
        made.save_graph(tmp_path / "graph.onnx")
        onnx.checker.check_model(tmp_path / "graph.onnx")
    assert packed == []
    assert built.sha256 and built.size_bytes and built.to_bytes()
    built.save(tmp_path / "model.zipped")
    assert packed == [{"x": (1, 3, 16, 16)}]


def test_only_onnx_puts_weights_beside_a_file(zipped, graph, calibration, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "EXTERNAL_ABOVE_BYTES", 100)
    built = Builder(graph, calibration, rules=ZIPPED).build(Candidate())
    built.save(tmp_path / "model.zipped")
    assert file_parts(tmp_path / "model.zipped") == list(tmp_path.iterdir()) == [tmp_path / "model.zipped"]
    assert built.size_bytes == len(built.to_bytes())


def test_what_cannot_be_packed_says_why(graph, calibration):
    def refuses(model, shapes):
        raise BuildError("conv0 has no form there")

    built = Builder(graph, calibration, rules=replace(ZIPPED, format=Format(".none", refuses))).build(Candidate())
    with pytest.raises(BuildError, match="conv0 has no form there"):
        _ = built.sha256
