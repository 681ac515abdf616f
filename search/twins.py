"""The same candidate repaired in the order of the data: worth its time only where the static one is on the front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..spaces.candidate import Candidate
from ..studies.front import nondominated
from .gain import hypervolume_with_less_drop
from .proposers import Observation, Point

EVERY = 8  # one in so many trials is a twin
LEFT = 0.7  # first guess: the part of the drop that sequential repair leaves
LEAST_DROP = 0.01  # of a candidate whose twin is worth building


def sequential_twin(history: Sequence[Observation], worst: Sequence[float]) -> Candidate | None:
    """Return the sequential twin of a front member that promises most hypervolume, or None where none is left to try.

    What a twin gains is taken from those tried before: size and speed stay, the drop shrinks.

    Args:
        history: what was measured.
        worst: the reference point of the hypervolume.
    """
    points = {o.candidate: o.point for o in history if o.point is not None}
    known = {o.candidate for o in history}
    counting = {o.candidate: o.point for o in history if o.point is not None and o.counts} or points
    front = [c for c, stays in zip(counting, nondominated(list(counting.values())), strict=True) if stays]
    untried = [
        c
        for c in front
        if c.repair == "static" and c.repaired and not c.weights and replace(c, repair="sequential") not in known
    ]
    untried = [c for c in untried if points[c][2] > LEAST_DROP and all(np.less(points[c], worst))]
    if not untried:
        return None
    left = _left(points)
    taken = np.array([points[c] for c in front])

    best = max(untried, key=lambda c: hypervolume_with_less_drop(points[c], left, taken, worst))
    return replace(best, repair="sequential")


def _left(points: dict[Candidate, Point]) -> float:
    """Return the part of the drop that twins have left so far, in the median."""
    pairs = [
        (points.get(replace(c, repair="static")), point) for c, point in points.items() if c.repair == "sequential"
    ]
    ratios = [twin[2] / static[2] for static, twin in pairs if static is not None and static[2] > LEAST_DROP]
    return float(min(np.median([LEFT, *ratios]), 1.0))
