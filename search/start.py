"""The candidates that every search begins with: the reference, then one uniform candidate for each weight width."""

from __future__ import annotations

from collections.abc import Sequence

from ..spaces.candidate import Candidate, LayerChoice
from ..spaces.space import Space
from ..studies.trial import REFERENCE_LABEL


def start_points(space: Space) -> list[tuple[str, Candidate]]:
    """Return labels and candidates: ("reference", ...), ("uniform 8/8", ...), ... from wide to narrow.

    A layer that does not offer the width takes the next wider one that it offers; activations are 8 bits where it
    offers them.
    """
    points = [(REFERENCE_LABEL, Candidate())]
    widths = {choice.weight_bits for choices in space.choices.values() for choice in choices} - {32}
    for width in sorted(widths, reverse=True):
        candidate = Candidate(layers={name: _choice(choices, width) for name, choices in space.choices.items()})
        activation = 8 if any(choice.integer for choice in candidate.layers.values()) else 32
        if all(candidate != other for _, other in points):
            points.append((f"uniform {width}/{activation}", candidate))
    return points


def _choice(choices: Sequence[LayerChoice], width: int) -> LayerChoice:
    wide_enough = [choice for choice in choices if choice.weight_bits >= width]
    return min(wide_enough or [max(choices)], key=lambda choice: (choice.weight_bits, choice.activation_bits))
