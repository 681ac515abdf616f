"""The best options along a chain of axes, exactly, by dynamic programming (Viterbi, 1967; Bellman, 1957)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def best_chain(own: Floats, together: Callable[[int], Floats | None]) -> NDArray[np.int64]:
    """Return the options ``[W, N]`` that cost least in sum, for each of ``W`` problems.

    Args:
        own: the cost of each option of each link of the chain ``[W, N, K]``, infinite where there is none such.
        together: the cost ``[W or 1, K, K]`` of an option and one of the next link, by the former's place; None for 0.
    """
    count, length, options = own.shape
    came = np.zeros((count, length, options), np.int64)
    cost = own[:, 0] if length else np.zeros((count, options))
    for place in range(1, length):
        between = together(place - 1)
        if between is None:
            came[:, place] = cost.argmin(axis=1)[:, None]
            cost = cost.min(axis=1)[:, None] + own[:, place]
            continue
        paths = cost[:, :, None] + between
        came[:, place] = paths.argmin(axis=1)
        cost = paths.min(axis=1) + own[:, place]
    chosen = np.zeros((count, length), np.int64)
    rows = np.arange(count)
    for place in range(length - 1, -1, -1):
        chosen[:, place] = cost.argmin(axis=1) if place == length - 1 else came[rows, place + 1, chosen[:, place + 1]]
    return chosen
