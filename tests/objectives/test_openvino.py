"""OpenVINO as a target: sessions like ONNX Runtime's, kernels, profiles, and whether it computes what ONNX Runtime does."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from slimfront.objectives.agreement import LEAST_DB, Agreement
from slimfront.objectives.kernel_profile import Rounds
from slimfront.objectives.memory import measure_once
from slimfront.objectives.protocol import OpenModel, Subject
from slimfront.objectives.runtimes import RUNTIMES, make_target
from slimfront.objectives.samples import Samples
from slimfront.objectives.target import STOCK, OnnxRuntime
from slimfront.objectives.timing import Timing
from slimfront.spaces.errors import BuildError, InputError

openvino = pytest.importorskip("openvino")

from slimfront.objectives import openvino as module  # noqa: E402
from slimfront.objectives.openvino import OpenVino  # noqa: E402

NETWORK = (
    '<ir_version: 8, opset_import: ["": 21]> g (float[n,4,h,w] x) => (float[n,c,oh,ow] y, float[n,4,h,w] z) '
    "{ a = Conv<pads=[1,1,1,1]>(x, w)\n y = Relu(a)\n z = Sigmoid(x) }"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A convolution of free height, width and batch, with a second output."""
    import onnx
    from onnx import numpy_helper

    parsed = onnx.parser.parse_model(NETWORK)
    weight = np.random.default_rng(0).standard_normal((8, 4, 3, 3)).astype(np.float32)
    parsed.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    path = tmp_path_factory.mktemp("models") / "model.onnx"
    onnx.save(parsed, path)
    return path


def pictures(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).random(shape, np.float32)


def test_a_session_gives_what_onnx_runtime_gives_at_any_size(model):
    session, stock = OpenVino().open(model), STOCK.open(model)
    for shape in ((1, 4, 8, 8), (2, 4, 6, 10), (1, 4, 8, 8)):
        feed = {"x": pictures(*shape)}
        for found, expected in zip(session.run(None, feed), stock.run(None, feed), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_outputs_of_one_run_stay_when_the_next_begins(model):
    session = OpenVino().open(model)
    first = session.run(None, {"x": pictures(1, 4, 8, 8)})[0]
    before = first.copy()
    session.run(None, {"x": 2 * pictures(1, 4, 8, 8)})
    assert (first == before).all()


def test_a_file_that_is_none_is_one_clear_line(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(BuildError, match="OpenVINO cannot load the model") as caught:
        OpenVino().open(path)
    assert "\n" not in str(caught.value)


def test_the_precision_is_pinned(model):
    session = OpenVino().open(model)
    compiled = session.compiled({"x": (1, 4, 8, 8)})
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == module.PRECISION
    assert module.PRECISION in RUNTIMES["openvino"].version()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_profile_has_the_kernels_of_the_graph(threads, model):
    target = OpenVino("here", threads)
    feed = {"x": pictures(1, 4, 32, 32)}
    [profile] = target.profiles([model], feed, Rounds(3, 3))
    expected = target.kernels(model, {"x": (1, 4, 32, 32)})
    assert [kernel.key for kernel in profile.kernels] == [kernel.key for kernel in expected]
    assert profile.times_ms.shape == (3, len(expected)) and (profile.whole_ms > 0).all()
    (product,) = [kernel for kernel in expected if kernel.is_product]
    assert product.multiply_adds == 8 * 32 * 32 * 4 * 9 and not product.integer
    attributes = dict(product.attributes)
    assert (attributes["group"], attributes["kernel_shape"], attributes["dilations"]) == (1, (3, 3), (1, 1))


def test_models_are_timed_in_turn_like_any(model):
    samples = Samples({"x": pictures(2, 4, 16, 16)})
    target = make_target("openvino")
    readings = Timing(seconds=0.2, longest=0.4).measure(
        Subject(OpenModel(model, samples, 1, target), OpenModel(model, samples, 1, target))
    )
    assert readings["speedup"].low <= readings["speedup"].value <= readings["speedup"].high


def test_memory_is_told_from_the_tensors_that_are_alive_at_once(tmp_path):
    """Two tensors of 16 MB, of which both are needed for a moment."""
    import onnx
    from onnx import numpy_helper

    parsed = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 21]> g (float[1,4,512,512] x) => (float[1,16,1,1] y) '
        "{ a = Conv<pads=[1,1,1,1]>(x, w) b = Conv<pads=[1,1,1,1]>(a, v) y = GlobalMaxPool(b) }"
    )
    random = np.random.default_rng(0)
    for name, inputs in {"w": 4, "v": 16}.items():
        weight = random.standard_normal((16, inputs, 3, 3)).astype(np.float32)
        parsed.graph.initializer.append(numpy_helper.from_array(weight, name))
    path = tmp_path / "model.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(parsed), path)
    alive = 2 * 4 * 16 * 512**2
    told = OpenVino().predicted_memory(path, {"x": (1, 4, 512, 512)})
    found = measure_once(OpenModel(path, Samples({"x": pictures(1, 4, 512, 512)}), target=OpenVino()))
    assert alive <= told.running_bytes - told.loading_bytes < 1.1 * alive
    assert found["running"] > alive
    assert told.peak_bytes == pytest.approx(max(found.values()), rel=0.15)


def test_agreement_is_high_where_both_compute_the_same(model):
    subject = OpenModel(model, Samples({"x": pictures(2, 4, 8, 8)}, high=8.0), 1, OpenVino())
    assert Agreement().measure(Subject(subject, subject))["agreement_db"].value > 80


def test_a_runtime_that_computes_something_else_is_told_of(model):
    class Wrong:
        def run(self, names, feed):
            return [0 * output for output in STOCK.open(model).run(None, feed)]

    class Target(OnnxRuntime):
        def inspected(self, path, inputs):
            return Wrong(), None

    subject = OpenModel(model, Samples({"x": pictures(2, 4, 8, 8)}, high=8.0), 1, Target(runtime="Wrong"))
    with pytest.raises(BuildError, match=f"Wrong's output is .* dB from ONNX Runtime's.*at least {LEAST_DB:g}"):
        Agreement().measure(Subject(subject, subject))


def test_what_is_not_installed_is_named_with_what_to_install(monkeypatch):
    module.core.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r'pip install "slimfront\[openvino\]"'):
        RUNTIMES["openvino"].version()
    module.core.cache_clear()
