"""Kernels of a graph with QuantizeLinear and DequantizeLinear, where a runtime makes integer kernels of what they enclose.

A node is one where it reads what DequantizeLinear writes, and QuantizeLinear alone reads what it writes; both vanish then. What
stays of them are conversions between float and integers, and from one grid to another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..spaces.kernel_shapes import INT8, Tensor
from ..spaces.kernels import FLOAT, QUANTISING, Kernel, loaded, node_kernels

QUANTISE, DEQUANTISE = QUANTISING
FREE = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout")  # nothing is computed, nothing is moved
SIZES = ("Shape", "Size", "Constant")  # hang on no value
ACTIVATIONS = ("Relu", "Clip")  # that become part of the kernel before them
TAKING = (*FLOAT, "Add", "Sub", "Mul", "Concat")  # what they become part of


def fused_kernels(model: Path | bytes, inputs: Mapping[str, tuple[int, ...]]) -> list[Kernel]:
    """Return the kernels that a lowered graph becomes, in its order; all integers count as int8.

    Args:
        model: an ONNX file, or its bytes.
        inputs: the shapes to measure at, by input name.
    """
    proto = loaded(model)
    outputs = frozenset(port.name for port in proto.graph.output)
    return _Fusing(_activated(node_kernels(proto, inputs), outputs), outputs).kernels()


class _Fusing:
    """A graph that is read once, from its inputs on.

    Args:
        nodes: as kernels, in the order of the graph, with the activations that they take.
        outputs: names of what the graph writes.
    """

    def __init__(self, nodes: list[Kernel], outputs: frozenset[str]) -> None:
        self._outputs = outputs
        self._root = _stored(nodes)
        self._codes = _codes(nodes, self._root)
        self._nodes = [node for node in nodes if not self._is_stored(node)]
        self._readers: dict[str, list[Kernel]] = {}
        for node in self._nodes:
            for name in dict.fromkeys(node.input_names):
                self._readers.setdefault(name, []).append(node)
        self._rounded = {node.output: node.input_names[0] for node in self._nodes if node.op == DEQUANTISE}
        self._same_as: dict[str, str] = {}  # of tensors that need no memory of their own
        self._becomes: dict[str, str] = {}  # of float tensors that nobody writes, the integers in their place
        self._found: list[Kernel] = []

    def kernels(self) -> list[Kernel]:
        """Return the kernels."""
        for node in self._nodes:
            if node.op == DEQUANTISE:
                self._dequantise(node)
            elif node.op == QUANTISE:
                self._quantise(node)
            elif node.op in FREE:
                self._free(node)
            else:
                self._found.append(self._as_integer(node) if self._is_integer(node) else self._as_float(node))
        return self._found

    def _is_stored(self, node: Kernel) -> bool:
        return all(name in self._root for name in node.output_names if name)

    def _is_integer(self, node: Kernel) -> bool:
        """Whether all that a node reads comes from integers, and all that it writes becomes such."""
        read = [name for name in node.input_names if name and name not in self._root]
        written = [name for name in node.output_names if name in self._readers or name in self._outputs]
        weights = [name for name, stored in zip(node.input_names, _weights(node), strict=True) if stored]
        return (
            bool(read and written)
            and all(name in self._rounded for name in read)
            and all(name in self._codes for name in weights if name in self._root)
            and all(map(self._only_rounded, written))
        )

    def _only_rounded(self, name: str) -> bool:
        return name not in self._outputs and all(node.op == QUANTISE for node in self._readers[name])

    def _integers_of(self, name: str) -> str:
        """Return the integers that a kernel writes instead of a float tensor: others of it are made of those."""
        return self._becomes.setdefault(name, self._readers[name][0].output)

    # --- nodes ---

    def _dequantise(self, node: Kernel) -> None:
        """Keep what float kernels, or the graph, read."""
        readers = self._readers.get(node.output, [])
        if node.output in self._outputs or not all(self._reads_integers(reader) for reader in readers):
            self._found.append(replace(self._as_float(node), inputs=(_int8(node.inputs[0]), *node.inputs[1:])))

    def _reads_integers(self, node: Kernel) -> bool:
        return node.op == QUANTISE or self._is_integer(node)

    def _quantise(self, node: Kernel) -> None:
        """Keep what no integer kernel does itself."""
        source = node.input_names[0]
        integers = self._rounded.get(source) or self._becomes.get(source)
        if integers == node.output:
            return
        read = self._as_float(node)
        if integers is not None:
            names = (self._same(integers), *read.input_names[1:])
            read = replace(read, inputs=(_int8(read.inputs[0]), *read.inputs[1:]), input_names=names)
        self._found.append(replace(read, outputs=tuple(map(_int8, read.outputs))))

    def _free(self, node: Kernel) -> None:
        source = node.input_names[0]
        if self._is_integer(node):
            self._same_as[self._integers_of(node.output)] = self._same(self._rounded[source])
        else:
            self._same_as[node.output] = self._same(source)

    # --- what they read and write ---

    def _same(self, name: str) -> str:
        """Return the tensor that another name stands for."""
        while name in self._same_as:
            name = self._same_as[name]
        return name

    def _as_float(self, node: Kernel) -> Kernel:
        names = tuple(self._root.get(name) or self._same(name) for name in node.input_names)
        return replace(node, constants=tuple(name in self._root for name in node.input_names), input_names=names)

    def _as_integer(self, node: Kernel) -> Kernel:
        """Return a node that reads and writes integers itself; of what is stored, weights are integers as well."""
        read = self._as_float(node)
        names = tuple(
            self._same(self._rounded[name]) if name in self._rounded else own
            for name, own in zip(node.input_names, read.input_names, strict=True)
        )
        inputs = tuple(
            _int8(tensor) if name in self._rounded or stored else tensor
            for name, tensor, stored in zip(node.input_names, node.inputs, _weights(node), strict=True)
        )
        integers = [self._integers_of(name) for name in node.output_names if name in self._readers]
        return replace(
            read,
            inputs=inputs,
            outputs=tuple(map(_int8, node.outputs)),
            input_names=names,
            output_names=(*node.output_names, *integers),
        )


def _activated(nodes: list[Kernel], outputs: frozenset[str]) -> list[Kernel]:
    """Return nodes so that an activation is part of the one that it alone reads."""
    readers = Counter(name for node in nodes for name in node.input_names)
    places: dict[str, int] = {}
    found: list[Kernel] = []
    for node in nodes:
        source = node.input_names[0] if node.op in ACTIVATIONS else ""
        if source in places and readers[source] == 1 and source not in outputs:
            before = found[places[source]]
            attributes = tuple(sorted((*before.attributes, ("activation", node.op))))
            names = (*before.output_names, *node.output_names)
            found[places[source]] = replace(before, attributes=attributes, output_names=names)
            continue
        if node.op in TAKING:
            places[node.output] = len(found)
        found.append(node)
    return found


def _stored(nodes: list[Kernel]) -> dict[str, str]:
    """Return what hangs on constants alone, by name; with the name of the constant that it was first made of."""
    root = {
        name: name
        for node in nodes
        for name, constant in zip(node.input_names, node.constants, strict=True)
        if constant
    }
    for node in nodes:
        read = [name for name in node.input_names if name]
        if node.op in SIZES or (read and all(name in root for name in read)):
            first = root.get(read[0], node.output) if read else node.output
            root |= dict.fromkeys(node.output_names, first)
    return root


def _codes(nodes: list[Kernel], stored: Mapping[str, str]) -> set[str]:
    """Return the names of what is stored in integers and scaled, moved or not."""
    found: set[str] = set()
    for node in nodes:
        if node.output in stored and (node.op == DEQUANTISE or not found.isdisjoint(node.input_names)):
            found.update(node.output_names)
    return found


def _weights(node: Kernel) -> list[bool]:
    """Return which inputs of a node may be a product's weight."""
    return [node.is_product and tensor is not None and len(tensor.shape or ()) >= 2 for tensor in node.inputs]


def _int8(tensor: Tensor | None) -> Tensor | None:
    return tensor and Tensor(INT8, tensor.shape)
