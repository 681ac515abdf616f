"""What uncertain candidates are expected to add to a hypervolume, exactly and for thousands of them at once.

What nothing taken dominates is cut into disjoint boxes, a few for each point of the front; in a box the expectation is a
product over the objectives (Yang, Emmerich, Deutz and Bäck: Efficient computation of expected hypervolume improvement
using box decomposition algorithms, 2019; the cuts here follow a sweep over the third objective).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..studies.front import hypervolume, nondominated

Floats = NDArray[np.float64]

LEAST_SPREAD = 1e-9  # in place of 0


def hypervolume_with_less_drop(point: ArrayLike, left: float, taken: ArrayLike, worst: ArrayLike) -> float:
    """Return the hypervolume of what is taken and of a point whose drop shrinks to a part of it: size and time stay.

    Args:
        point: (size, time, drop).
        left: the part of the drop that stays.
        taken: points ``[N, 3]``, all minimised.
        worst: the reference point of the hypervolume.
    """
    return hypervolume(np.vstack([taken, np.asarray(point) * (1.0, 1.0, left)]), worst)


def open_boxes(taken: ArrayLike, worst: ArrayLike) -> tuple[Floats, Floats]:
    """Return lower and upper corners ``[B, 3]`` of disjoint boxes that fill what lies below ``worst`` undominated.

    Args:
        taken: ``[N, 3]``, minimised.
        worst: the reference point of the hypervolume.
    """
    width, top, end = (float(value) for value in np.asarray(worst, float))
    rows = np.asarray(taken, float).reshape(-1, 3)
    rows = rows[(rows < (width, top, end)).all(axis=1)]
    rows = np.unique(rows[nondominated(rows)], axis=0)
    strips = [(-np.inf, width, top, -np.inf)]  # from, to, height and since where, from left to right, ever lower
    boxes: list[tuple[float, ...]] = []
    for x, y, z in rows[np.lexsort((rows[:, 1], rows[:, 0], rows[:, 2]))].tolist():
        first = bisect_right(strips, x, key=lambda strip: strip[1])
        last = bisect_left(strips, -y, key=lambda strip: -strip[2])
        if first >= last:
            continue
        left, right, height, since = strips[first]
        kept = [(left, x, height, since)] if left < x else []
        cut = [(max(left, x), right, height, since), *strips[first + 1 : last]]
        boxes += [(a, -np.inf, start, b, high, z) for a, b, high, start in cut if start < z]
        strips[first:last] = [*kept, (max(left, x), strips[last - 1][1], y, z)]
    boxes += [(a, -np.inf, start, b, high, end) for a, b, high, start in strips]
    found = np.array(boxes)
    return found[:, :3], found[:, 3:]


def expected_gain(centre: ArrayLike, spread: ArrayLike, lower: Floats, upper: Floats) -> Floats:
    """Return by how much each of some points is expected to enlarge the hypervolume ``[M]``.

    Args:
        centre: their expected objectives ``[M, 3]``.
        spread: the standard deviations ``[M, 3]`` of independent normal distributions around them.
        lower, upper: of `open_boxes`.
    """
    centres, spreads = np.asarray(centre, float), np.asarray(spread, float)
    gain = np.ones((len(centres), len(lower)))
    for d in range(centres.shape[1]):
        edges, place = np.unique(np.concatenate([lower[:, d], upper[:, d]]), return_inverse=True)
        below = _expected_below(edges, centres[:, d, None], spreads[:, d, None])
        gain *= below[:, place[len(lower) :]] - below[:, place[: len(lower)]]
    return np.asarray(gain.sum(axis=1))


def _expected_below(edges: Floats, centres: Floats, spreads: Floats) -> Floats:
    """Return the expectation of how far a normal variable lies below each edge, 0 where above ``[M, edges]``."""
    from scipy.special import ndtr

    finite = np.isfinite(edges)
    if not spreads.any():
        return np.where(finite, np.maximum(edges - centres, 0.0), 0.0)
    spreads = np.maximum(spreads, LEAST_SPREAD)
    scaled = (edges[finite] - centres) / spreads
    result = np.zeros((len(centres), len(edges)))
    density = np.exp(-0.5 * scaled**2) / np.sqrt(2.0 * np.pi)
    result[:, finite] = spreads * (scaled * ndtr(scaled) + density)
    return result
