"""The candidates that every search begins with: the reference, then uniform ones from wide to narrow."""

from __future__ import annotations

from collections.abc import Sequence

from ..spaces.candidate import REFERENCE, Candidate, LayerChoice
from ..spaces.space import Space
from ..studies.texts import student_name
from ..studies.trial import REFERENCE_LABEL

PRUNED_AT = 7  # most weight bits of the uniform candidates that are pruned as well: no processor saturates these


def start_points(space: Space) -> list[tuple[str, Candidate]]:
    """Return labels and candidates: ("reference", ...), ("uniform 8/8", ...), ..., ("uniform 6/8, pruned 0.25", ...).

    A layer that does not offer the width takes the next wider one that it offers; activations are 8 bits where it
    offers them. A group takes the offered ratio that is nearest to a quarter, and to a half.
    """
    points = [(_base_label(space), space.candidate())]
    widths = sorted(
        {choice.weight_bits for choices in space.choices.values() for choice in choices} - {32}, reverse=True
    )
    for width in widths:
        _add(points, _label(space, width), _uniform(space, width))
    at = max((width for width in widths if width <= PRUNED_AT), default=min(widths, default=32))
    for ratio in (0.25, 0.5) if space.pruned else ():
        groups = {name: _nearest(ratios, ratio) for name, ratios in space.ratios.items()}
        label = f"{_label(space, at)}, pruned {ratio:g}" if widths else f"pruned {ratio:g}"
        _add(points, label, space.candidate(_uniform(space, at).layers, groups))
    return points


def first_points_of(spaces: Sequence[Space], sampler: str) -> list[tuple[str, Candidate]]:
    """Return what a search of several bases begins with, the reference first; see `first_points`."""
    return [point for space in spaces for point in first_points(space, sampler)]


def first_points(space: Space, sampler: str) -> list[tuple[str, Candidate]]:
    """Return what a search with a sampler begins with.

    The frontier sampler knows errors before anything is measured: of the uniform candidates it needs the two widest, which
    tell what the processor's integer kernels lose at 8 bits, and the narrowest.
    """
    points = start_points(space)
    if sampler != "frontier":
        return points
    whole = [(label, candidate) for label, candidate in points[1:] if not candidate.groups]
    return [points[0], *whole[:2], *whole[2:][-1:]]


def uniform_candidates(space: Space) -> list[Candidate]:
    """Return candidates whose layers are as alike as the space allows, the same for its groups, from wide to narrow."""
    widths = sorted({choice.weight_bits for choices in space.choices.values() for choice in choices}, reverse=True)
    found = []
    for ratio in sorted({round(ratio * 8) / 8 for ratios in space.ratios.values() for ratio in ratios} or {0.0}):
        groups = {name: _nearest(ratios, ratio) for name, ratios in space.ratios.items()}
        found += [space.candidate(_uniform(space, width).layers, groups) for width in widths or [32]]
    return list(dict.fromkeys(found))


def _add(points: list[tuple[str, Candidate]], label: str, candidate: Candidate) -> None:
    if all(candidate != other for _, other in points):
        points.append((label, candidate))


def _uniform(space: Space, width: int) -> Candidate:
    held = {name: ratios[0] for name, ratios in space.ratios.items()}
    return space.candidate({name: _choice(choices, width) for name, choices in space.choices.items()}, held)


def _label(space: Space, width: int) -> str:
    integer = any(_choice(choices, width).integer for choices in space.choices.values())
    student = f"{_base_label(space)}, " if space.base != REFERENCE else ""
    return f"{student}uniform {width}/{8 if integer else 32}"


def _base_label(space: Space) -> str:
    """Return what the uncompressed candidate of a space is called."""
    if space.base == REFERENCE:
        return REFERENCE_LABEL
    return student_name(space.student) if space.student else f"student {space.base.removeprefix('sha256:')[:8]}"


def _nearest(ratios: Sequence[float], wanted: float) -> float:
    return min(ratios, key=lambda ratio: abs(ratio - wanted))


def _choice(choices: Sequence[LayerChoice], width: int) -> LayerChoice:
    wide_enough = [choice for choice in choices if choice.weight_bits >= width]
    return min(
        wide_enough or [max(choices)], key=lambda choice: (choice.weight_bits, choice.activation_bits, choice.sparsity)
    )
