"""OpenVINO on this machine: sessions, kernels and their times, always in float32 where no integers run.

OpenVINO's own choice of precision is bfloat16 on processors that have it: what is compared with the reference would be the other
number format, not the compression. So the precision is pinned, for the reference as for candidates.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ..spaces.build import UNNAMED
from ..spaces.errors import BuildError, InputError, last_line
from ..spaces.kernel_shapes import Tensor
from ..spaces.kernels import Kernel
from ..spaces.recurrent import GATES
from ..spaces.rules import OPENVINO, Rules
from ..spaces.statistics import Progress
from .kernel_profile import FIRST_RUNS, KernelProfile, Rounds, profile_in_turn

PRECISION = "f32"
# Kernels by the names that ops have in ONNX: products (`kernels.FLOAT`), and others that are looked for; the rest keep their own.
PRODUCTS = {
    "Convolution": "Conv",
    "GroupConvolution": "Conv",
    "Deconvolution": "ConvTranspose",
    "FullyConnected": "MatMul",
    "MatMul": "MatMul",
}
APART = "/WithoutBiases"  # ends the name of a convolution whose bias is added behind it
RECURRENT = ("RNNSeq", "RNNCell")  # that read inputs, states, lengths, and the weights last
OTHERS = {"Pooling": "MaxPool"}
GEOMETRY = ("strides", "dilations", "kernel", "mode", "block_size")  # of an op, beside its shapes
INTEGERS = ("u8", "i8")
MOVING = ("Reorder", "Transpose", "Reshape", "Convert")  # what may stand between stored weights and their kernel
NO_KERNELS = ("Const", "Input", "Output", "Parameter", "Result", "Reshape", "MemoryInput")
TYPES = {"f32": 1, "u8": 2, "i8": 3, "i32": 6, "i64": 7, "boolean": 9, "f16": 10, "f64": 11, "bf16": 16}  # as in ONNX


@dataclass(frozen=True)
class OpenVino:
    """OpenVINO's processor plugin.

    Attributes:
        fingerprint: of the machine.
        threads: of an inference.
    """

    fingerprint: str = ""
    threads: int = 1
    runtime: str = "OpenVINO"
    rules: Rules = OPENVINO

    def open(self, model: Path | bytes) -> OpenVinoSession:
        """Return a session."""
        return OpenVinoSession(model, self.threads)

    def inspected(
        self, model: Path, inputs: Mapping[str, tuple[int, ...]]
    ) -> tuple[OpenVinoSession, Counter[str] | None]:
        """Return a session, and its integer products."""
        session = self.open(model)
        return session, session.integer_products(inputs)

    def kernels(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> list[Kernel]:
        """Return the kernels of the graph that OpenVINO makes of the file."""
        return self.open(model).kernels(inputs)

    def profiles(
        self, models: Sequence[Path], feed: Mapping[str, np.ndarray], rounds: Rounds, progress: Progress | None = None
    ) -> list[KernelProfile]:
        """Run models in turn with OpenVINO's performance counters."""
        opened = partial(_Profiled, feed=feed, threads=self.threads)
        return profile_in_turn(opened, models, rounds, progress)


