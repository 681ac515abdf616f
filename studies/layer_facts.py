"""What was measured of each layer of a candidate, and what the layer is: the facts that `causes` reads."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..spaces.attribution import Place
from ..spaces.candidate import DYNAMIC, Candidate
from ..spaces.domains import TO_FLOAT, TO_INTEGER
from ..spaces.kernels import Kernel
from ..spaces.narrow import inputs_of_group
from ..spaces.rules import ONNX_RUNTIME, Rules
from ..spaces.work import channel_shares, multiply_adds
from .causes import NEXT_TO_NOTHING, LayerFacts

if TYPE_CHECKING:
    from ..spaces.graph import Graph, Layer
    from ..spaces.space import Space

ELEMENTS = 2**20  # that the costs of conversions (`domains`) are for


@dataclass(frozen=True)
class Measured:
    """The kernels of one file.

    Attributes:
        kernels: in the order in which they run.
        places: what each is there for.
        kernel_ms: the median time of each ``[kernels]``.
        overhead_ms: what passes between the kernels, the median of the runs.
    """

    kernels: Sequence[Kernel]
    places: Sequence[Place]
    kernel_ms: np.ndarray
    overhead_ms: float

    @cached_property
    def kernels_ms(self) -> float:
        """The time of all kernels."""
        return float(self.kernel_ms.sum())

    @property
    def whole_ms(self) -> float:
        """The time of all kernels and of what passes between them."""
        return self.kernels_ms + self.overhead_ms

    def total_ms(self, chosen: Callable[[Place], bool]) -> float:
        """Return the time of the kernels at some places."""
        return float(sum(ms for place, ms in zip(self.places, self.kernel_ms, strict=True) if chosen(place)))

    def of_layer(self, name: str) -> list[Kernel]:
        """Return the kernels of a layer."""
        pairs = zip(self.kernels, self.places, strict=True)
        return [kernel for kernel, place in pairs if (place.kind, place.name) == ("layer", name)]

    def layer_ms(self, name: str) -> float:
        """Return the time of a layer's kernels."""
        return self.total_ms(lambda place: (place.kind, place.name) == ("layer", name))


def layer_facts(
    graph: Graph,
    narrow: Graph,
    candidate: Candidate,
    space: Space,
    before: Measured,
    after: Measured,
    rules: Rules = ONNX_RUNTIME,
) -> list[LayerFacts]:
    """Return the facts of all layers, in the order of the graph.

    Args:
        graph: the captured reference.
        narrow: the graph that the candidate is made from, without the channels that it removes.
        candidate: with the ratios that its groups really come to.
        space: offers the next pruning ratios.
        before: the reference.
        after: the candidate.
        rules: of the runtime.
    """
    work = multiply_adds(graph), multiply_adds(narrow)
    facts = []
    for name in graph.layers:
        layer = narrow.layers[name]
        own = after.layer_ms(name)
        removable, adjacent, added = _conversions(narrow, layer, after)
        facts.append(
            LayerFacts(
                name=name,
                op=layer.op,
                kernel=_kernel(candidate, name, after),
                integer_form=rules.has_integer_kernel(narrow, layer),
                dynamic_form=DYNAMIC in rules.forms(narrow, layer),
                reference_ms=before.layer_ms(name),
                candidate_ms=own,
                share=own / after.kernels_ms if after.kernels_ms else 0.0,
                adjacent_ms=adjacent,
                removable_ms=removable,
                added_ms=added,
                multiply_adds=work[1][name],
                reference_multiply_adds=work[0][name],
                weight_bits=candidate.choice(name).weight_bits,
                sparsity=candidate.choice(name).sparsity,
                inputs=inputs_of_group(layer),
                outputs=layer.channels,
                group=layer.group,
                taps=math.prod(layer.kernel),
                axes=len(layer.kernel),
                dilated=any(d != 1 for d in layer.dilations),
                known_kernels=rules is ONNX_RUNTIME,
            )
        )
    dense = _dense_speedup(facts)
    savings = _savings(graph, candidate, space, {fact.name: fact.candidate_ms for fact in facts})
    return [replace(fact, dense_speedup=dense, pruning=_largest(fact.name, savings)) for fact in facts]


def _kernel(candidate: Candidate, name: str, after: Measured) -> str:
    """Return what really ran: one product in float is a fallback where integers were chosen."""
    products = [kernel.integer for kernel in after.of_layer(name) if kernel.is_product]
    if products and all(products):
        return "integer"
    return "fallback" if candidate.choice(name).integer else "float"


def _conversions(narrow: Graph, layer: Layer, after: Measured) -> tuple[float, float, float]:
    """Return what is converted because the layer is in float, what is converted at its kernels, and what would be new.

    New conversions are foretold: the values on a side without a conversion, at the costs that a build assumes.
    """
    borders = [
        (place, ms) for place, ms in zip(after.places, after.kernel_ms, strict=True) if place.kind == "conversion"
    ]
    removable = sum(ms for place, ms in borders if place.due == ("layer", layer.name))
    adjacent = sum(ms for place, ms in borders if layer.name in place.touching)
    integer = any(kernel.integer for kernel in after.of_layer(layer.name) if kernel.is_product)
    costs = (TO_FLOAT, TO_INTEGER) if integer else (TO_INTEGER, TO_FLOAT)
    nodes = [node for node in narrow.model.graph if node.name in layer.nodes]
    added = 0.0
    for side, value_of in enumerate((lambda node: node.inputs[0], lambda node: node.outputs[0])):
        there = any(layer.name in place.touching and place.layers[1 - side] == layer.name for place, _ in borders)
        if not there:
            values = [math.prod(narrow.shapes.get(value_of(node).name or "", ())) for node in nodes]
            added += costs[side] * sum(values) / ELEMENTS
    return float(removable), float(adjacent), added


def _dense_speedup(facts: Iterable[LayerFacts]) -> float | None:
    """Return what integers gained in the layers whose kernel has nothing to stumble over, for equal multiply-adds."""
    gained = [
        fact.speedup * fact.kept
        for fact in facts
        if fact.kernel == "integer" and fact.plain and fact.share >= NEXT_TO_NOTHING and fact.reference_ms > 0
    ]
    return statistics.median(gained) if gained else None


def _savings(
    graph: Graph, candidate: Candidate, space: Space, times: Mapping[str, float]
) -> dict[str, tuple[float, float, frozenset[str]]]:
    """Return for each channel group the next ratio that the space offers, the ms that it saves, and its layers."""
    found = {}
    for group, shares in channel_shares(graph).items():
        now = candidate.ratio(group)
        further = min((ratio for ratio in space.ratios.get(group, ()) if ratio > now), default=None)
        if further is None:
            continue
        saved, layers = 0.0, frozenset(shares[0]) | frozenset(shares[1])
        for layer in layers:
            left = [(1 - part.get(layer, 0.0) * further) / (1 - part.get(layer, 0.0) * now) for part in shares]
            saved += times[layer] * (1 - math.prod(left))
        found[group] = further, saved, layers
    return found


def _largest(layer: str, savings: Mapping[str, tuple[float, float, frozenset[str]]]) -> tuple[str, float, float] | None:
    """Return the group whose next ratio saves most, of those that a layer belongs to."""
    own = [(group, ratio, saved) for group, (ratio, saved, layers) in savings.items() if layer in layers]
    return max(own, key=lambda option: option[2], default=None)
