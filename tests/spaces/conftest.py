"""What the tests of `slimfront.spaces` share: models written in ONNX's text form, captured, built, run and looked into."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function (text, opset=21, **weights) that writes a model; the text is ``(inputs) => (outputs) { nodes }``."""
    import onnx
    from onnx import numpy_helper

    folder = tmp_path_factory.mktemp("models")
    numbers: Iterator[int] = iter(range(10**6))

    def write(text: str, opset: int = 21, **weights: np.ndarray) -> Path:
        model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}, "other": 1]> g {text}')
        for name, array in weights.items():
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        path = folder / f"{next(numbers)}.onnx"
        onnx.save(model, path)
        return path

    return write


@pytest.fixture(scope="session")
def capture(onnx_file: Callable[..., Path]) -> Callable[..., object]:
    """A function (text, input_shape=None, opset=21, **weights) that writes a model and captures it."""
    from slimfront.spaces.capture import capture_onnx

    def captured(text: str, input_shape: tuple[int, ...] | None = None, opset: int = 21, **weights: np.ndarray):
        return capture_onnx(onnx_file(text, opset, **weights), input_shape)

    return captured


@pytest.fixture(scope="session")
def weight() -> Callable[..., np.ndarray]:
    """A function (*shape, seed=0) that returns float32 weights that keep the size of what they multiply."""

    def random(*shape: int, seed: int = 0) -> np.ndarray:
        fan = max(1, int(np.prod(shape[1:])))
        values = np.random.default_rng((seed, *shape)).standard_normal(shape) / np.sqrt(fan)
        return values.astype(np.float32)

    return random


@pytest.fixture(scope="session")
def noise() -> Callable[..., np.ndarray]:
    """A function (*shape, seed=0) that returns float32 inputs: smooth, positive and negative, within -1..1."""

    def random(*shape: int, seed: int = 0) -> np.ndarray:
        values = np.random.default_rng((7, seed, *shape)).standard_normal(shape)
        return np.tanh(values).astype(np.float32)

    return random


@pytest.fixture(scope="session")
def run() -> Callable[..., np.ndarray]:
    """A function (model, x or dict, optimize=True) that returns the first output of a file, its bytes or a built model."""
    from slimfront.spaces.session import open_session

    def outputs(model, x, optimize: bool = True) -> np.ndarray:
        data = model if isinstance(model, bytes | Path) else model.to_bytes()
        session = open_session(data, optimize=optimize)
        feed = x if isinstance(x, dict) else {session.get_inputs()[0].name: x}
        return session.run(None, feed)[0]

    return outputs


@pytest.fixture(scope="session")
def reference(run: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """A function (graph, x) that returns the captured graph's own output."""
    import onnx_ir as ir

    return lambda graph, x: run(ir.to_proto(graph.model).SerializeToString(), x)


@pytest.fixture(scope="session")
def optimized(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., SimpleNamespace]:
    """A function (built or bytes) that returns ONNX Runtime's optimised graph: op counts, initializers, nodes, integer kernels.

    ``lacking`` names the captured nodes of a built candidate that should run in integers and do not.
    """
    import onnx
    from onnx import numpy_helper

    from slimfront.spaces.kernels import INTEGER, integer_reads
    from slimfront.spaces.session import open_session

    path = tmp_path_factory.mktemp("optimized") / "optimized.onnx"

    def look(model) -> SimpleNamespace:
        open_session(model if isinstance(model, bytes) else model.to_bytes(), optimized_path=path)
        graph = onnx.load(path).graph
        ops = Counter(node.op_type for node in graph.node)
        return SimpleNamespace(
            ops=ops,
            integer_kernels=sum(ops[op] for op in INTEGER),
            lacking=None if isinstance(model, bytes) else model.fallbacks(integer_reads(path)),
            initializers={tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer},
            nodes=list(graph.node),
        )

    return look


@pytest.fixture(scope="session")
def exact_bits() -> int:
    """The widest integer weights that this machine multiplies exactly: 7 where its kernels saturate, 8 elsewhere."""
    from slimfront.spaces.saturation import saturates

    return 7 if saturates() else 8


@pytest.fixture(scope="session")
def skip_saturated(exact_bits: int) -> Callable[[int], None]:
    """A function (bits) that skips a test of integer weights of a width that saturates here; test 7 bits beside 8."""

    def skip(bits: int) -> None:
        if bits > exact_bits:
            pytest.skip(f"integer weights of {bits} bits saturate on this processor, which has no VNNI")

    return skip


@pytest.fixture(scope="session")
def uniform_candidate() -> Callable[..., object]:
    """A function (graph, weight_bits, activation_bits=32, repair="static") that returns the uniform candidate."""
    from slimfront.spaces.space import uniform

    def candidate(graph, weight_bits: int, activation_bits: int = 32, repair: str = "static"):
        return uniform(graph, {"weight_bits": weight_bits, "activation_bits": activation_bits, "repair": repair})[0]

    return candidate
