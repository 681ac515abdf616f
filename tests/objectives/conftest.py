"""What the tests of the latency predictor share: a network, and a predictor that has learned a machine with known times."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibration on a clock that goes on by a second whenever it is looked at: seconds are rounds."""
    from slimfront.objectives import calibration

    ticks = itertools.count()
    monkeypatch.setattr(calibration, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))


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


@pytest.fixture
def parts(residual_model: Path, pictures: Callable[[int, int], np.ndarray]):
    """Builder, space and feed of the residual network."""
    from .machines import study_parts

    return study_parts(residual_model, pictures(4, 1))
