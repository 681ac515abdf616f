"""What an option does to the weights: the difference that rounding, zeroing or pruning alone makes, after its repair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from . import recurrent
from .candidate import NATIVE
from .matrix import has_own_biases, to_matrix
from .narrow import kept_inputs, whole_axis
from .ties import OWN
from .weights import per_channel

if TYPE_CHECKING:
    import onnx_ir as ir

    from .build import Builder
    from .graph import Graph, Layer
    from .space import Space


@dataclass(frozen=True)
class Differences:
    """What a change adds.

    Attributes:
        weights: by initializer, in its stored layout.
        shifts: by layer, to its outputs ``[O]``.
        on_grids: tensors whose values are moved to their 8-bit grids.
    """

    weights: Mapping[str, np.ndarray]
    shifts: Mapping[str, np.ndarray]
    on_grids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Change:
    """One option of one layer or group.

    Attributes:
        kind: "bits", "sparsities", "ratios", or "form " and the form in which the layer is rounded.
        name: of the layer or the group.
        value: the weight bits, the sparsity or the pruning ratio.
    """

    kind: str
    name: str
    value: float

    @property
    def form(self) -> str:
        """The form in which the graph's layers are written."""
        return self.kind.removeprefix("form ") if self.kind.startswith("form ") else NATIVE

    def differences(self, builder: Builder) -> Differences:
        """Return what is added to weights and outputs; removed channels count as weights of 0 of what reads them.

        Args:
            builder: prepared for the option.
        """
        if self.kind == "ratios":
            return _pruned(builder, self.name, self.value)
        static = builder.static_of(self.form)
        graph = static.statistics.graph
        layer = graph.layers[self.name]
        if self.kind == "sparsities":
            sparse = static.fitted(layer, self.value)
            return _added(graph, layer, sparse.weight - graph.weight(layer), sparse.shift)
        rounded = static.rounded(layer, int(self.value))
        weight = rounded.codes * per_channel(layer, rounded.scale)
        return _added(graph, layer, weight - graph.weight(layer), rounded.shift)


def _added(graph: Graph, layer: Layer, weight: np.ndarray, shift: np.ndarray) -> Differences:
    """Return what is added to a layer's weight and to its sums: of an LSTM or GRU these are not its outputs, but have biases."""
    if not layer.recurrent:
        return Differences({layer.weight: weight}, {layer.name: shift})
    biases = (node.inputs[recurrent.B] for node in graph.model.graph if node.name in layer.nodes)
    names = [value.name or "" for value in biases if value is not None]
    return Differences({layer.weight: weight} | dict.fromkeys(names, recurrent.padded(layer, shift)), {})


def changes_of(space: Space) -> Iterator[Change]:
    """Yield all that a space offers and that costs quality: each layer's widths and sparsities, each group's ratios.

    Those of one kind and name come together, from little to much for sparsities and ratios.
    """
    for name, choices in space.choices.items():
        if len(choices) < 2:
            continue
        widths = sorted({choice.weight_bits for choice in choices if choice.rounded})
        for kind in ("bits", *(f"form {form}" for form in space.forms_of(name))):
            yield from (Change(kind, name, float(bits)) for bits in widths)
        sparsities = sorted({choice.sparsity for choice in choices if choice.sparsity})
        yield from (Change("sparsities", name, value) for value in sparsities)
    for name, ratios in space.ratios.items():
        yield from (Change("ratios", name, ratio) for ratio in sorted(ratios) if ratio)


def own_error(builder: Builder, change: Change) -> float:
    """Return the mean squared error that a change makes at the outputs of the layers themselves, summed over them.

    From the Gram matrices of their inputs. Without a matrix (a dilated ConvTranspose) inputs are taken to be alike.
    """
    statistics = builder.static_of(change.form).statistics
    layer_of = {layer.weight: layer for layer in statistics.graph.layers.values()}
    total = 0.0
    for name, difference in change.differences(builder).weights.items():
        layer = layer_of.get(name)
        moments = statistics.moments(layer) if layer is not None else None
        if layer is None or moments is None:
            total += float(np.square(difference, dtype=np.float64).sum())
            continue
        for rows, gram, mean in zip(to_matrix(layer, difference), *moments, strict=True):
            seen = float(np.einsum("rd,rd->", rows @ gram, rows))
            total += max(seen - float(np.square(rows @ mean).sum()) if has_own_biases(layer) else seen, 0.0)
    return total


def _pruned(builder: Builder, name: str, ratio: float) -> Differences:
    graph = builder.equalised
    removed = builder.pruner.removed({name: ratio})
    weights: dict[str, np.ndarray] = {}
    shifts: dict[str, np.ndarray] = {}
    for reader in builder.pruner.channels.groups[name].readers:
        layer = graph.layers[reader]
        kept = kept_inputs(layer, removed)
        if kept is None:
            continue
        fitted = builder.static.fitted(layer, kept=kept)
        left = -graph.weight(layer)
        where: list[np.ndarray | slice] = [slice(None)] * left.ndim
        where[layer.input_axis] = whole_axis(layer, kept)
        left[tuple(where)] += fitted.weight
        added = _added(graph, layer, left, fitted.shift)
        weights |= added.weights
        shifts |= added.shifts
    read = set(weights)
    for (tensor, axis), gone in removed.items():
        constant = tensor.split(OWN)[0]
        if constant not in read and _summed_elsewhere(graph, constant, axis):
            cut = graph.constant(constant) + weights.get(constant, 0.0)
            where = [slice(None)] * cut.ndim
            where[axis] = gone
            cut[tuple(where)] = 0.0
            weights[constant] = cut - graph.constant(constant)
    return Differences(weights, shifts)


def _summed_elsewhere(graph: Graph, name: str, axis: int) -> bool:
    """Whether a node that is no layer sums over this axis of a constant: a matrix on the left, weights used in two ways."""
    value = graph.model.graph.initializers.get(name)
    return value is not None and any(
        usage.node.name not in graph.layer_of_node and _summed_axis(usage.node, usage.idx, value) == axis
        for usage in value.uses()
    )


def _summed_axis(node: ir.Node, index: int, value: ir.Value) -> int | None:
    """Return the axis of its input at ``index``, a constant, that a product sums over; None where it is no product."""
    rank = len(value.const_value.shape) if value.const_value is not None else 0
    if node.op_type == "MatMul":
        return rank - 1 if index == 0 else max(rank - 2, 0)
    if node.op_type == "Gemm" and index < 2:
        turned = bool(node.attributes.get_int("transB" if index else "transA", 0))
        return int(turned) if index else int(not turned)
    return {"Conv": 1, "ConvTranspose": 0}.get(node.op_type) if index == 1 else None
