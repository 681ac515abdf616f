"""The strip of bits per layer: one cell a layer, coloured by weight bits, integer or float marked."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence

from ..spaces.candidate import Candidate, LayerChoice

LEGEND_BITS = (2, 3, 4, 5, 6, 8, 16, 32)


def strip_html(candidate: Candidate, layers: Sequence[str]) -> str:
    """Return the strip of a candidate as HTML, its layers in the graph's order."""
    cells = "".join(_cell(candidate.choice(name), f"{name}: {choice_text(candidate.choice(name))}") for name in layers)
    return f'<div class="strip" role="img" aria-label="{html.escape(summary_text(candidate, layers))}">{cells}</div>'


def legend_html() -> str:
    """Return the legend of the strips."""
    cells = "".join(_cell(LayerChoice(bits, 32), choice_text(LayerChoice(bits, 32)), kind="") for bits in LEGEND_BITS)
    kinds = _cell(LayerChoice(8, 8), "integer"), _cell(LayerChoice(8, 32), "float")
    parts = (
        ("a cell is a layer, in the order of the data; its number is the bits of the weights", cells),
        ("runs in integer kernels", kinds[0]),
        ("in float kernels", kinds[1]),
    )
    shown = "".join(f'<span><span class="strip" aria-hidden="true">{cell}</span>{text}</span>' for text, cell in parts)
    return f'<div class="key">{shown}</div>'


def choice_text(choice: LayerChoice) -> str:
    """A layer's choice in words: "4-bit weights, integer kernels"."""
    return f"{choice.weight_bits}-bit weights, {'integer' if choice.integer else 'float'} kernels"


def summary_text(candidate: Candidate, layers: Sequence[str]) -> str:
    """A candidate in a line: "41 layers: 12 at 4 bits, 29 at 8 bits; 40 in integer kernels"."""
    bits = Counter(candidate.choice(name).weight_bits for name in layers)
    integer = sum(candidate.choice(name).integer for name in layers)
    widths = ", ".join(f"{count} at {width} bits" for width, count in sorted(bits.items()))
    return f"{len(layers)} layers: {widths}; {integer} in integer kernels"


def _cell(choice: LayerChoice, title: str, kind: str | None = None) -> str:
    kind = ("integer" if choice.integer else "float") if kind is None else kind
    return f'<i class="b{choice.weight_bits} {kind}" title="{html.escape(title)}">{choice.weight_bits}</i>'
