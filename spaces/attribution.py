"""Which kernels work for which layer, and what the rest do between the layers.

ONNX Runtime fuses nodes and renames them. A convolution or product is recognised by its stored weights, by its own name, or by
the layer that stands nearest above the activation or sum that it was fused with and named after.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from .graph import first_output
from .integer_ops import OPS
from .kernels import QUANTISING, REORDERING, Kernel, kernel_owners
from .recurrent import GATES, directions

if TYPE_CHECKING:
    import onnx_ir as ir

    from .build import Built
    from .graph import Graph

FILLING = ("Pad",)  # what the lowering writes before a kernel to fill up its width; what cuts it stands behind
FUSED = re.compile(r"^(QLinear|Fused|Nhwc|Dynamic)|(IntegerToFloat|Integer)$")


@dataclass(frozen=True)
class Place:
    """What a kernel is there for.

    Attributes:
        kind: "layer", "conversion" (between float and integers), "layout" (of the same values) or "op".
        name: of the layer or the op; of a border the two layers, "conv1 → conv2".
        layers: of a border, the nearest layers before and behind it; "" where there is none.
        touching: of a border, the layers whose kernels write or read the very values that are converted there.
        due: of a conversion, why one side is float: ("layer", name), ("op", op), ("model", "input" or "output"); of a layout
            the op that wants another one.
    """

    kind: str
    name: str
    layers: tuple[str, str] = ("", "")
    touching: tuple[str, ...] = ()
    due: tuple[str, str] = ("", "")


def attribute(kernels: Sequence[Kernel], built: Built, graph: Graph) -> list[Place]:
    """Return the place of each kernel of a built model.

    Args:
        kernels: of the file, in the order in which they run (`kernels.read_kernels`).
        built: the file's model, whose nodes know what they were written for.
        graph: the captured graph.
    """
    reading = _Reading(kernels, built, graph)
    places = {i: place for i in range(len(kernels)) if (place := reading.own_place(i)) is not None}
    borders = [i for i in range(len(kernels)) if i not in places]
    for border in _components(borders, reading.before):
        place = _border(border, places, reading)
        places |= dict.fromkeys(border, place)
    return [places[i] for i in range(len(kernels))]


def working_for(kernels: Sequence[Kernel], built: Built, graph: Graph) -> list[str]:
    """Return the captured node that each kernel of a built model works for; "" where none is known.

    Args:
        kernels, built, graph: as in `attribute`.
    """
    reading = _Reading(kernels, built, graph)
    products = {number: reading.product_node(number) for number, kernel in enumerate(kernels) if kernel.is_product}
    return [products.get(number) or owner for number, owner in enumerate(reading.found)]


def stored_bytes(built: Built, graph: Graph) -> dict[str, int]:
    """Return the bytes that the file stores for each layer: packed weights, scales and biases; shared ones count once."""
    sizes = {name: built.shared_bytes.get(name, 0) for name in graph.layers}
    seen: set[int] = set()
    for node in built.model.graph:
        owner = built.owners.get(first_output(node), "")
        for value in node.inputs:
            if value is not None and value.const_value is not None and id(value) not in seen:
                seen.add(id(value))
                if owner in graph.layer_of_node:
                    sizes[graph.layer_of_node[owner]] += value.const_value.nbytes
    return sizes


Item = TypeVar("Item", bound=Hashable)


class _Reading:
    """The kernels' graph beside the captured one."""

    def __init__(self, kernels: Sequence[Kernel], built: Built, graph: Graph) -> None:
        self.kernels = kernels
        self.graph = graph
        self.owners = built.owners
        self.found = kernel_owners(kernels, built.owners, {weight: node for node, weight in built.integer_tensors})
        self.captured = {node.name or "": node for node in graph.model.graph}
        self.written = {first_output(node): node.op_type for node in built.model.graph if node.outputs}
        self.ops_of: dict[str, set[str]] = {}
        for output, op in self.written.items():
            self.ops_of.setdefault(built.owners.get(output, ""), set()).add(op)
        self.weights = self._weights(built)
        writers = {name: i for i, kernel in enumerate(kernels) for name in (kernel.output, *kernel.output_names)}
        self.before = [[writers[name] for name in kernel.input_names if name in writers] for kernel in kernels]
        self.behind: list[list[int]] = [[] for _ in kernels]
        for i, before in enumerate(self.before):
            for writer in before:
                self.behind[writer].append(i)
        self._above = {
            name: [(above.name or "") for v in node.inputs if v is not None and (above := v.producer()) is not None]
            for name, node in self.captured.items()
        }
        self._recurrent = self._in_order()
        self._claimed: set[str] = {self.named(i) for i, kernel in enumerate(kernels) if kernel.is_product}

    def _weights(self, built: Built) -> dict[str, str]:
        """Return the layer node by the name of what its kernel may read its weights from: stored, or folded at load."""
        names: dict[str, str] = {}
        for node in built.model.graph:
            owner = built.owners.get(first_output(node), "")
            if owner in self.graph.layer_of_node:
                stored = [value for value in node.inputs if value is not None and value.const_value is not None]
                names |= {value.name or "": owner for value in (*stored, *node.outputs)}
        return names

    def _in_order(self) -> dict[int, str]:
        """Return the captured node of each LSTM and GRU kernel in the order of both graphs, where their numbers agree.

        OpenVINO names its own after nothing in the file, and makes one of each direction.
        """
        found = [i for i, kernel in enumerate(self.kernels) if kernel.short_op in GATES]
        nodes = [
            (name, node)
            for name, node in self.captured.items()
            if name in self.graph.layer_of_node and node.op_type in GATES
        ]
        for names in ([name for name, _ in nodes], [name for name, node in nodes for _ in range(directions(node))]):
            pairs = list(zip(found, names, strict=False))
            if len(found) == len(names) and all(
                self.kernels[i].short_op == self.captured[name].op_type for i, name in pairs
            ):
                return dict(pairs)
        return {}

    def named(self, i: int) -> str:
        """Return the captured node that a kernel's own name tells, or ""."""
        return next((self.owners[name] for name in self.kernels[i].names if self.owners.get(name)), "")

    def own_place(self, i: int) -> Place | None:
        """Return the place of a kernel, or None of one that only converts or reorders."""
        kernel = self.kernels[i]
        if self._converts(kernel):
            decoded = self.graph.layer_of_node.get(self.found[i], "")
            return Place("layer", decoded) if decoded and kernel.constants[0] else None
        layer = self.graph.layer_of_node.get(self.product_node(i), "") if kernel.is_product else self._part_of(i)
        return Place("layer", layer) if layer else Place("op", self.op(i))

    def _converts(self, kernel: Kernel) -> bool:
        """Whether a kernel goes between float and integers, or moves channels for another one: nobody wrote it as such."""
        op = kernel.short_op
        return op in (*QUANTISING, *REORDERING) or (op == "Transpose" and self.written.get(kernel.output) != op)

    def op(self, i: int) -> str:
        """Return the captured op that a kernel runs: by its node, else by the kernel's own op."""
        owner = self.named(i)
        if owner in self.captured and owner not in self.graph.layer_of_node and not self.kernels[i].is_product:
            return str(self.captured[owner].op_type)
        return FUSED.sub("", self.kernels[i].short_op)

    def product_node(self, i: int) -> str:
        """Return the layer's node that a convolution or product runs, or "" where it is no layer's."""
        kernel, layer_of = self.kernels[i], self.graph.layer_of_node
        stored = [
            name
            for name, tensor, constant in zip(kernel.input_names, kernel.inputs, kernel.constants, strict=True)
            if constant and tensor is not None and len(tensor.shape or ()) >= 2
        ]
        for owner in (*(self.weights.get(name, "") for name in stored), self.named(i)):
            if owner in layer_of:
                return owner
        if kernel.integer and self.found[i] in layer_of:
            return self.found[i]
        if i in self._recurrent:
            return self._recurrent[i]
        if kernel.weight is None:
            return ""
        names = (self.named(j) for j in _walk([i], self.behind.__getitem__))
        data = [self.found[j] for j in self.before[i] if kernel.input_names[0] in self.kernels[j].output_names]
        return self._layer_above(next(filter(None, names), ""), data)

    def _layer_above(self, name: str, data: Collection[str]) -> str:
        """Return the layer's node that a fused node reads and that reads ``data`` itself, the nearest first.

        Where that does not tell, one that no kernel is named after.
        """
        layer_of = self.graph.layer_of_node
        reached = _walk([name], lambda node: self._above.get(node, ()), layer_of.__contains__)
        above = [node for node in reached if node in layer_of]
        left = [node for node in above if node not in self._claimed]
        reading = [node for node in left if not set(data).isdisjoint(self._above[node])]
        chosen = next(iter((*reading, *left, *above)), "")
        self._claimed.add(chosen)
        return chosen

    def _part_of(self, i: int) -> str:
        """Return the layer that a kernel beside the product was written for: its width filled up and cut, its shuffle."""
        op, layer_of = FUSED.sub("", self.kernels[i].short_op), self.graph.layer_of_node
        known = self.named(i)
        if known:
            near = [known]
        else:
            near = [self.found[i], *(self.found[j] for j in self.behind[i])]
            near = near[::-1] if op in FILLING else near
        return next((layer_of[node] for node in near if node in layer_of and op in self.ops_of.get(node, ())), "")


