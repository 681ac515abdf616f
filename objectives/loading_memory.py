"""The memory that ONNX Runtime takes to open a file: what it reads, unpacks and lays out anew, and the graph itself.

Three moments are its peaks. While the file is read, a block of it lies in memory beside what was parsed. While constants are
folded, each result stays until all are made, for nothing is thrown away before; the results of the last layer come first (nodes
are ordered by a search in depth from the outputs, the last input first). While weights are laid out for blocked kernels, the old
ones stay, and there are several copies of the one at hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..spaces.build import file_size
from ..spaces.kernels import Kernel
from .liveness import ELEMENT_BYTES, tensor_bytes
from .workspaces import packed_bytes

if TYPE_CHECKING:
    import onnx

READ_BLOCK = 4 << 20  # bytes that are read at a time
LAID_OUT_COPIES = 3  # of a weight while it is laid out: as read, as laid out, and as stored in the graph
BLOCKED = "com.microsoft.nchwc.Conv"
PAGE = 4096
KEPT = ("DequantizeLinear", "QuantizeLinear")  # never folded: kernels take the integers as they are
INTEGER = "QLinearConv"
# What a session takes beside tensors, in bytes: learned on generated models (`studies/benchmarks/memory.py --learn`).
SESSION_BYTES = 156_000
NODE_BYTES = 3_200  # of a node of the file, functions inlined
BLOCKED_BYTES = 8_200  # of a blocked convolution, on top
INTEGER_BYTES = 11_400  # of an integer convolution, on top


@dataclass(frozen=True)
class FileFacts:
    """What of a file decides.

    Attributes:
        size: bytes.
        nodes: how many there are, functions inlined.
        results: bytes that each node makes which only constants go into, in the order in which they are folded.
        outputs: names of the tensors that the model gives out.
    """

    size: int
    nodes: int
    results: tuple[int, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Loading:
    """What opening a file takes.

    Attributes:
        peak_bytes: at its peak.
        resident_bytes: afterwards, but for what the arena holds.
    """

    peak_bytes: int
    resident_bytes: int


def file_facts(path: Path) -> FileFacts:
    """Read what of a file decides."""
    import onnx
    from onnx import inliner

    model = onnx.load(path, load_external_data=False)
    if model.functions:
        model = inliner.inline_local_functions(model)
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    known = {value.name: _value_bytes(value) for value in model.graph.value_info}
    constants = {value.name for value in model.graph.initializer}
    nodes, results = _in_depth(model.graph), []
    readers = {name: node for node in nodes for name in node.input}
    for node in nodes:
        if node.op_type in KEPT or any(name and name not in constants for name in node.input):
            continue
        constants.update(node.output)
        if node.op_type == "Constant":
            continue
        size, behind = known.get(node.output[0]), readers.get(node.output[0])
        if size is None and behind is not None:  # a part of computed size, which is then given its shape
            size = known.get(behind.output[0])
        results.append(size or 0)
    outputs = tuple(value.name for value in model.graph.output)
    return FileFacts(file_size(path), len(nodes), tuple(results), outputs)


def loading(file: FileFacts, kernels: Sequence[Kernel]) -> Loading:
    """Return what ONNX Runtime takes to open a file.

    Args:
        file: the facts of it.
        kernels: of the graph that ONNX Runtime makes of it.
    """
    blocked = [tensor_bytes(kernel.weight) for kernel in kernels if kernel.op == BLOCKED]
    integer = sum(kernel.short_op == INTEGER for kernel in kernels)
    graph = SESSION_BYTES + NODE_BYTES * file.nodes + BLOCKED_BYTES * len(blocked) + INTEGER_BYTES * integer
    stored, packed = stored_bytes(kernels), [sum(packed_bytes(kernel)) for kernel in kernels]
    moments = [
        file.size + min(file.size, READ_BLOCK),
        graph + _most(file.size, file.results, 1),
        graph + _most(stored, blocked, LAID_OUT_COPIES),
        graph + stored + max(packed, default=0),
    ]
    return Loading(
        max(moments), graph + stored - stored_bytes([k for k, size in zip(kernels, packed, strict=True) if size])
    )


def stored_bytes(kernels: Sequence[Kernel]) -> int:
    """Return the bytes of the stored tensors that kernels read, each counted once, in whole pages where it has one."""
    found = {
        name: _paged(tensor_bytes(tensor))
        for kernel in kernels
        for name, tensor, constant in zip(kernel.input_names, kernel.inputs, kernel.constants, strict=True)
        if constant and name
    }
    return sum(found.values())


def _most(before: int, made: Sequence[int], copies: int) -> int:
    """Return the most bytes at once while tensors are made that all stay, of each with so many more copies while it is made."""
    most, total = before, before
    for size in made:
        total += size
        most = max(most, total + copies * size)
    return most


def _paged(size: int) -> int:
    return size if size < PAGE else -(-size // PAGE) * PAGE


def _in_depth(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes of a graph, each behind what it reads, as a search in depth from the outputs finds them."""
    writers = {name: node for node in graph.node for name in node.output}
    found: dict[int, onnx.NodeProto] = {}
    waiting = [(writers[value.name], False) for value in graph.output if value.name in writers]
    while waiting:
        node, done = waiting.pop()
        if done:
            found.setdefault(id(node), node)
        elif id(node) not in found:
            waiting.append((node, True))
            waiting += [(writers[name], False) for name in node.input if name in writers]
    return list(found.values())


def _value_bytes(value: onnx.ValueInfoProto) -> int | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or any(not dim.HasField("dim_value") for dim in tensor.shape.dim):
        return None
    return ELEMENT_BYTES.get(tensor.elem_type, 4) * math.prod(dim.dim_value for dim in tensor.shape.dim)