class OpenVinoSession:
    """A model in OpenVINO, run as ONNX Runtime's sessions are. Where shapes are free it is compiled for those it is given.

    Args:
        model: an ONNX file, or its bytes.
        threads: of an inference.
        profiling: whether the times of kernels are kept.

    Raises:
        InputError: OpenVINO is not installed.
        BuildError: it refuses the model.
    """

    def __init__(self, model: Path | bytes, threads: int = 1, profiling: bool = False) -> None:
        self._core = core()
        self._settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": PRECISION,
            "PERF_COUNT": profiling,
        }
        try:
            self._model = self._core.read_model(model if isinstance(model, bytes) else str(model))
        except Exception as error:
            raise _refused(error) from error
        self.is_free = self._model.is_dynamic()
        self._known: tuple[Any, Any] | None = None  # shapes, and the request for them
        if not self.is_free:
            self._request({})

    def run(self, output_names: Sequence[str] | None, feed: Mapping[str, np.ndarray], /) -> list[np.ndarray]:
        """Return all outputs for one batch, arrays by input name."""
        request = self._request({name: array.shape for name, array in feed.items()})
        request.infer(dict(feed), share_inputs=True)
        return [np.array(request.get_output_tensor(number).data) for number in range(len(self._model.outputs))]

    def kernels(self, shapes: Mapping[str, tuple[int, ...]] | None = None) -> list[Kernel]:
        """Return the kernels of the compiled model, for these shapes where some are free, in the order of the graph."""
        nodes = self._nodes(shapes)
        return [_kernel(node, facts, self._ops) for node, facts in nodes if facts["layerType"] not in NO_KERNELS]

    def integer_products(self, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Counter[str]:
        """Return how many convolutions and matrix products in integers are known by each tensor of the file that they write.

        Those that OpenVINO named after none of them count under `UNNAMED`. A kernel that several nodes were made one of counts
        for each of them, where it reads stored integers.
        """
        found: Counter[str] = Counter()
        for node, facts in self._nodes(shapes):
            named = [name for name in _written(node, facts) if name in self._ops]
            if facts["layerType"] in PRODUCTS and _type(node.inputs()[0]) in INTEGERS:
                found.update(named or [UNNAMED])
            elif facts["layerType"] == "Subgraph" and any(
                _type(port) in INTEGERS and len(port.get_partial_shape()) > 1 and _stored_name(port)
                for port in node.inputs()
            ):
                found.update(named)
        return found

    @cached_property
    def _ops(self) -> Mapping[str, Any]:
        """The file's ops by their own names, and by those of the tensors that they write."""
        return {
            name: op
            for op in self._model.get_ops()
            for name in (op.get_friendly_name(), *(name for port in op.outputs() for name in port.get_names()))
        }

    def _nodes(self, shapes: Mapping[str, tuple[int, ...]] | None) -> Iterator[tuple[Any, dict[str, str]]]:
        """Yield the nodes of the graph that OpenVINO made of the file, with what it says of them."""
        for node in self.compiled(shapes).get_runtime_model().get_ordered_ops():
            yield node, {key: _text(value) for key, value in node.get_rt_info().items()}

    def compiled(self, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Any:
        """Return the compiled model, for these shapes where some are free."""
        return self._request(shapes or {}).get_compiled_model()

    def counters(self) -> list[Any]:
        """Return the performance counters of the last run."""
        assert self._known is not None
        return list(self._known[1].profiling_info)

    def _request(self, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        wanted = dict(shapes) if self.is_free else None
        if self._known is None or self._known[0] != wanted:
            try:
                if wanted is not None:
                    self._model.reshape(dict(wanted))
                compiled = self._core.compile_model(self._model, "CPU", self._settings)
            except Exception as error:
                raise _refused(error) from error
            self._known = wanted, compiled.create_infer_request()
        return self._known[1]


class _Profiled:
    """A model that keeps the times of its kernels."""

    def __init__(self, path: Path, feed: Mapping[str, np.ndarray], threads: int) -> None:
        self._feed = feed
        self._session = OpenVinoSession(path, threads, profiling=True)
        self.kernels = self._session.kernels({name: array.shape for name, array in feed.items()})
        self._times: list[list[float]] = []
        self._whole: list[float] = []

    def run(self) -> None:
        """Run once more."""
        start = time.perf_counter()
        try:
            self._session.run(None, self._feed)
        except Exception as error:
            raise BuildError(f"OpenVINO fails while running the model: {error}") from error
        self._whole.append(1000.0 * (time.perf_counter() - start))
        took = {each.node_name: each.real_time.total_seconds() * 1000.0 for each in self._session.counters()}
        self._times.append([took.get(kernel.node, 0.0) for kernel in self.kernels])

    def close(self) -> KernelProfile:
        """Return the profile; the first runs are left out where there are more."""
        first = FIRST_RUNS if len(self._whole) > FIRST_RUNS else 0
        return KernelProfile(self.kernels, np.array(self._times)[first:], np.array(self._whole)[first:])


def _written(node: Any, facts: Mapping[str, str]) -> list[str]:
    """Return the names of the tensors that a kernel writes, its own first, then those of what was fused into it."""
    names = (node.get_friendly_name(), *facts["originalLayersNames"].split(","))
    return [name for name in dict.fromkeys(name.removesuffix(APART) for name in names) if name]


def _kernel(node: Any, facts: Mapping[str, str], ops: Mapping[str, Any]) -> Kernel:
    """Return a kernel; ``ops`` are the file's, by name."""
    kind, written = facts["layerType"], _written(node, facts)
    made_of = [ops[name] for name in written if name in ops]
    inputs = list(node.inputs())
    stored = [_stored_name(port) for port in inputs]
    tensors = [_tensor(port) for port in inputs]
    attributes: dict[str, Any] = {"made_of": " ".join(dict.fromkeys(op.get_type_name() for op in made_of))}
    for op in made_of:
        attributes |= {key: _plain(value) for key, value in op.get_attributes().items() if key in GEOMETRY}
    if "onvolution" in kind and stored[1]:
        tensors[1], window = _as_in_onnx(tensors[1], len(tensors[0].shape or ()))
        attributes |= window
    names = [port.get_source_output().get_node().get_friendly_name() for port in inputs]
    if kind in RECURRENT:
        kind, order = _recurrent_op(tensors[-2]), [0, *range(len(inputs))[-3:], *range(1, len(inputs) - 3)]
        tensors, stored, names = ([values[place] for place in order] for values in (tensors, stored, names))
    return Kernel(
        node=node.get_friendly_name(),
        output=written[0],
        op=f"{facts['primitiveType']}.{(PRODUCTS | OTHERS).get(kind, kind)}",
        inputs=tuple(tensors),
        outputs=tuple(_tensor(port) for port in node.outputs()),
        constants=tuple(bool(name) for name in stored),
        attributes=tuple(sorted(attributes.items())),
        input_names=tuple(stored_name or name for stored_name, name in zip(stored, names, strict=True)),
        output_names=(node.get_friendly_name(), *written),
    )


def _as_in_onnx(weight: Tensor, axes: int) -> tuple[Tensor, dict[str, Any]]:
    """Return a convolution's weight without an axis of groups, and its window and groups."""
    shape = tuple(weight.shape or ())
    groups = 1
    if len(shape) == axes + 1:  # [G, O / G, I / G, k...]
        groups, shape = shape[0], (shape[0] * shape[1], *shape[2:])
    return Tensor(weight.dtype, shape), {"group": groups, "kernel_shape": shape[2:]}


def _recurrent_op(states: Tensor) -> str:
    """Return ONNX's name of a recurrent op by its weight for the states, [D, gates H, H]."""
    rows, hidden = (states.shape or (0, 1))[-2:]
    return next((op for op, gates in GATES.items() if rows == gates * hidden), "RNN")


def _stored_name(port: Any) -> str:
    """Return the name of the constant that an input comes from, moved or not; "" where it is computed."""
    node = port.get_source_output().get_node()
    while (kind := _text(node.get_rt_info()["layerType"])) in MOVING and len(node.inputs()):
        node = node.inputs()[0].get_source_output().get_node()
    return str(node.get_friendly_name()) if kind == "Const" else ""


def _tensor(port: Any) -> Tensor:
    shape = port.get_partial_shape()
    return Tensor(TYPES.get(_type(port), 0), tuple(port.get_shape()) if shape.is_static else None)


def _type(port: Any) -> str:
    return str(port.get_element_type().get_type_name())


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) else tuple(int(each) for each in value)


def _text(value: Any) -> str:
    return str(value.astype(str) if hasattr(value, "astype") else value)


@lru_cache(maxsize=1)
def core() -> Any:
    """Return OpenVINO itself. Raises `InputError` where it is not installed."""
    try:
        import openvino
    except ImportError:
        raise InputError(
            'target.runtime "openvino" needs OpenVINO installed: pip install "slimfront[openvino]"'
        ) from None
    return openvino.Core()


def version() -> str:
    """Return the version of OpenVINO, and the precision that it runs in. Raises `InputError` where it is not installed."""
    core()
    import openvino

    return f"OpenVINO {openvino.__version__.split('-')[0]}, {PRECISION}"


def _refused(error: Exception) -> BuildError:
    return BuildError(f"OpenVINO cannot load the model: {last_line(str(error)) or error}")
