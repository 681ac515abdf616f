"""What tests share: a cache folder of their own, and a tiny model that every step takes milliseconds on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

SIDE = 16

# An example may take long: the machine is busy, mostly.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as there are processors: none needs more than one
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLIMFRONT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def facts_of_every_machine():
    """What a space offers does not depend on the machine that tests."""
    from slimfront.studies import study

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "kernel_step", lambda *_: 16)
        patch.setattr(study, "layer_offers", lambda *_: {})
        yield


def few_rounds():
    """Return a timing of as few rounds as there may be."""
    from slimfront.objectives.timing import Timing

    return Timing(least_rounds=3, most_rounds=3, slot_seconds=0.0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let searches time in few rounds: what they find by it does not matter to a test, unless it is a slow one."""
    from slimfront.objectives.timing import Timing
    from slimfront.search import evaluate

    evaluate.Timing = Timing if item.get_closest_marker("slow") else few_rounds  # type: ignore[misc, assignment]


@pytest.fixture
def nobody_in_doubt(monkeypatch: pytest.MonkeyPatch):
    """Nobody is timed again at the end of a search, so that nobody joins the front when files are not kept any more."""
    monkeypatch.setattr("slimfront.search.timing_queue.doubtful", lambda run: [])


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three convolutions on [1, 3, 16, 16], named conv0 to conv2, with Relu between them."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weights = {}
    for i, (outputs, inputs) in enumerate([(16, 3), (16, 16), (3, 16)]):
        weight = random.standard_normal((outputs, inputs, 3, 3)) / np.sqrt(9 * inputs)
        weights[f"w{i}"] = weight.astype(np.float32)
        weights[f"b{i}"] = np.full(outputs, 0.1, np.float32)
    nodes = []
    for i in range(3):
        source = "x" if i == 0 else f"relu{i - 1}"
        nodes.append(helper.make_node("Conv", [source, f"w{i}", f"b{i}"], [f"conv{i}"], f"conv{i}", pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"conv{i}"], [f"relu{i}"], f"act{i}"))
    shape = [1, 3, SIDE, SIDE]
    graph = helper.make_graph(
        nodes[:-1],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("conv2", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


@pytest.fixture(scope="session")
def residual_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A residual network on [1, 3, 16, 16]: layers a to e, 24 channels in its trunk and 32 within the block."""
    import onnx
    from onnx import numpy_helper

    text = (
        '<ir_version: 8, opset_import: ["": 21]> g (float[1,3,16,16] x) => (float[n,c,h,w] y) {\n'
        "[a] p = Conv<pads=[1,1,1,1]>(x, wa, ba) r = Relu(p) [b] q = Conv<pads=[1,1,1,1]>(r, wb, bb) s = Relu(q)\n"
        "[c] t = Conv<pads=[1,1,1,1]>(s, wc, bc) u = Add(r, t) [d] v = Conv(u, wd, bd) l = LeakyRelu(v)\n"
        "[e] y = Conv<pads=[1,1,1,1]>(l, we, be) }"
    )
    model, random = onnx.parser.parse_model(text), np.random.default_rng(0)
    for name, size in {
        "a": (24, 3, 3, 3),
        "b": (32, 24, 3, 3),
        "c": (24, 32, 3, 3),
        "d": (32, 24, 1, 1),
        "e": (3, 32, 3, 3),
    }.items():
        values = random.standard_normal(size).astype(np.float32) / np.sqrt(np.prod(size[1:])).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, f"w{name}"))
        model.graph.initializer.append(numpy_helper.from_array(np.full(size[0], 0.1, np.float32), f"b{name}"))
    path = tmp_path_factory.mktemp("residual") / "residual.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def pictures() -> Callable[[int, int], np.ndarray]:
    """A function (count, seed) that returns float32 noise [count, 3, 16, 16] in 0..1."""
    return lambda count, seed: np.random.default_rng(seed).random((count, 3, SIDE, SIDE), dtype=np.float32)


@pytest.fixture(scope="session")
def write_study(tiny_model: Path, pictures: Callable[[int, int], np.ndarray]) -> Callable[[Path], None]:
    """A function that fills a folder with study.toml, the tiny model, and samples without targets."""

    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "tiny.onnx").write_bytes(tiny_model.read_bytes())
        np.savez(folder / "calibration.npz", input=pictures(4, 1))
        np.savez(folder / "evaluation.npz", input=pictures(3, 2))
        (folder / "study.toml").write_text(
            'name = "tiny"\n'
            '[model]\nfile = "tiny.onnx"\n'
            '[data]\ncalibration = "calibration.npz"\nevaluation = "evaluation.npz"\n'
            '[search]\ntrials = 10\nsampler = "random"\n'
        )

    return write


@pytest.fixture
def study_folder(tmp_path: Path, write_study: Callable[[Path], None]) -> Path:
    """The folder of a study."""
    folder = tmp_path / "study"
    write_study(folder)
    return folder
