"""What a node's time goes with, for many candidates at once: its domain and its neighbours', its work and its tensors.

Nothing is lowered: domains come from one elimination over all candidates, sizes from the pieces that are removed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..spaces.candidate import DYNAMIC, Candidate
from ..spaces.errors import BuildError
from ..spaces.forms import check_form, formed, forms_of
from ..spaces.graph import Graph, first_output
from ..spaces.groups import channel_groups
from ..spaces.kept_sizes import KeptSizes
from ..spaces.recurrent import sizes
from ..spaces.rules import Rules, no_integer_kernel

if TYPE_CHECKING:
    import onnx_ir as ir

Floats = NDArray[np.float64]

MEGA = 2.0**20  # elements, and multiply-adds, are counted in
WIDTHS = ((1, 1), (8, 8), (4, 16))  # channels read and written to whose multiples kernels fill up
AWKWARD = ((4, 1), (1, 16))  # multiples that kernels want: others run in a slower way


@dataclass(frozen=True)
class Structures:
    """What decides most of a candidate's kernels (all of it: `spaces.skeleton.structure`), for many candidates.

    Attributes:
        integer: which layers run in integers on calibrated grids, bool ``[M, layers]``.
        dynamic: which run in integers that are found at each inference, likewise.
        removed: pieces that are removed of each channel group, ``[M, groups]``.
        forms: of each candidate, the layers that are not written natively, with their forms.
    """

    integer: NDArray[np.bool_]
    dynamic: NDArray[np.bool_]
    removed: NDArray[np.int64]
    forms: Sequence[tuple[tuple[str, str], ...]]

    def __len__(self) -> int:
        return len(self.integer)

    def take(self, rows: NDArray[np.int64]) -> Structures:
        """Return some of them."""
        return Structures(self.integer[rows], self.dynamic[rows], self.removed[rows], [self.forms[row] for row in rows])


def structures(graph: Graph, candidates: Sequence[Candidate], rules: Rules) -> Structures:
    """Return the structures of candidates of a captured graph.

    Raises:
        InputError: a candidate names a layer or a channel group that the graph has not, or a form that a layer cannot take.
        BuildError: a layer with activation bits 8, or in a form, that no kernel can run.
    """
    channels = channel_groups(graph)
    layers = {name: number for number, name in enumerate(graph.layers)}
    groups = {name: number for number, name in enumerate(channels.groups)}
    integer, dynamic = np.zeros((2, len(candidates), len(layers)), bool)
    removed = np.zeros((len(candidates), len(groups)), np.int64)
    forms = []
    for row, candidate in enumerate(candidates):
        candidate.check_layers(layers)
        integer[row, [layers[name] for name, choice in candidate.layers.items() if choice.calibrated]] = True
        dynamic[row, [layers[name] for name, choice in candidate.layers.items() if choice.form == DYNAMIC]] = True
        for name, ratio in candidate.groups.items():
            group = channels.group(name)
            removed[row, groups[name]] = group.pieces - group.kept(ratio)
        forms.append(tuple(forms_of(candidate).items()))
    for name, form in {pair for each in forms for pair in each}:
        check_form(graph, graph.layers[name], form)
    for layer, number in zip(graph.layers.values(), layers.values(), strict=True):
        if integer[:, number].any() and not rules.has_integer_kernel(graph, layer):
            raise no_integer_kernel(layer)
        if dynamic[:, number].any() and DYNAMIC not in rules.forms(graph, layer):
            raise BuildError(f"layer {layer.name!r}: {rules.not_dynamic(layer)}")
    return Structures(integer, dynamic, removed, forms)


@dataclass(frozen=True)
class _Port:
    """A tensor that a node reads or writes, and the nodes at its other side (their numbers; of none the model itself)."""

    tensor: str
    nodes: tuple[int, ...]


@dataclass(frozen=True)
class _Node:
    """A node between its neighbours.

    Attributes:
        signature: equal where the same node stands between the same neighbours, in whatever form the graph is.
        reads: what it reads, each with its writer.
        beside: of each of those, the other readers.
        written: what it writes, with its readers.
        work: of a layer, multiply-adds for one channel in and out; 0 of others.
        sides: of a layer, the tensors and axes that count the channels that it reads and writes; the latter alone where each
            channel that is read has outputs of its own.
    """

    signature: str
    reads: tuple[_Port, ...]
    beside: tuple[tuple[int, ...], ...]
    written: _Port
    work: float = 0.0
    sides: tuple[tuple[str, int], ...] = ()


class NodeFeatures:
    """Features of the nodes of a captured graph in one choice of forms."""

    def __init__(self, graph: Graph, forms: Mapping[str, str], rules: Rules) -> None:
        self.sizes = KeptSizes(formed(graph, forms), channel_groups(graph))
        self.domains = rules.domains(self.sizes.graph)
        self._rules = rules

    @property
    def signatures(self) -> list[str]:
        """Of the nodes, in the order of `of`."""
        return [node.signature for node in self._nodes]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the nodes."""
        return self.domains.nodes

    def of(self, found: Structures) -> list[Floats]:
        """Return the features of each node, ``[M, states, features]`` each: they are 0 but for the state that it is in.

        States are integers, float, and of a layer that can have it the form "dynamic".

        Args:
            found: structures that all have these forms.
        """
        elements = {name: self.sizes.elements(name, found.removed) / MEGA for name in self._tensors}
        counted = [np.broadcast_to(elements[name], len(found)) for name in self.domains.tensors]
        sizes = np.reshape(counted, (-1, len(found))).T
        integer = self.domains.integer(found.integer, sizes).astype(float)
        return [self._features(n, node, found, integer, elements) for n, node in enumerate(self._nodes)]

    def _features(
        self, number: int, node: _Node, found: Structures, integer: Floats, elements: Mapping[str, Floats]
    ) -> Floats:
        ones = np.ones(len(found))
        written = elements[node.written.tensor] * ones
        general = [ones, written, *(elements[port.tensor] * ones for port in node.reads)]
        general += self._work(node, found.removed)
        borders = []
        for some in _either(integer, node.written.nodes, ones):
            borders += [some, some * written]
        for port, others in zip(node.reads, node.beside, strict=True):
            from_integer = _either(integer, port.nodes, ones)[0]
            read = elements[port.tensor] * ones
            borders += [from_integer, from_integer * read]
            if others:
                to_integer, to_float = _either(integer, others, ones)
                borders += [from_integer * to_float * read, (1 - from_integer) * to_integer * read]
        every = np.stack(general + borders, axis=1)
        own = integer[:, number, None]
        states = [own * every, (1 - own) * every]
        layer = self._dynamic.get(node.signature)
        if layer is not None:
            found_there = found.dynamic[:, layer, None]
            states = [states[0], (1 - found_there) * states[1], found_there * states[1]]
        return np.stack(states, axis=1)

    def _work(self, node: _Node, removed: NDArray[np.int64]) -> list[Floats]:
        if not node.work:
            return []
        sides = [self.sizes.axis(tensor, axis, removed) * np.ones(len(removed)) for tensor, axis in node.sides]
        read, written = sides if len(sides) == 2 else (np.ones(len(removed)), sides[0])
        unit = node.work / MEGA
        filled = [unit * _up(read, first) * _up(written, second) for first, second in WIDTHS]
        return filled + [
            unit * read * written * ((read % first != 0) | (written % second != 0)) for first, second in AWKWARD
        ]

    @cached_property
    def _dynamic(self) -> dict[str, int]:
        """By signature of a node, the place among the layers of its own, where that can have the form "dynamic"."""
        graph = self.sizes.graph
        places = {name: number for number, name in enumerate(graph.layers)}
        able = {name for name, layer in graph.layers.items() if DYNAMIC in self._rules.forms(graph, layer)}
        layer_of = [graph.layer_of_node.get(name, "") for name in self.names]
        pairs = zip(self.signatures, layer_of, strict=True)
        return {signature: places[name] for signature, name in pairs if name in able}

    @cached_property
    def _tensors(self) -> set[str]:
        ports = (port.tensor for node in self._nodes for port in (*node.reads, node.written))
        return {*ports, *self.domains.tensors}

    @cached_property
    def _nodes(self) -> list[_Node]:
        graph = self.sizes.graph
        nodes = list(graph.model.graph)
        writers = {value.name or "": number for number, node in enumerate(nodes) for value in node.outputs}
        readers: dict[str, list[int]] = {}
        for number, node in enumerate(nodes):
            for name in _read(node):
                readers.setdefault(name, []).append(number)
        return [self._node(number, node, nodes, writers, readers) for number, node in enumerate(nodes)]

    def _node(
        self,
        number: int,
        node: ir.Node,
        nodes: Sequence[ir.Node],
        writers: Mapping[str, int],
        readers: Mapping[str, Sequence[int]],
    ) -> _Node:
        graph = self.sizes.graph
        read = list(_read(node))
        written = first_output(node)
        reads = tuple(_Port(name, (writers[name],) if name in writers else ()) for name in read)
        beside = tuple(tuple(other for other in readers[name] if other != number) for name in read)
        behind = _Port(written, tuple(readers.get(written, ())))
        near = [
            [nodes[other].name or "" for other in some] for some in (*(r.nodes for r in reads), *beside, behind.nodes)
        ]
        signature = " ".join([node.name or "", node.op_type, *read, *(f"({' '.join(some)})" for some in near)])
        layer = graph.layers.get(graph.layer_of_node.get(node.name or "", ""))
        if layer is None or not read:
            return _Node(signature, reads, beside, behind)
        if layer.recurrent:
            of = sizes(layer.op, layer.shape)
            steps = math.prod(graph.shapes[read[0]][:2])
            behind_axis = len(graph.shapes[written]) - 1
            return _Node(
                signature,
                reads,
                beside,
                behind,
                float(steps * of.directions * of.gates),
                ((read[0], 2), (written, behind_axis)),
            )
        images = len(layer.kernel) > 0
        sides = tuple((name, 1 if images else len(graph.shapes[name]) - 1) for name in (read[0], written))
        tensor, axis = sides[0] if layer.op == "ConvTranspose" else sides[1]
        shape = graph.shapes[tensor]
        work = math.prod(shape) / shape[axis] * math.prod(layer.kernel)
        if layer.depthwise:
            return _Node(signature, reads, beside, behind, work, sides[1:])
        return _Node(signature, reads, beside, behind, work / layer.group, sides)


def _read(node: ir.Node) -> Iterable[str]:
    """Return the names of what a node reads that is computed, each once."""
    return dict.fromkeys(v.name or "" for v in node.inputs if v is not None and v.const_value is None and v.name)


def _either(integer: Floats, nodes: Sequence[int], ones: Floats) -> tuple[Floats, Floats]:
    """Return whether any of some nodes is in integers, and whether any is in float, as the model's border is."""
    if not nodes:
        return 0 * ones, ones
    some = integer[:, nodes]
    return some.max(axis=1), 1 - some.min(axis=1)


def _up(channels: Floats, multiple: int) -> Floats:
    return np.ceil(channels / multiple) * multiple
