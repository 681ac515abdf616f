"""A quantity that is a sum over what each axis of a space takes, and over pairs of neighbours where the data ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .regression import Posterior, regress

Floats = NDArray[np.float64]
Vectors = NDArray[np.int64]

SPREAD = 1.0  # prior standard deviation of an axis's factor around its mean of 1
PULLS = (0.0, 0.3, 1.0)  # those of what two neighbours add together, in parts of the geometric mean of their own
UNTRIED = 0.3  # standard deviation of an option that was never measured, in parts of it, beyond its axis's factor
LEAST_FACTOR = 0.25
LEAST_LEFT = 0.25  # of what the axes alone add: neighbours do not cancel each other quite


@dataclass(frozen=True)
class Guess:
    """What is thought before anything is measured.

    Attributes:
        table: what each option of each axis adds ``[L, K]``, at least 0.
        links: pairs of neighbouring axes ``[P, 2]``: what two of them add together goes with the geometric mean of both.
    """

    table: Floats
    links: Vectors

    def own(self, vectors: Vectors) -> Floats:
        """Return what the axes of candidates ``[M, L]`` add by this guess, each its own ``[M, L]``."""
        return _take(self.table, vectors)

    def pairs(self, own: Floats) -> Floats:
        """Return the geometric means of what neighbours add ``[M, P]``, given what all axes do ``[M, L]``."""
        roots = np.sqrt(own)
        return np.asarray(roots[:, self.links[:, 0]] * roots[:, self.links[:, 1]])


class Sums:
    """A guess that measurements have corrected: a factor for each axis, a pull for each pair.

    Args:
        guess: of the sums.
        vectors: measured candidates ``[M, L]``.
        target: the quantity that they have ``[M]``.
        unit: what its noise is proportional to ``[M]``.
        scales: of the noise, to choose from.

    Attributes:
        table: what each option of each axis adds ``[L, K]``.
        pulls: by pair, in parts of the geometric mean of both guesses ``[P]``; 0 where the data do not ask for them.
        posterior: of factors, then pulls.
    """

    def __init__(self, guess: Guess, vectors: Vectors, target: Floats, unit: Floats, scales: Sequence[float]) -> None:
        self.guess = guess
        axes, pairs = len(guess.table), len(guess.links)
        own = guess.own(vectors)
        rows = np.concatenate([own, guess.pairs(own)], axis=1)
        means = np.concatenate([np.ones(axes), np.zeros(pairs)])
        spreads = [np.concatenate([np.full(axes, SPREAD), np.full(pairs, pull)]) for pull in PULLS]
        told_apart = pairs and len(vectors) > len(means)  # fewer candidates cannot tell pulls from factors
        self.posterior: Posterior = regress(rows, target, unit, means, spreads if told_apart else spreads[:1], scales)
        factors = np.maximum(self.posterior.coefficients[:axes], LEAST_FACTOR)
        self.table = guess.table * factors[:, None]
        self.pulls = self.posterior.coefficients[axes:]
        tried = np.zeros_like(guess.table)
        np.add.at(tried, (np.broadcast_to(np.arange(axes), vectors.shape), vectors), 1.0)
        self._fresh = 1.0 / (1.0 + tried)

    def predict(self, vectors: Vectors) -> Floats:
        """Return the quantity of candidates ``[M, L]``; neighbours leave at least a part of what the axes alone add."""
        alone = _take(self.table, vectors).sum(axis=1)
        if not self.pulls.any():
            return np.asarray(alone)
        return np.maximum(alone + self.guess.pairs(self.guess.own(vectors)) @ self.pulls, LEAST_LEFT * alone)

    def spread(self, vectors: Vectors) -> Floats:
        """Return the standard deviations of what is predicted ``[M]``, without noise."""
        own = self.guess.own(vectors)
        rows = np.concatenate([own, self.guess.pairs(own)], axis=1)
        untried = _take(np.square(UNTRIED * self.table) * self._fresh, vectors).sum(axis=1)
        return np.asarray(np.sqrt(np.square(self.posterior.spread(rows)) + untried))

    def novelty(self, vectors: Vectors) -> Floats:
        """Return how little the options of candidates were measured before ``[M]``."""
        return np.asarray(_take(self._fresh, vectors).sum(axis=1))

    def together(self, pair: int) -> Floats:
        """Return what the options of a pair's two axes add together ``[K, K]``."""
        first, second = np.sqrt(self.guess.table[self.guess.links[pair]])
        return np.asarray(self.pulls[pair] * first[:, None] * second)

    def pulled(self, axis: int, vectors: Vectors) -> Floats:
        """Return what each option of an axis adds together with its neighbours as they are ``[M, K]``."""
        roots = np.sqrt(self.guess.table)
        result = np.zeros((len(vectors), roots.shape[1]))
        for pair in np.flatnonzero((self.guess.links == axis).any(axis=1) & (self.pulls != 0)).tolist():
            other = int(self.guess.links[pair].sum()) - axis
            result += self.pulls[pair] * roots[other, vectors[:, other]][:, None] * roots[axis]
        return result


def _take(table: Floats, vectors: Vectors) -> Floats:
    """Return the entries of a table ``[L, K]`` that candidates ``[M, L]`` chose ``[M, L]``."""
    return np.asarray(table.take(vectors + np.arange(len(table)) * table.shape[1]))
