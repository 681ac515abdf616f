"""The strip of a candidate: one cell a layer, coloured by weight bits, under it how many channels stay."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..spaces.candidate import NATIVE, REFERENCE, Candidate, LayerChoice
from ..spaces.work import channel_shares

if TYPE_CHECKING:
    from ..spaces.graph import Graph
    from .run import Run

LEGEND_BITS = (2, 3, 4, 5, 6, 8, 16, 32)
LEGEND_REMOVED = 0.5


@dataclass(frozen=True)
class Network:
    """What a strip needs to know of a network.

    Attributes:
        layers: names, in the order of the data.
        shares: by layer, the part of its output channels that each channel group is.
    """

    layers: tuple[str, ...]
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """The names of its channel groups."""
        return tuple(dict.fromkeys(group for shares in self.shares.values() for group in shares))

    @classmethod
    def of_graph(cls, graph: Graph) -> Network:
        """Return the network of a captured graph."""
        shares: dict[str, dict[str, float]] = {}
        for group, (_, outputs) in channel_shares(graph).items():
            for layer, share in outputs.items():
                shares.setdefault(layer, {})[group] = share
        return cls(tuple(graph.layers), shares)

    @classmethod
    def of_run(cls, run: Run, base: str = REFERENCE) -> Network:
        """Return what the candidates of a base tell of it where the study cannot be loaded; a group is named by a layer."""
        candidates = [trial.candidate for trial in run.trials if trial.candidate.base == base]
        layers = {name for candidate in candidates for name in candidate.layers}
        shares: dict[str, dict[str, float]] = {}
        for group in {name for candidate in candidates for name in candidate.groups}:
            shares[group.split("#")[0]] = {group: 1.0}
        return cls(tuple(sorted(layers | set(shares))), shares)

    def removed(self, candidate: Candidate, layer: str) -> float:
        """Return the part of a layer's output channels that a candidate removes."""
        return sum(share * candidate.ratio(group) for group, share in self.shares.get(layer, {}).items())


@dataclass(frozen=True)
class Cell:
    """A layer's cell.

    Attributes:
        classes: how it looks.
        kept: the part of its channels that stays.
        title: what it says when pointed at.
        bits: that it shows.
        cost: its part of what the costliest layer costs; None where that is not known.
    """

    classes: str
    kept: float
    title: str
    bits: int
    cost: float | None = None


def cells(candidate: Candidate, network: Network, costs: Mapping[str, float] | None = None) -> list[Cell]:
    """Return the cells of a candidate, its layers in the graph's order.

    Args:
        candidate: of the network's base.
        network: names its layers.
        costs: the part of the predicted error that each layer is, where that is known.
    """
    found, most = [], max((costs or {}).values(), default=0.0)
    for name in network.layers:
        choice, removed = candidate.choice(name), network.removed(candidate, name)
        cell = _cell(choice, f"{name}: {choice_text(choice, removed)}", removed=removed)
        if costs and most > 0.0:
            part = costs.get(name, 0.0)
            cell = replace(cell, title=f"{cell.title}; {part:.1%} of the predicted error", cost=part / most)
        found.append(cell)
    return found


def strip_html(candidate: Candidate, network: Network) -> str:
    """Return the strip of a candidate as HTML, its layers in the graph's order."""
    shown = "".join(map(_cell_html, cells(candidate, network)))
    return f'<div class="strip" role="img" aria-label="{html.escape(summary_text(candidate, network))}">{shown}</div>'


def legend_html(pruned: bool, sparse: bool) -> str:
    """Return the legend of the strips; marks of pruning and sparsity only where they occur."""

    def shown(*what: Any, **more: Any) -> str:
        return _cell_html(_cell(*what, **more))

    cells = "".join(shown(LayerChoice(bits, 32), choice_text(LayerChoice(bits, 32)), kind="") for bits in LEGEND_BITS)
    parts = [
        ("a cell is a layer, in the order of the data; its number is the bits of the weights", cells),
        ("runs in integer kernels", shown(LayerChoice(8, 8), "integer")),
        ("in float kernels", shown(LayerChoice(8, 32), "float")),
    ]
    if pruned:
        half = shown(LayerChoice(8, 32), "half of the channels", kind="", removed=LEGEND_REMOVED)
        parts.append(("the bar under it: the part of its channels that stays", half))
    if sparse:
        parts.append(("some of its weights are zero", shown(LayerChoice(8, 32, 0.5), "sparse", kind="")))
    html_ = "".join(f'<span><span class="strip" aria-hidden="true">{cell}</span>{text}</span>' for text, cell in parts)
    return f'<div class="key">{html_}</div>'


def choice_text(choice: LayerChoice, removed: float = 0.0) -> str:
    """A layer's choice in words: "4-bit weights, integer kernels, 25 % of its channels removed"."""
    text = f"{choice.weight_bits}-bit weights, {'integer' if choice.integer else 'float'} kernels"
    text += f", {choice.sparsity:.0%} of the weights zero" if choice.sparsity else ""
    text += f", written in {choice.form}" if choice.form != NATIVE else ""
    return text + (f", {removed:.0%} of its channels removed" if removed else "")


def summary_text(candidate: Candidate, network: Network) -> str:
    """A candidate in a line: "41 layers: 12 at 4 bits, 29 at 8 bits; 40 in integer kernels; 8 lost channels"."""
    choices = [candidate.choice(name) for name in network.layers]
    bits = Counter(choice.weight_bits for choice in choices)
    widths = ", ".join(f"{count} at {width} bits" for width, count in sorted(bits.items()))
    text = f"{len(choices)} layers: {widths}; {sum(choice.integer for choice in choices)} in integer kernels"
    pruned = sum(network.removed(candidate, name) > 0 for name in network.layers)
    sparse = sum(choice.sparsity > 0 for choice in choices)
    forms = Counter(choice.form for choice in choices if choice.form != NATIVE)
    text += (f"; {pruned} lost channels" if pruned else "") + (f"; {sparse} sparse" if sparse else "")
    return text + "".join(f"; {count} in {form}" for form, count in sorted(forms.items()))


def _cell(choice: LayerChoice, title: str, kind: str | None = None, removed: float = 0.0) -> Cell:
    kind = ("integer" if choice.integer else "float") if kind is None else kind
    names = [f"b{choice.weight_bits}", kind, "sparse" if choice.sparsity else "", "pruned" if removed else ""]
    return Cell(" ".join(filter(None, names)), 1.0 - removed, title, choice.weight_bits)


def _cell_html(cell: Cell) -> str:
    style = f' style="--kept: {cell.kept:.1%}"' if cell.kept < 1.0 else ""
    return f'<i class="{cell.classes}"{style} title="{html.escape(cell.title)}">{cell.bits}</i>'
