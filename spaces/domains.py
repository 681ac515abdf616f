"""Which nodes run in integers: the layers that the candidate names, and the ops between them where that is cheapest.

Each op that has a good integer form may run in either domain; going from one domain to the other costs time for every
element of the tensor, once, however many nodes read it. The cheapest assignment of all is taken (`elimination`; in very
densely connected graphs a cheap one). The costs are constants of the build, not measurements: the same candidate always
gives the same graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .elimination import Elimination, Table
from .graph import Graph, Layer
from .integer_ops import OPS, IntegerOp

if TYPE_CHECKING:
    import onnx_ir as ir

# Milliseconds for 2**20 elements on one core: [1, 64, 128, 128] measured on AVX512-VNNI; only their ratios matter.
TO_INTEGER = 0.84
TO_FLOAT = 0.67
PREFER_INTEGER = 1e-6  # between equal costs
NEVER = np.inf
INTEGER_SIDE, FLOAT_SIDE = 0, 1  # values of a node's variable


def has_integer_kernel(graph: Graph, layer: Layer) -> bool:
    """Whether an integer kernel can run the layer (facts: Conv in 2-D, ConvTranspose as Conv, Gemm, MatMul)."""
    if layer.op in ("Gemm", "MatMul"):
        return True
    nodes = [node for node in graph.model.graph if node.name in layer.nodes]
    if len(layer.kernel) != 2:  # an LSTM or GRU too: no kernel takes a whole sequence on one grid
        return False
    if layer.op == "Conv":
        return True
    plain = layer.group == 1 and all(d == 1 for d in layer.dilations)
    return plain and not any({"auto_pad", "output_shape"} & set(node.attributes) for node in nodes)


class Domains:
    """The domains of a graph's nodes, for any choice of layers.

    Attributes:
        nodes: names, in the order of the graph.
        tensors: names of those whose elements count.
        elements: how many elements those have, over 2**20, ``[1, tensors]``.
        ops: that may run in integers beside layers.
        free_products: whether integer kernels of Gemm and MatMul write float as well.
    """

    ops: Mapping[str, IntegerOp] = OPS
    free_products = True

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._nodes = list(graph.model.graph)
        self.nodes = tuple(node.name or "" for node in self._nodes)
        self._columns: dict[str, int] = {}
        self._tables: list[Table] = []
        self._fixed: dict[int, int] = {}
        self._count = len(self._nodes)
        self._border = self._new(FLOAT_SIDE)  # what the model reads and writes
        self._written: dict[str, int] = {}
        for number, node in enumerate(self._nodes):
            out = self._node(number, node)
            self._written |= {value.name or "": out for value in node.outputs}
        self._conversions()
        layers = {name: number for number, name in enumerate(graph.layers)}
        told = [
            (n, layers[graph.layer_of_node[name]]) for n, name in enumerate(self.nodes) if name in graph.layer_of_node
        ]
        self._told = np.array([layer for _, layer in told], np.int64)
        self._solver = Elimination(self._count, self._tables, [n for n, _ in told], self._fixed)
        self.tensors = tuple(self._columns)

    @cached_property
    def elements(self) -> NDArray[np.float64]:
        """Elements of the graph's own shapes."""
        return np.array([[math.prod(self.graph.shapes.get(name, (1,))) / 2**20 for name in self.tensors]])

    def integer(self, layers: NDArray[np.bool_], elements: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which nodes run in integers ``[M, nodes]``.

        Args:
            layers: which layers have to, ``[M, layers]`` in the order of the graph's layers.
            elements: of `tensors`, over 2**20, ``[M or 1, tensors]``.
        """
        told = np.where(layers[:, self._told], INTEGER_SIDE, FLOAT_SIDE)
        elements = np.broadcast_to(elements, (len(layers), elements.shape[1]))
        values = self._solver.solve(told, elements)
        return np.asarray((values[:, : len(self.nodes)] == INTEGER_SIDE) & layers.any(axis=1, keepdims=True))

    def _new(self, fixed: int | None = None) -> int:
        """Return a new variable."""
        self._count += 1
        if fixed is not None:
            self._fixed[self._count - 1] = fixed
        return self._count - 1

    def _node(self, number: int, node: ir.Node) -> int:
        """Add what a node costs in either domain; return the variable for the domain that it writes."""
        graph = self.graph
        layer = graph.layer_of_node.get(node.name or "")
        if layer is not None:
            if graph.layers[layer].op not in ("Gemm", "MatMul") or not self.free_products:
                return number
            out = self._new()  # the integer kernel writes float or integer, as its reader likes
            self._tables.append(Table((number, out), np.array([[0.0, 0.0], [NEVER, 0.0]])))
            return out
        if node.op_type not in self.ops or not self.ops[node.op_type].accepts(graph, node):
            self._fixed[number] = FLOAT_SIDE
            return number
        values = [value.name or "" for value in (*node.outputs, node.inputs[0]) if value is not None]
        largest = max(values, key=lambda name: math.prod(graph.shapes.get(name, (1,))))
        self._tables.append(Table((number,), np.array(self.ops[node.op_type].costs, float), self._column(largest)))
        self._tables.append(Table((number,), np.array([0.0, PREFER_INTEGER])))
        return number

    def _conversions(self) -> None:
        """Add what going from one domain to the other costs, for each tensor."""
        readers: dict[str, set[int]] = {}
        for number, node in enumerate(self._nodes):
            for value in node.inputs:
                if value is not None and not value.is_initializer() and _is_float(value):
                    readers.setdefault(value.name or "", set()).add(number)
        for value in self.graph.model.graph.outputs:
            if _is_float(value):
                readers.setdefault(value.name or "", set()).add(self._border)
        for name, wanting in readers.items():
            writer = self._written.get(name, self._border)
            if len(wanting) == 1:
                costs = np.array([[0.0, TO_FLOAT], [TO_INTEGER, 0.0]])
                self._tables.append(Table((writer, *wanting), costs, self._column(name)))
                continue
            copy = self._new()  # 1 where there is one in the other domain
            costs = np.array([[0.0, TO_FLOAT], [0.0, TO_INTEGER]])
            self._tables.append(Table((writer, copy), costs, self._column(name)))
            needs = np.array([[[0.0, NEVER], [0.0, 0.0]], [[NEVER, 0.0], [0.0, 0.0]]])
            self._tables += [Table((writer, copy, reader), needs) for reader in sorted(wanting)]

    def _column(self, tensor: str) -> int:
        return self._columns.setdefault(tensor, len(self._columns))


def _is_float(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype.name == "FLOAT"
