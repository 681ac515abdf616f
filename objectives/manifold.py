"""How much of one set of samples another one reaches, by k-nearest neighbours of their features.

Coverage: Naeem, Oh, Uh, Choi and Yoo: Reliable Fidelity and Diversity Metrics for Generative Models (ICML 2020). Recall:
Kynkäänniemi, Karras, Laine, Lehtinen and Aila: Improved Precision and Recall Metric for Assessing Generative Models (NeurIPS
2019).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 1024  # rows of a matrix of distances, which bounds memory

Floats = NDArray[np.float64]


def radii(points: NDArray, neighbours: int) -> Floats:
    """Return the distance of each point to its ``neighbours``-th nearest one beside itself ``[N]``.

    Args:
        points: ``[N, D]``, more than ``neighbours`` of them.
        neighbours: at least 1.
    """
    found = [np.partition(rows, neighbours, axis=1)[:, neighbours] for rows in _distances(points, points)]
    return np.concatenate(found)  # the nearest is the point itself, or one that is equal to it


def coverage(real: NDArray, made: NDArray, real_radii: Floats) -> float:
    """Return the part of the real points within whose radius at least one made point lies, 0 to 1.

    Args:
        real: ``[N, D]``.
        made: ``[M, D]``.
        real_radii: of the real points ``[N]``.
    """
    nearest = np.concatenate([rows.min(axis=1) for rows in _distances(real, made)])
    return float(np.mean(nearest <= real_radii))


def recall(real: NDArray, made: NDArray, made_radii: Floats) -> float:
    """Return the part of the real points that lie within the radius of at least one made point, 0 to 1.

    Args:
        real: ``[N, D]``.
        made: ``[M, D]``.
        made_radii: of the made points ``[M]``.
    """
    within = np.concatenate([(rows <= made_radii).any(axis=1) for rows in _distances(real, made)])
    return float(np.mean(within))


def _distances(points: NDArray, others: NDArray) -> Iterator[Floats]:
    """Yield rows of the Euclidean distances ``[N, M]``, some at a time; those of equal points are exactly 0."""
    from scipy.spatial.distance import cdist

    for first in range(0, len(points), AT_ONCE):
        yield cdist(points[first : first + AT_ONCE], others)