def _border(border: Sequence[int], places: Mapping[int, Place], reading: _Reading) -> Place:
    """Return the place of kernels that convert or reorder in a row."""
    inside = set(border)

    def is_layer(i: int) -> bool:
        return i in places and places[i].kind == "layer"

    def nearest(steps: Sequence[Sequence[int]]) -> str:
        found = (places[i].name for i in _walk(border, steps.__getitem__, is_layer) if i not in inside and is_layer(i))
        return next(found, "")

    layers = nearest(reading.before), nearest(reading.behind)
    ops = [reading.kernels[i].short_op for i in border]
    sides = [j for i in border for j in (*reading.before[i], *reading.behind[i]) if j in places]
    touching = tuple(dict.fromkeys(places[j].name for j in sides if is_layer(j)))
    names = f"{layers[0] or 'input'} → {layers[1] or 'output'}"
    if not any(op in QUANTISING for op in ops):
        if all(places[j] == Place("layer", layers[0]) for j in sides) and layers[0] == layers[1]:
            return Place("layer", layers[0])  # between its kernel and what fills up or cuts its width
        op = next((places[j].name for j in sides if places[j].kind == "op"), "")
        return Place("layout", names, layers, touching, ("op", op))
    to_float = "DequantizeLinear" in ops
    steps = reading.behind if to_float else reading.before
    reached = (i for i in _walk(border, steps.__getitem__, is_layer) if i not in inside)
    due = next(filter(None, (_float_reason(i, places, reading) for i in reached)), None)
    return Place("conversion", names, layers, touching, due or ("model", "output" if to_float else "input"))


