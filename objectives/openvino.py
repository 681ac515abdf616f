"""OpenVINO as a target: its kernels, in the terms of ONNX, by what it says of the graph that it made of a file.

It always runs in float32 where no integers run (`device.openvino_engine`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..spaces.build import UNNAMED
from ..spaces.kernel_shapes import Tensor
from ..spaces.kernels import Kernel
from ..spaces.recurrent import GATES
from ..spaces.rules import OPENVINO, Rules
from ..spaces.statistics import Progress
from .device.engine import Engine, RawProfile, Rounds
from .device.openvino_engine import PRECISION, OpenVinoEngine, OpenVinoModel, core, version
from .kernel_profile import KernelProfile
from .openvino_memory import predict_openvino
from .place import Placed
from .predicted_memory import PredictedMemory

__all__ = ["PRECISION", "OpenVino", "OpenVinoSession", "RuntimeGraph", "core", "version"]

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
INTEGERS = ("u8", "i8")
NO_KERNELS = ("Const", "Input", "Output", "Parameter", "Result", "Reshape", "MemoryInput")
TYPES = {"f32": 1, "u8": 2, "i8": 3, "i32": 6, "i64": 7, "boolean": 9, "f16": 10, "f64": 11, "bf16": 16}  # as in ONNX


@dataclass(frozen=True)
class OpenVino(Placed):
    """OpenVINO's processor plugin.

    Attributes:
        fingerprint: of the machine.
        threads: of an inference.
    """

    fingerprint: str = ""
    threads: int = 1
    runtime: str = "OpenVINO"
    rules: Rules = OPENVINO

    @property
    def engine(self) -> Engine:
        """OpenVINO itself, where it runs."""
        return self.device or OpenVinoEngine(self.threads)

    def open(self, model: Path | bytes) -> Any:
        """Return a session."""
        return self.device.open(model) if self.device else OpenVinoSession(model, self.threads)

    def inspected(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> tuple[Any, Counter[str] | None]:
        """Return a session, and its integer products."""
        session, graph = self.engine.inspect(model, inputs)
        return session, RuntimeGraph(graph).integer_products()

    def kernels(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> list[Kernel]:
        """Return the kernels of the graph that OpenVINO makes of the file."""
        return RuntimeGraph(self.engine.inspect(model, inputs)[1]).kernels()

    def predicted_memory(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> PredictedMemory | None:
        """Return what its constants, its compiled kernels and the tensors that are alive at once take."""
        graph = RuntimeGraph(self.engine.inspect(model, inputs)[1])
        return predict_openvino(model, graph.nodes, graph.kernels())

    def profiles(
        self, models: Sequence[Path], feed: Mapping[str, np.ndarray], rounds: Rounds, progress: Progress | None = None
    ) -> list[KernelProfile]:
        """Run models in turn with OpenVINO's performance counters."""
        with self.alone():
            return [_profile(raw) for raw in self.engine.profile(models, feed, rounds, progress)]


class OpenVinoSession(OpenVinoModel):
    """A session on this machine that tells its kernels."""

    def kernels(self, shapes: Mapping[str, tuple[int, ...]] | None = None) -> list[Kernel]:
        """Return the kernels of the compiled model, for these shapes where some are free, in the order of the graph."""
        return RuntimeGraph(self.graph(shapes)).kernels()

    def integer_products(self, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Counter[str]:
        """Return how many products run in integers; see `RuntimeGraph.integer_products`."""
        return RuntimeGraph(self.graph(shapes)).integer_products()


class RuntimeGraph:
    """The graph that OpenVINO made of a file.

    Args:
        graph: as `device.openvino_engine.OpenVinoModel.graph` gives it.
    """

    def __init__(self, graph: bytes) -> None:
        document = json.loads(graph)
        self.nodes: list[Mapping[str, Any]] = document["nodes"]
        self._ops = document["ops"]

    def kernels(self) -> list[Kernel]:
        """Return the kernels, in the order of the graph."""
        return [_kernel(node, self._named) for node in self.nodes if node["facts"]["layerType"] not in NO_KERNELS]

    def integer_products(self) -> Counter[str]:
        """Return how many convolutions and matrix products in integers are known by each tensor of the file that they write.

        Those that OpenVINO named after none of them count under `UNNAMED`. A kernel that several nodes were made one of counts
        for each of them, where it reads stored integers.
        """
        found: Counter[str] = Counter()
        for node in self.nodes:
            kind, inputs = node["facts"]["layerType"], node["inputs"]
            named = [name for name in _written(node) if name in self._named]
            if kind in PRODUCTS and inputs[0]["type"] in INTEGERS:
                found.update(named or [UNNAMED])
            elif kind == "Subgraph" and any(
                port["type"] in INTEGERS and port["axes"] > 1 and port["stored"] for port in inputs
            ):
                found.update(named)
        return found

    @cached_property
    def _named(self) -> Mapping[str, Mapping[str, Any]]:
        """The file's ops by their own names, and by those of the tensors that they write."""
        return {name: op for op in self._ops for name in op["names"]}


def _profile(raw: RawProfile) -> KernelProfile:
    kernels = RuntimeGraph(raw.graph).kernels()
    column = {name: number for number, (_, name) in enumerate(raw.ran)}
    times = np.zeros((len(raw.whole_ms), len(kernels)))
    for number, kernel in enumerate(kernels):
        if kernel.node in column:
            times[:, number] = raw.times_ms[:, column[kernel.node]]
    return KernelProfile(kernels, times, raw.whole_ms)


def _written(node: Mapping[str, Any]) -> list[str]:
    """Return the names of the tensors that a kernel writes, its own first, then those of what was fused into it."""
    names = (node["name"], *node["facts"]["originalLayersNames"].split(","))
    return [name for name in dict.fromkeys(name.removesuffix(APART) for name in names) if name]


def _kernel(node: Mapping[str, Any], ops: Mapping[str, Mapping[str, Any]]) -> Kernel:
    """Return a kernel; ``ops`` are the file's, by name."""
    facts, inputs, written = node["facts"], node["inputs"], _written(node)
    kind = facts["layerType"]
    made_of = [ops[name] for name in written if name in ops]
    if kind in RECURRENT:
        kind, inputs = _recurrent_op(_tensor(inputs[-2])), [inputs[0], *inputs[-3:], *inputs[1:-3]]
    tensors = [_tensor(port) for port in inputs]
    attributes: dict[str, Any] = {"made_of": " ".join(dict.fromkeys(op["kind"] for op in made_of))}
    for op in made_of:
        attributes |= {key: _plain(value) for key, value in op["attributes"].items()}
    if "onvolution" in kind and inputs[1]["stored"]:
        tensors[1], window = _as_in_onnx(tensors[1], len(tensors[0].shape or ()))
        attributes |= window
    return Kernel(
        node=node["name"],
        output=written[0],
        op=f"{facts['primitiveType']}.{(PRODUCTS | OTHERS).get(kind, kind)}",
        inputs=tuple(tensors),
        outputs=tuple(_tensor(port) for port in node["outputs"]),
        constants=tuple(bool(port["stored"]) for port in inputs),
        attributes=tuple(sorted(attributes.items())),
        input_names=tuple(port["stored"] or port["source"] for port in inputs),
        output_names=(node["name"], *written),
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


def _tensor(port: Mapping[str, Any]) -> Tensor:
    return Tensor(TYPES.get(port["type"], 0), None if port["shape"] is None else tuple(port["shape"]))


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
