"""Peak memory of real models in real processes, and what is predicted of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slimfront.objectives.memory import Memory, measure_once, predicted
from slimfront.objectives.protocol import OpenModel, Subject
from slimfront.objectives.samples import Samples
from slimfront.objectives.target import OnnxRuntime
from slimfront.spaces.build import Builder
from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.errors import BuildError
from slimfront.spaces.space import uniform

LARGE = 64 << 20  # bytes of the tensor between two small ones
NEAR = 0.15


def model_of(text: str, weights: dict[str, np.ndarray], folder: Path, shape: tuple[int, ...]) -> OpenModel:
    """Write a model of one input "x" and open it."""
    import onnx
    from onnx import numpy_helper

    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 21]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    path = folder / "model.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return OpenModel(path, Samples({"x": np.random.default_rng(0).random((2, *shape[1:]), dtype=np.float32)}))


@pytest.fixture
def wide(tmp_path: Path) -> OpenModel:
    """A small input, a tensor of `LARGE` bytes, and a small output; nothing of it is a convolution."""
    repeats = np.array([1, 4, 16, 16], np.int64)
    assert 4 * 64 * 64 * int(repeats.prod()) * 4 == LARGE
    text = "g (float[1,4,64,64] x) => (float[1,16,1,1] y) { t = Tile(x, r) u = Exp(t) y = GlobalMaxPool(u) }"
    return model_of(text, {"r": repeats}, tmp_path, (1, 4, 64, 64))


@pytest.fixture
def heavy(tmp_path: Path) -> OpenModel:
    """Weights of 4 MB, small tensors."""
    weight = np.random.default_rng(1).standard_normal((256, 256, 4, 4)).astype(np.float32)
    text = "g (float[1,256,2,2] x) => (float[1,256,1,1] y) { y = Conv<pads=[1,1,1,1]>(x, w) }"
    return model_of(text, {"w": weight}, tmp_path, (1, 256, 2, 2))


def test_a_large_tensor_between_small_ones_is_in_the_peak_twice_and_foretold(wide: OpenModel):
    """Tile and its exponential are alive at once; the second run takes a block for both beside what the first one had."""
    found = measure_once(wide)
    assert found["running"] >= 2 * LARGE
    assert found["loading"] < LARGE / 8
    told = predicted(wide)["predicted_memory_bytes"].value
    assert told == pytest.approx(max(found.values()), rel=NEAR)


def test_weights_take_most_while_the_file_is_opened(heavy: OpenModel):
    found = measure_once(heavy)
    size = heavy.path.stat().st_size
    assert found["loading"] > 2 * size > found["running"] > size
    told = predicted(heavy)["predicted_memory_bytes"].value
    assert told == pytest.approx(max(found.values()), rel=NEAR)


def test_weights_of_few_bits_take_their_floats_when_they_run_and_more_when_they_are_opened(heavy, tmp_path):
    graph = capture_onnx(heavy.path)
    builder = Builder(graph, dict(heavy.samples.inputs))
    small = tmp_path / "small.onnx"
    builder.build(uniform(graph, {"weight_bits": 4})[0]).save(small)
    floats = heavy.path.stat().st_size
    assert small.stat().st_size < floats / 7
    model = OpenModel(small, heavy.samples)
    found = measure_once(model)
    assert found["running"] > 0.95 * floats
    assert found["loading"] > 4 * floats
    told = predicted(model)["predicted_memory_bytes"].value
    assert told == pytest.approx(max(found.values()), rel=NEAR)


def test_readings_of_several_processes_agree(tiny_model, pictures):
    model = OpenModel(tiny_model, Samples({"x": pictures(3, 0)}))
    reading = Memory(processes=2).measure(Subject(model, model))["memory_bytes"]
    assert reading.low is not None and reading.high is not None
    assert reading.low <= reading.value <= reading.high < reading.low + 2_000_000
    assert "2 processes" in reading.how


def test_another_provider_is_measured_but_not_foretold(tiny_model, pictures):
    model = OpenModel(tiny_model, Samples({"x": pictures(1, 0)}), target=OnnxRuntime(provider="SomeOther"))
    assert predicted(model) == {}
    with pytest.raises(BuildError, match="SomeOther"):
        measure_once(model)