def _float_reason(i: int, places: Mapping[int, Place], reading: _Reading) -> tuple[str, str] | None:
    """Return what keeps a kernel on the float side of a conversion there, or None where it could run in integers."""
    place = places.get(i)
    if place is None or reading.kernels[i].integer:
        return None
    if place.kind == "layer":
        return "layer", place.name
    node = reading.captured.get(reading.named(i))
    return None if _has_integer_form(place.name, node, reading.graph) else ("op", place.name)


def _has_integer_form(op: str, node: ir.Node | None, graph: Graph) -> bool:
    return op in OPS and (node is None or node.op_type != op or OPS[op].accepts(graph, node))


def _walk(
    start: Iterable[Item], steps: Callable[[Item], Iterable[Item]], ends: Callable[[Item], bool] = lambda item: False
) -> Iterator[Item]:
    """Yield what is reached from ``start``, itself first and the nearest next, not beyond where it ``ends``."""
    queue = list(start)
    seen = set(queue)
    for item in queue:
        yield item
        for other in () if ends(item) else steps(item):
            if other not in seen:
                seen.add(other)
                queue.append(other)


def _components(items: Sequence[int], before: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the sets of items that read each other."""
    near: dict[int, list[int]] = {i: [] for i in items}
    for i in items:
        for j in before[i]:
            if j in near:
                near[i].append(j)
                near[j].append(i)
    left, found = dict.fromkeys(items), []
    while left:
        found.append(sorted(_walk([next(iter(left))], near.__getitem__)))
        for i in found[-1]:
            del left[i]
    return found
