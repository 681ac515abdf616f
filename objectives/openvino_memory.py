"""The memory that OpenVINO takes for a file: constants twice, kernels compiled for it, and the tensors that are alive at once.

What it takes beside tensors is mostly code that it makes when a file is opened. Three constants tell that, learned on generated
models, more roughly than for ONNX Runtime; what opening takes for a moment, while weights are unpacked, is not told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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

Nodes = Sequence[Mapping[str, Any]]
Port = tuple[str, int]


def predict_openvino(path: Path, nodes: Nodes, kernels: Sequence[Kernel]) -> PredictedMemory:
    """Return what OpenVINO will take for a file.

    Args:
        path: of the file.
        nodes: of the graph that it made of it (`device.openvino_engine.OpenVinoModel.graph`).
        kernels: the same without what is no kernel.
    """
    steps = {kernel.node: number for number, kernel in enumerate(kernels)}
    kinds = [node["facts"]["layerType"] for node in nodes]
    stored = [node for node, kind in zip(nodes, kinds, strict=True) if kind == CONSTANT]
    constants = sum(_bytes(port) for node in stored for port in node["outputs"])
    compiled = kinds.count(COMPILED)
    beside = SESSION_BYTES + NODE_BYTES * file_facts(path).nodes + COMPILED_BYTES * compiled + COPIES * constants
    found = _buffers(nodes, steps)
    most = max(live_bytes(found, len(kernels)), default=0)
    return PredictedMemory(beside, beside + most, tuple(kernels), tuple(found))


def _buffers(nodes: Nodes, steps: Mapping[str, int]) -> list[Buffer]:
    """Return a buffer for each tensor that a kernel writes; views share that of what they show."""
    of: dict[Port, Buffer] = {}
    found: list[Buffer] = []
    end = len(steps) - 1
    for node in nodes:
        name, kind = node["name"], node["facts"]["layerType"]
        step = end if kind in OUTPUT else steps.get(name)
        read: list[Port] = [(port["source"], port["number"]) for port in node["inputs"]]
        for source in read:
            if source in of and step is not None:
                of[source].last = max(of[source].last, step)
        if kind == VIEW and read and read[0] in of:
            of[name, 0] = of[read[0]]
        elif step is not None and kind not in OUTPUT:
            for number, port in enumerate(node["outputs"]):
                of[name, number] = Buffer(_bytes(port), step, step, [name])
                found.append(of[name, number])
    return found


def _bytes(port: Mapping[str, Any]) -> int:
    return 0 if port["shape"] is None else ELEMENT_BYTES.get(port["type"], 4) * math.prod(port["shape"])
