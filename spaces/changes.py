"""What an option does to the weights: the difference that rounding, zeroing or pruning alone makes, after its repair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .candidate import NATIVE
from .narrow import kept_inputs, whole_axis
from .weights import per_channel

if TYPE_CHECKING:
    from .build import Builder
    from .space import Space

Differences = Mapping[str, tuple[np.ndarray, np.ndarray]]


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
        """Return by layer what is added to its weight, in its stored layout, and to its outputs ``[O]``.

        Removed channels count as weights of 0 of what reads them: nobody else hears of them.

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
            return {self.name: (sparse.weight - graph.weight(layer), sparse.shift)}
        rounded = static.rounded(layer, int(self.value))
        weight = rounded.codes * per_channel(layer, rounded.scale)
        return {self.name: (weight - graph.weight(layer), rounded.shift)}


def changes_of(space: Space) -> Iterator[Change]:
    """Yield all that a space offers and that costs quality: each layer's widths and sparsities, each group's ratios."""
    for name, choices in space.choices.items():
        if len(choices) < 2:
            continue
        widths = sorted({choice.weight_bits for choice in choices if choice.rounded})
        for kind in ("bits", *(f"form {form}" for form in space.forms_of(name))):
            yield from (Change(kind, name, float(bits)) for bits in widths)
        sparsities = sorted({choice.sparsity for choice in choices if choice.sparsity})
        yield from (Change("sparsities", name, value) for value in sparsities)
    for name, ratios in space.ratios.items():
        yield from (Change("ratios", name, ratio) for ratio in ratios if ratio)


def _pruned(builder: Builder, name: str, ratio: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    removed = builder.pruner.removed({name: ratio})
    found = {}
    for reader in builder.pruner.channels.groups[name].readers:
        layer = builder.equalised.layers[reader]
        kept = kept_inputs(layer, removed)
        if kept is None:
            continue
        fitted = builder.static.fitted(layer, kept=kept)
        left = -builder.equalised.weight(layer)
        where: list[np.ndarray | slice] = [slice(None)] * left.ndim
        where[layer.input_axis] = whole_axis(layer, kept)
        left[tuple(where)] += fitted.weight
        found[reader] = (left, fitted.shift)
    return found
