"""A few members of a front that stand for all of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .front import hypervolume

BEYOND = 0.1  # the corner that volumes end at lies so far beyond the worst of each objective, of its span


def spread_subset(points: ArrayLike, count: int) -> list[int]:
    """Return the rows that dominate the most volume together, found greedily: each adds the most to those before it.

    Greedy hypervolume subset selection (Guerreiro, Fonseca and Paquete, Evolutionary Computation 24, 2016), which attains at
    least 1 - 1/e of the best subset's volume.

    Args:
        points: ``[N, d]``, minimised, none of them dominated; NaN counts as the worst that is known.
        count: at most N.

    Returns:
        ``count`` rows, ascending.
    """
    rows = np.asarray(points, dtype=float)
    rows = np.where(np.isnan(rows), np.nanmax(rows, axis=0), rows)
    span = np.ptp(rows, axis=0)
    scaled = (rows - rows.min(axis=0)) / np.where(span > 0, span, 1.0)
    worst = np.full(rows.shape[1], 1.0 + BEYOND)
    chosen: list[int] = []
    for _ in range(count):
        left = [row for row in range(len(rows)) if row not in chosen]
        chosen.append(max(left, key=lambda row: hypervolume(scaled[[*chosen, row]], worst)))
    return sorted(chosen)
