"""Repair of removed inputs in closed form: the kept weights that give the old outputs best, by least squares.

For a layer y = W x of which only the inputs K stay, the weights of least squared output error are W H[:, K] H[K, K]^-1 with
H the mean of x x^T over the calibration data; a bias takes up the mean error. He, Zhang and Sun (arXiv:1707.06168) fit
channels so; ours needs no data but H, so that any choice of K is a solve.
"""

from __future__ import annotations

import numpy as np

RIDGE = 1e-3  # of the mean diagonal of the Gram matrix, towards the old weights


def refit(
    rows: np.ndarray,
    gram: np.ndarray,
    kept: np.ndarray,
    *,
    ridge: float = RIDGE,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """Return weights [R, K] of the kept inputs whose outputs come nearest to those of all weights on all inputs.

    Args:
        rows: the old weights [R, D].
        gram: mean of x x^T of all inputs, [D, D] (without the mean's part where a bias takes it up).
        kept: indices of the inputs that stay, [K].
        ridge: as a part of the mean diagonal, towards the old weights; it also makes a singular matrix solvable.
        mask: False where a weight is structurally zero, bool [R, K].
    """
    towards = rows[:, kept]
    cross = gram[kept].astype(np.float64)
    raised = cross[:, kept]
    diagonal = np.maximum(np.diag(raised), 0.0)
    weight = ridge * float(diagonal.mean()) + 1e-12
    raised[np.diag_indices_from(raised)] = diagonal + weight
    target = cross @ rows.T + weight * towards.T
    if mask is None:
        return _solve(raised, target).T.astype(np.float32)
    result = np.zeros_like(towards, dtype=np.float32)
    patterns, of = np.unique(mask, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        own = np.flatnonzero(of.reshape(-1) == number)
        if pattern.any():
            found = _solve(raised[np.ix_(pattern, pattern)], target[pattern][:, own])
            result[np.ix_(own, pattern)] = found.T
    return result


def _solve(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    from scipy.linalg import cho_factor, cho_solve

    try:
        return np.asarray(cho_solve(cho_factor(matrix, check_finite=False), target, check_finite=False))
    except np.linalg.LinAlgError:  # float32 sums of nearly equal inputs: the ridge alone does not make it definite
        return np.asarray(np.linalg.lstsq(matrix, target, rcond=1e-6)[0])
