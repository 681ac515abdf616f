"""Linear regression around a first guess, whose doubts are told; how far to trust data and guess, the data decide."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STRONG = 3.0  # logarithm of a Bayes factor that counts as strong (Kass and Raftery: Bayes factors, 1995)


@dataclass(frozen=True)
class Posterior:
    """What is known of coefficients.

    Attributes:
        coefficients: their means ``[P]``.
        root: ``[P, P]``; times its transpose it is their covariance.
        noise: what the scale of the noise was found to be.
    """

    coefficients: Floats
    root: Floats
    noise: float

    def spread(self, rows: Floats) -> Floats:
        """Return the standard deviations ``[M]`` of ``rows @ coefficients``, without noise."""
        return np.asarray(np.sqrt(np.square(rows @ self.root).sum(axis=1)))


def regress(
    rows: Floats, target: Floats, unit: Floats, guess: Floats, spreads: Sequence[Floats], scales: Sequence[float]
) -> Posterior:
    """Return what is known of the coefficients that explain ``rows @ coefficients = target``.

    Of the prior spreads and the scales of noise, those under which the data are most probable (type II maximum
    likelihood: MacKay, Bayesian interpolation, 1992). Spreads after the first have to be `STRONG` evidence better.

    Args:
        rows: ``[M, P]``.
        target: ``[M]``.
        unit: of the noise of each target ``[M]``; its standard deviation is this times the scale.
        guess: prior means ``[P]``.
        spreads: prior standard deviations ``[P]`` to choose from, the simplest first; 0 holds a coefficient at its guess.
        scales: of the noise, to choose from.
    """
    scaled, left = rows / unit[:, None], (target - rows @ guess) / unit
    gram, moment, square = scaled.T @ scaled, scaled.T @ left, float(left @ left)
    best, most = None, -np.inf
    for (number, spread), scale in itertools.product(enumerate(spreads), scales):
        precision = np.eye(len(guess)) + spread[:, None] * gram * spread / scale**2
        triangle = np.linalg.cholesky(precision)
        pulled = np.linalg.solve(triangle, spread * moment) / scale**2
        misfit = square / scale**2 - float(pulled @ pulled)
        evidence = -0.5 * misfit - float(np.log(np.diag(triangle)).sum()) - len(target) * np.log(scale)
        evidence -= STRONG * (number > 0)
        if evidence > most:
            best, most = (spread, scale, triangle, pulled), evidence
    if best is None:  # nothing finite was measured
        raise ValueError("there is nothing to learn from")
    spread, scale, triangle, pulled = best
    root = spread[:, None] * np.linalg.inv(triangle).T
    return Posterior(guess + root @ pulled, root, scale)
