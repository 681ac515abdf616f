"""The one place of dominance: the points that are compared, which of them are not dominated, and the hypervolume.

A point is (size / reference size, 1 / speedup, drop), all minimised; the reference itself lies at (1, 1, 0). Dominance compares
the study's further objectives as well, which stand behind them (`criteria.Criterion.coordinate`); the hypervolume is of these
three.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

TIME = 1  # the column of 1 / speedup
WORST = (1.0, 1.0, 1.0)  # the reference point of the hypervolume
FULL_DROP_DB = 3.0  # a drop of this many decibels counts as 1, where there is a target
FULL_FIDELITY_DB = 50.0  # without a target: a fidelity from which nothing counts as lost
FULL_FIDELITY_DROP_DB = 30.0  # and the decibels below it that count as 1


def drop_db(psnr_db: float, fidelity_db: float, reference_psnr_db: float, has_target: bool) -> float:
    """Return by how many decibels a candidate is worse than the reference, at least 0.

    With a target: the reference's PSNR minus the candidate's. Without: 50 dB minus the candidate's fidelity.
    """
    return max(0.0, signed_drop_db(psnr_db, fidelity_db, reference_psnr_db, has_target))


def signed_drop_db(psnr_db: float, fidelity_db: float, reference_psnr_db: float, has_target: bool) -> float:
    """Return by how many decibels a candidate is worse than the reference, below 0 where it is better; see `drop_db`."""
    return reference_psnr_db - psnr_db if has_target else FULL_FIDELITY_DB - fidelity_db


def full_drop_db(has_target: bool) -> float:
    """Return the drop, in decibels, that counts as 1."""
    return FULL_DROP_DB if has_target else FULL_FIDELITY_DROP_DB


def point(size_ratio: float, speedup: float, drop: float, has_target: bool) -> tuple[float, float, float]:
    """Return the point of a candidate: its size / the reference's, its speedup, its `drop_db`."""
    return (size_ratio, 1.0 / speedup, drop / full_drop_db(has_target))


def nondominated(points: ArrayLike) -> NDArray[np.bool_]:
    """Return a mask ``[N]`` of the rows of ``points [N, D]`` (minimised) that no other row dominates.

    A row dominates another where it is nowhere worse and somewhere better; of equal rows all are kept.
    """
    import moocore

    rows = _rows(points)
    if not len(rows):
        return np.zeros(0, dtype=bool)
    return np.asarray(moocore.is_nondominated(rows, keep_weakly=True), dtype=bool)


def surely_dominated(points: ArrayLike, fastest: ArrayLike, slowest: ArrayLike) -> NDArray[np.bool_]:
    """Return a mask ``[N]`` of the rows that another dominates whatever their times are within the intervals.

    Args:
        points: ``[N, 3 + K]``, minimised; of size, drop and further objectives only.
        fastest: the low ends of the times ``[N]``.
        slowest: the high ends of the times ``[N]``.
    """
    rows = _rows(points)
    low, high = np.asarray(fastest, float), np.asarray(slowest, float)
    exact = [column for place, column in enumerate(rows.T) if place != TIME]
    pairs = [(by[:, None], which[None]) for by, which in (*((column, column) for column in exact), (high, low))]
    no_worse = np.logical_and.reduce([by <= which for by, which in pairs])  # [by whom, which]
    better = np.logical_or.reduce([by < which for by, which in pairs])
    return np.asarray((no_worse & better).any(axis=0))


def membership(points: ArrayLike, spreads: ArrayLike, samples: int = 400) -> NDArray[np.float64]:
    """Return the probability ``[N]`` that a row is on the front, times uncertain by log-normal errors.

    Args:
        points: ``[N, 3 + K]``, minimised.
        spreads: standard deviations of the logarithms of the times ``[N]``.
        samples: drawn, always the same.
    """
    rows = _rows(points)
    noise = np.random.default_rng(0).standard_normal((samples, len(rows)))
    counts = np.zeros(len(rows))
    for errors in noise:
        drawn = rows.copy()
        drawn[:, TIME] *= np.exp(np.asarray(spreads, float) * errors)
        counts += nondominated(drawn)
    return counts / samples


def _rows(points: ArrayLike) -> NDArray[np.float64]:
    """Return points as a matrix ``[N, D]``, D at least 3; none are ``[0, 3]``."""
    rows = np.asarray(points, dtype=float)
    return rows.reshape(len(rows), -1) if rows.size else np.zeros((0, 3))


def hypervolume(points: ArrayLike, worst: ArrayLike = WORST) -> float:
    """Return the volume that ``points [N, d]`` dominate below ``worst [d]``: 0 to 1 for the unit cube; larger is better."""
    import moocore

    rows = np.asarray(points, dtype=float).reshape(-1, len(np.asarray(worst)))
    rows = rows[(rows < np.asarray(worst)).all(axis=1)]  # others dominate no volume
    return float(moocore.hypervolume(rows, ref=worst)) if len(rows) else 0.0
