"""The memory that OpenVINO takes for a file: constants twice, kernels compiled for it, and the tensors that are alive at once.

What it takes beside tensors is mostly code that it makes when a file is opened. Three constants tell that, learned on generated
models, more roughly than for ONNX Runtime; what opening takes for a moment, while weights are unpacked, is not told.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..spaces.kernels import Kernel
from .liveness import Buffer, live_bytes
from .loading_memory import file_facts
from .predicted_memory import PredictedMemory

SESSION_BYTES = 5_600_000
NODE_BYTES = 15_400  # of a node of the file
COMPILED_BYTES = 326_000  # of a chain of ops that is made one kernel
COMPILED = "Subgraph"
COPIES = 2  # of a constant: as read, and as packed for its kernel
CONSTANT, OUTPUT, VIEW = "Const", ("Output", "Result"), "Reshape"
ELEMENT_BYTES = {"f32": 4, "i32": 4, "u8": 1, "i8": 1, "boolean": 1, "f16": 2, "bf16": 2, "i64": 8, "f64": 8}

Nodes = Iterable[tuple[Any, Mapping[str, str]]]
Port = tuple[str, int]


def predict_openvino(path: Path, nodes: Nodes, kernels: Sequence[Kernel], steps: Mapping[str, int]) -> PredictedMemory:
    """Return what OpenVINO will take for a file.

    Args:
        path: of the file.
        nodes: of the graph that it made of it, with what it says of each.
        kernels: the same without what is no kernel.
        steps: their places by the names of the nodes.
    """
    nodes = list(nodes)
    constants = sum(_bytes(port) for node, facts in nodes if facts["layerType"] == CONSTANT for port in node.outputs())
    compiled = sum(facts["layerType"] == COMPILED for _, facts in nodes)
    beside = SESSION_BYTES + NODE_BYTES * file_facts(path).nodes + COMPILED_BYTES * compiled + COPIES * constants
    found = _buffers(nodes, steps)
    most = max(live_bytes(found, len(kernels)), default=0)
    return PredictedMemory(beside, beside + most, tuple(kernels), tuple(found))


def _buffers(nodes: Sequence[tuple[Any, Mapping[str, str]]], steps: Mapping[str, int]) -> list[Buffer]:
    """Return a buffer for each tensor that a kernel writes; views share that of what they show."""
    of: dict[Port, Buffer] = {}
    found: list[Buffer] = []
    end = len(steps) - 1
    for node, facts in nodes:
        name, kind = str(node.get_friendly_name()), facts["layerType"]
        step = end if kind in OUTPUT else steps.get(name)
        read = [_source(port) for port in node.inputs()]
        for source in read:
            if source in of and step is not None:
                of[source].last = max(of[source].last, step)
        if kind == VIEW and read and read[0] in of:
            of[name, 0] = of[read[0]]
        elif step is not None and kind not in OUTPUT:
            for number, port in enumerate(node.outputs()):
                of[name, number] = Buffer(_bytes(port), step, step, [name])
                found.append(of[name, number])
    return found


def _source(port: Any) -> Port:
    source = port.get_source_output()
    return str(source.get_node().get_friendly_name()), int(source.get_index())


def _bytes(port: Any) -> int:
    shape = port.get_partial_shape()
    if not shape.is_static:
        return 0
    return ELEMENT_BYTES.get(str(port.get_element_type().get_type_name()), 4) * math.prod(port.get_shape())
